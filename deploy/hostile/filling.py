"""Bodies that never end and answers that nobody reads, for a gateway that keeps both."""

import contextlib
import json
import socket
import time

from deploy.audit.door import HEALTH, HEALTH_PATH, INFER, Door
from deploy.audit.http1 import Broken, answer, head
from deploy.hostile.crowd import crowd, turns
from deploy.hostile.heard import Heard
from deploy.hostile.wire import DATA, FRAME_BYTES, HEADERS, RST_STREAM, Http2, grpc_frame

#: Just under what a request may have by default.
BODY_BYTES = 15 * 2**20
CONNECTIONS, STREAMS = 2, 50
#: An answer is not read: the least that the kernel gives.
_RECEIVE_BYTES = 4096


def unfinished_streams(door: Door, heard: Heard, seconds: float) -> None:
    """Fill 2 x 50 streams of HTTP/2 with all but the end of a body each, and hold them."""

    def client(_: int) -> None:
        for _ in turns(seconds):
            with contextlib.suppress(*Broken), Http2(door) as connection:
                opened = []
                for number in range(STREAMS):
                    path = HEALTH if _needs_no_key(door, number) else INFER
                    stream, headers = connection.headers(path=path)
                    connection.send(headers)
                    opened.append(stream)
                list(connection.look(0.2))
                left = {one: BODY_BYTES for one in opened if one in connection.windows}
                if len(left) < len(opened):
                    heard.answer("stream ended")
                _fill(connection, left, heard, seconds)

    crowd(CONNECTIONS, client)


def _needs_no_key(door: Door, number: int) -> bool:
    """Return whether the body is for a health check: of nobody's most are, it asks no key."""
    return door.key is None and number % 8 != 0


def _fill(connection: Http2, left: dict[int, int], heard: Heard, seconds: float) -> None:
    """Send as the windows allow until the time is over or no stream is left."""
    start, piece = grpc_frame(bytes(BODY_BYTES))[:5], bytes(FRAME_BYTES)
    begun: set[int] = set()
    for _ in turns(seconds):
        sent = 0
        for stream in list(left):
            chunk = piece if stream in begun else start + piece[5:]
            if left[stream] >= FRAME_BYTES and connection.give(stream, chunk):
                begun.add(stream)
                left[stream] -= FRAME_BYTES
                sent += 1
        for kind, _, stream, payload in connection.look(0 if sent else 0.1):
            if kind in (HEADERS, RST_STREAM) and left.pop(stream, None) is not None:
                heard.answer("stream ended", payload)
        if not left:
            time.sleep(0.1)
            return
    heard.answer("held until the end")


def unfinished_bodies(door: Door, heard: Heard, seconds: float) -> None:
    """Send all but the last bytes of bodies over HTTP/1.1, and hold the connections."""
    end = time.monotonic() + seconds
    length = {"content-length": str(BODY_BYTES + 1)}
    infer, health = head(door, length), head(door, length, method="GET", path=HEALTH_PATH)
    piece = b"[" + b" " * (2**18 - 1)

    def client(number: int) -> None:
        opening = health if _needs_no_key(door, number) else infer
        while time.monotonic() < end:
            with contextlib.suppress(*Broken), door.connect() as connection:
                connection.sendall(opening)
                try:
                    for _ in range(BODY_BYTES // len(piece)):
                        if time.monotonic() > end:
                            break
                        connection.sendall(piece)
                    connection.settimeout(max(0.1, end - time.monotonic()))
                finally:
                    _hear_end(connection, heard)
            time.sleep(0.1)

    crowd(48, client)


def _hear_end(connection: socket.socket, heard: Heard) -> None:
    """Take the answer, if there is one before patience ends."""
    try:
        status, said = answer(connection)
    except TimeoutError:
        heard.answer("held until the end")
    else:
        heard.answer(f"HTTP {status}", said)


def slow_readers(door: Door, heard: Heard, seconds: float) -> None:
    """Ask for answers as large as can be had, an id that is said again, and read none."""
    end = time.monotonic() + seconds
    question = json.dumps({**json.loads(door.body), "id": "Z" * BODY_BYTES}).encode()
    opening = head(door, {"content-length": str(len(question))})

    def client(number: int) -> None:
        while time.monotonic() < end:
            with contextlib.suppress(*Broken):
                if number % 4 == 0:
                    _read_no_frame(door, end)
                    continue
                with door.connect(receive_bytes=_RECEIVE_BYTES) as connection:
                    connection.sendall(opening + question)
                    heard.answer("sent")
                    _hold(end)

    crowd(24, client)


def _read_no_frame(door: Door, end: float) -> None:
    """Ask over gRPC with a window of nothing, so that every answer has to wait."""
    from tritonclient.grpc import service_pb2

    asked = service_pb2.ModelInferRequest.FromString(door.message)
    asked.id = "Z" * (BODY_BYTES // 8)
    message = grpc_frame(asked.SerializeToString())
    with Http2(door, window=0, receive_bytes=_RECEIVE_BYTES) as connection:
        list(connection.look(0.2))
        while time.monotonic() < end:
            stream, headers = connection.headers()
            connection.send(headers)
            for start in range(0, len(message), FRAME_BYTES):
                for _ in turns(max(0.1, end - time.monotonic())):
                    if connection.give(stream, message[start : start + FRAME_BYTES]):
                        break
                    if stream not in connection.windows:
                        return  # refused
                    list(connection.look(0.01))
            connection.send(b"\0\0\0" + bytes([DATA, 1]) + stream.to_bytes(4, "big"))


def _hold(end: float) -> None:
    time.sleep(max(0.0, end - time.monotonic()))

"""Requests that are called off while Triton works on them."""

import contextlib
import random
import socket
import struct

from deploy.audit.door import HEALTH, INFER, Door, told
from deploy.audit.http1 import Broken, request
from deploy.hostile.crowd import crowd, turns
from deploy.hostile.heard import Heard
from deploy.hostile.wire import CANCEL, DATA, END_STREAM, RST_STREAM, Http2, frame, grpc_frame

CLIENTS = 8
#: Of a quiet machine, and of one that takes its time.
_DEADLINES_S = ((0.0005, 0.006), (0.002, 0.03))
#: Streams that one connection opens before it looks at what came back.
_STREAMS = 32
#: SO_LINGER: closing sends RST instead of FIN.
_HARD = struct.pack("ii", 1, 0)


def deadlines(door: Door, heard: Heard, seconds: float) -> None:
    """Ask over gRPC with deadlines that most answers miss by a little."""

    def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        with door.channel() as channel:
            call = channel.unary_unary(INFER)
            for _ in turns(seconds):
                deadline_s = rng.uniform(*rng.choice(_DEADLINES_S))
                heard.answer(*told(call, door.message, metadata=door.keys, timeout=deadline_s))

    crowd(CLIENTS, client)


def resets(door: Door, heard: Heard, seconds: float) -> None:
    """Send whole requests as HTTP/2 frames, and reset each a moment later."""
    message = grpc_frame(door.message)

    def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        for _ in turns(seconds):
            with contextlib.suppress(*Broken), Http2(door) as connection:
                for _ in turns(seconds / 4):
                    opened = []
                    for _ in range(rng.randint(1, _STREAMS)):
                        stream, headers = connection.headers()
                        connection.send(headers + frame(DATA, END_STREAM, stream, message))
                        opened.append(stream)
                    for kind, _, _, payload in connection.look(
                        rng.uniform(*rng.choice(_DEADLINES_S))
                    ):
                        if kind == DATA:
                            heard.answer("HTTP/2 data", payload)
                    connection.send(
                        b"".join(frame(RST_STREAM, 0, stream, CANCEL) for stream in opened)
                    )
                    heard.answer("reset")

    crowd(CLIENTS, client)


def rapid_resets(door: Door, heard: Heard, seconds: float) -> None:
    """Open streams and reset them in the same breath; half are whole requests, open to it."""
    path, message = (INFER, door.message) if door.key else (HEALTH, b"")
    whole = grpc_frame(message)

    def client(_: int) -> None:
        for _ in turns(seconds):
            with contextlib.suppress(*Broken), Http2(door) as connection:
                for _ in turns(seconds):
                    said = b""
                    for number in range(100):
                        stream, headers = connection.headers(path=path if number % 2 else INFER)
                        connection.windows.pop(stream)
                        said += headers
                        if number % 2:
                            said += frame(DATA, END_STREAM, stream, whole)
                        said += frame(RST_STREAM, 0, stream, CANCEL)
                    connection.send(said)
                    heard.answer("reset")
                    list(connection.look(0.01))

    crowd(2, client)


def hang_ups(door: Door, heard: Heard, seconds: float) -> None:
    """Send requests, whole and half, and be gone at once, as a killed client is."""
    whole, message = request(door, door.body), grpc_frame(door.message)

    def client(number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        for turn in turns(seconds):
            with contextlib.suppress(*Broken):
                if turn % 2:
                    with door.connect() as connection:
                        connection.sendall(whole[: rng.choice([len(whole), len(whole) // 2])])
                        _hang_up(connection, rng.uniform(0, 0.005))
                else:
                    with Http2(door) as frames:
                        for _ in range(8):
                            stream, headers = frames.headers()
                            frames.send(headers + frame(DATA, END_STREAM, stream, message))
                        list(frames.look(rng.uniform(0, 0.005)))
                heard.answer("hung up")

    crowd(4, client)


def _hang_up(connection: socket.socket, after_s: float) -> None:
    connection.settimeout(max(after_s, 0.001))
    with contextlib.suppress(OSError):
        connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD)

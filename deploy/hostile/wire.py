"""HTTP/2 by hand; and HTTP/1.1, with what came back heard."""

import contextlib
import struct
import time
from collections.abc import Iterable, Iterator

from deploy.audit.door import INFER, Door
from deploy.audit.http1 import ask
from deploy.hostile.heard import Heard

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_INITIAL_WINDOW_SIZE = 4
CANCEL = struct.pack(">I", 8)
#: Of one DATA frame.
FRAME_BYTES = 16384
#: What may be in flight before a receiver has said more.
_WINDOW = 65535
_MOST_READ = 2**20


def hear(door: Door, raw: bytes, heard: Heard, name: str = "") -> tuple[int, bytes]:
    """Ask, have it heard under a name, with the time that it took, and return what ``ask`` does."""
    began = time.monotonic()
    status, said = ask(door, raw)
    heard.answer(f"{name}HTTP {status}", said, after_s=time.monotonic() - began)
    return status, said


def pairs(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return headers in HPACK: literal, not indexed, not compressed."""
    return b"".join(
        b"\0" + _text(name.encode()) + _text(value.encode("latin-1")) for name, value in fields
    )


def _text(raw: bytes) -> bytes:
    length, encoded = len(raw), b""
    if length < 127:
        return bytes([length]) + raw
    length -= 127
    while length > 127:
        encoded += bytes([length % 128 + 128])
        length //= 128
    return b"\x7f" + encoded + bytes([length]) + raw


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def grpc_frame(message: bytes) -> bytes:
    """Return a message as gRPC sends it."""
    return struct.pack(">BI", 0, len(message)) + message


class Http2:
    """One connection of HTTP/2; use it as a context manager.

    Raises:
        OSError: it was refused, when entered; it was closed, with any call.
    """

    def __init__(self, door: Door, *, window: int = _WINDOW, receive_bytes: int | None = None):
        self._door = door
        self._socket = door.connect("h2", receive_bytes=receive_bytes)
        self._unread = b""
        self._next = 1
        self.windows: dict[int, int] = {0: _WINDOW}  #: of what may be sent, by stream
        self._initial = _WINDOW
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> "Http2":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(raw)

    def headers(self, *, path: str = INFER) -> tuple[int, bytes]:
        """Return a new stream's number and the frame that opens it as a gRPC call."""
        stream, self._next = self._next, self._next + 2
        self.windows[stream] = self._initial
        fields = [
            (":method", "POST"), (":scheme", "https" if self._door.ca else "http"),
            (":path", path), (":authority", str(self._door.http)),
            ("content-type", "application/grpc"), ("te", "trailers"), *self._door.keys,
        ]  # fmt: skip
        return stream, frame(HEADERS, END_HEADERS, stream, pairs(fields))

    def look(self, wait_s: float) -> Iterator[tuple[int, int, int, bytes]]:
        """Return the frames that come within a time: kind, flags, stream, payload."""
        deadline = time.monotonic() + wait_s
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                got = self._socket.recv(_MOST_READ)
                if not got:
                    raise ConnectionResetError("closed")
                self._unread += got
            self._socket.settimeout(10)
            yield from self._frames()
            if time.monotonic() >= deadline:
                return

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._unread) >= 9:
            length = int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < 9 + length:
                return
            kind, flags, stream = struct.unpack(">BBI", self._unread[3:9])
            payload = self._unread[9 : 9 + length]
            self._unread = self._unread[9 + length :]
            self._account(kind, flags, stream, payload)
            yield kind, flags, stream, payload

    def _account(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Keep the windows, as a sender has to."""
        if kind == WINDOW_UPDATE and stream in self.windows:
            self.windows[stream] += int.from_bytes(payload, "big")
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.windows.pop(stream, None)
        elif kind == SETTINGS and not flags & ACK:
            for start in range(0, len(payload) - 5, 6):
                name, value = struct.unpack(">HI", payload[start : start + 6])
                if name == _INITIAL_WINDOW_SIZE:
                    for one in self.windows:
                        self.windows[one] += (value - self._initial) if one else 0
                    self._initial = value
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))

    def give(self, stream: int, piece: bytes) -> bool:
        """Send a DATA frame if the windows let it through; return whether it was sent."""
        if min(self.windows.get(stream, 0), self.windows[0]) < len(piece):
            return False
        self.send(frame(DATA, 0, stream, piece))
        self.windows[stream] -= len(piece)
        self.windows[0] -= len(piece)
        return True

"""HTTP/1.1 by hand, since no honest client sends what a hostile one sends."""

import contextlib
import http.client
import socket
from collections.abc import Mapping

from deploy.audit.door import Door

#: What goes wrong between a hostile client and a door that defends itself.
Broken = (OSError, http.client.HTTPException)
_MOST_READ = 2**20


def head(
    door: Door, headers: Mapping[str, str], *, version: str = "1.1", method: str = "POST",
    path: str = "",
) -> bytes:  # fmt: skip
    """Return the request line and headers, with the door's key."""
    said = {"host": str(door.http), **dict(door.keys), **headers}
    lines = [f"{method} {path or door.path} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in said.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request(
    door: Door, body: bytes, headers: Mapping[str, str] | None = None, *, chunk: int = 0
) -> bytes:
    """Return a whole POST, in chunks of so many bytes, or with its length."""
    said = dict(headers or {})
    if not chunk:
        return head(door, {"content-length": str(len(body)), **said}) + body
    pieces = (body[start : start + chunk] for start in range(0, len(body), chunk))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head(door, {"transfer-encoding": "chunked", **said}) + chunks + b"0\r\n\r\n"


def answer(connection: socket.socket, method: str = "POST") -> tuple[int, bytes]:
    """Return the status and the body that come back over HTTP/1.1.

    Raises:
        OSError, http.client.HTTPException: none came.
    """
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return response.status, response.read(_MOST_READ)
    finally:
        response.close()


def ask(door: Door, raw: bytes, method: str = "POST") -> tuple[int, bytes]:
    """Return what one request on a connection of its own is answered; 0 if it is not."""
    with contextlib.suppress(*Broken), contextlib.closing(door.connect()) as connection:
        with contextlib.suppress(OSError):  # refused before all was sent: the answer is there
            connection.sendall(raw)
        return answer(connection, method)
    return 0, b""

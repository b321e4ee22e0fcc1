"""Connections that say nothing, or not enough, until nobody else finds room."""

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial

from deploy.audit.door import Door
from deploy.audit.http1 import Broken, head
from deploy.hostile.heard import Heard

#: More than the gateway takes by default.
CONNECTIONS = 1_100
#: Ends what is heard, after how many there were.
HELD = " connections held at once"
#: The first bytes of a ClientHello: a record of 512 bytes, of which none follows.
HALF_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def silent_tcp(door: Door, heard: Heard, seconds: float) -> None:
    """Connect, and say nothing."""
    _hold(heard, seconds, door.tcp)


def half_handshakes(door: Door, heard: Heard, seconds: float) -> None:
    """Begin to speak TLS, and go no further."""
    _hold(heard, seconds, partial(begun, door.tcp, HALF_HELLO))


def idle_tls(door: Door, heard: Heard, seconds: float) -> None:
    """Shake hands, and ask nothing."""
    _hold(heard, seconds, door.connect)


def half_headers(door: Door, heard: Heard, seconds: float) -> None:
    """Begin a request's headers, and go on a letter at a time."""
    _hold(heard, seconds, partial(begun, door.connect, half_head(door)), letter=b"z")


def half_head(door: Door) -> bytes:
    """Return the beginning of a request, up to a header's value."""
    return head(door, {})[:-2] + b"x-slow: "


def begun(connect: Callable[[], socket.socket], said: bytes) -> socket.socket:
    """Return a new connection over which so much was said."""
    connection = connect()
    connection.sendall(said)
    return connection


def _hold(
    heard: Heard, seconds: float, opened: Callable[[], socket.socket], *, letter: bytes = b""
) -> None:
    """Open as many as can be had until the time is over; say how many were held at the end."""
    end = time.monotonic() + seconds
    held: list[socket.socket] = []
    most = 0
    try:
        while time.monotonic() < end:
            while len(held) < CONNECTIONS and time.monotonic() < end:
                try:
                    held.append(opened())
                except Broken:
                    heard.answer("not let in")
                    break
            held = [one for one in held if _lives(one, letter)]
            most = max(most, len(held))
            time.sleep(0.2)
    finally:
        for one in held:
            one.close()
    heard.answer(f"{most}{HELD}")


def _lives(connection: socket.socket, letter: bytes) -> bool:
    """Return whether the other side has not closed it; go on by a letter."""
    connection.settimeout(0.0)
    try:
        if letter:
            connection.send(letter)
        if connection.recv(4096) == b"":
            raise ConnectionResetError("closed")
    except (BlockingIOError, TimeoutError):
        return True
    except OSError as error:
        if "did not complete" in str(error):  # what TLS says instead
            return True
        with contextlib.suppress(OSError):
            connection.close()
        return False
    return True

"""Ways to hurt a server that ``audit`` tries by default: once each, and too weak to hurt.

What takes an unfixed server down is asked for at a size at which it only answers otherwise than
one that defends itself: JSON that nests 5,000 deep, an id of 3,000 letters, four silent
connections.
"""

import contextlib
import json
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from deploy.audit.door import INFER, Door, told
from deploy.audit.http1 import Broken, ask, head, request
from deploy.audit.target import TIMEOUT_S
from deploy.audit.way import SpentError, Way
from deploy.hostile.holding import HALF_HELLO, begun, half_head
from deploy.hostile.json_bodies import nested, shaped
from deploy.hostile.odd import headers_alone, stream

#: Deep for JSON, far from the end of anybody's stack.
DEPTH = 5_000
#: Far more elements than are sent, of a few MiB.
SHAPE = 2**20
#: So long that reading it slowly takes a third of a second, no more.
LONG = 3_000
#: A connection that says nothing may live so long.
SILENCE_S = 20.0
#: A refusal that waits for nothing has come by then.
AT_ONCE_S = 5.0


def ways(door: Door, inner: Iterable[str]) -> Iterator[Way]:
    """Return them; connections that are to be held are opened at once, and looked at last."""
    held = [_Held(name, opened) for name, opened in _silences(door)]
    for number, body in enumerate(nested(door, DEPTH), 1):
        yield Way(f"JSON {DEPTH} deep, shape {number}", _reaches_triton(door, body))
    for number, body in enumerate(shaped(door, [SHAPE]), 1):
        yield Way(f"JSON of {SHAPE} elements that are not there, spelling {number}",
                  _reaches_triton(door, body))  # fmt: skip
    lying = request(door, b"[" * DEPTH, {"content-type": "application/grpc"})
    yield Way(f"JSON {DEPTH} deep, called gRPC", lambda: _said_by_triton(*ask(door, lying)))
    yield Way(f"gRPC id of {LONG} letters read slowly", lambda: _slow(door))
    yield Way("gRPC stream kept waiting", lambda: _waits(door, stream))
    yield Way("gRPC headers alone kept waiting", lambda: _waits(door, headers_alone))
    yield Way("HTTP body of nobody's waited for", lambda: _body_first(door))
    yield from _names(door, inner)
    for one in held:
        yield Way(f"{one.name} kept for {SILENCE_S:g} s", one.look)


def _reaches_triton(door: Door, body: bytes) -> Callable[[], str | None]:
    return lambda: _said_by_triton(*ask(door, request(door, body)))


def _said_by_triton(status: int, said: bytes) -> str | None:
    """Return what was answered if it was not a gateway that refused."""
    if status == 429:
        raise SpentError
    text = said.decode(errors="replace")
    if status == 200 and not said:  # a gateway that refuses what calls itself gRPC in kind
        return None
    if not status or status in (401, 403, 404, 413) or "gateway: " in text:
        return None if "model server failed" not in text else f"{status}: the model server read it"
    return f"{status}: {' '.join(text.split())[:100]}"


def _slow(door: Door) -> str | None:
    """Return how long it takes to refuse a long id, if far longer than a short one."""
    short, long = (min(_refusal_s(door, length) for _ in range(3)) for length in (10, LONG))
    if long < max(0.15, 10 * short):
        return None
    return f"{long:.2f} s for {LONG} letters, {short:.3f} s for 10: others wait meanwhile"


def _refusal_s(door: Door, length: int) -> float:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest(model_name=door.model, id="Z" * length)
    with door.channel() as channel:
        call = channel.unary_unary(INFER)
        began = time.monotonic()
        told(call, message.SerializeToString(), metadata=door.keys, timeout=AT_ONCE_S)
        return time.monotonic() - began


def _waits(door: Door, call: Callable[[Door], bytes]) -> str | None:
    """Return how long a call is left without an answer, if it is."""
    began = time.monotonic()
    told(call, door)
    took = time.monotonic() - began
    return None if took < AT_ONCE_S else f"no answer for {took:.0f} s"


def _body_first(door: Door) -> str | None:
    """Return whether a body is waited for that comes without a key."""
    nobody = replace(door, key=None)
    with contextlib.suppress(*Broken), contextlib.closing(nobody.connect()) as connection:
        connection.sendall(head(nobody, {"content-length": str(15 * 2**20)}))
        connection.settimeout(AT_ONCE_S)
        try:
            connection.recv(1)
        except TimeoutError:
            return f"15 MiB of somebody without a key are waited for, {AT_ONCE_S:g} s and more"
    return None


def _names(door: Door, inner: Iterable[str]) -> Iterator[Way]:
    """Return ways to have a failure name what is behind the public model."""
    import numpy as np
    from tritonclient.grpc import service_pb2

    names = [*inner, f"{door.model}_classifier", "victim_scores", "triton-key", "/1/"]

    def over_grpc(change: Callable[[Any], None]) -> str | None:
        message = service_pb2.ModelInferRequest.FromString(door.message)
        change(message)
        with door.channel() as channel:
            call, raw = channel.unary_unary(INFER), message.SerializeToString()
            _, said = told(call, raw, metadata=door.keys, timeout=TIMEOUT_S)
        return _named(said, names) if isinstance(said, str) else None

    def over_http(change: Callable[[Any], None]) -> str | None:
        question = json.loads(door.body)
        change(question)
        _, said = ask(door, request(door, json.dumps(question).encode()))
        return _named(said.decode(errors="replace"), names)

    def filled(value: float) -> Callable[[Any], None]:
        def fill(message: Any) -> None:
            if message.raw_input_contents and message.inputs[0].datatype == "FP32":
                size = len(message.raw_input_contents[0]) // 4
                message.raw_input_contents[0] = np.full(size, value, np.float32).tobytes()

        return fill

    for name, change in (
        ("numbers that are none", filled(float("nan"))),
        ("numbers of 1e38", filled(1e38)),
        ("an unknown input", lambda said: setattr(said.inputs[0], "name", "x")),
        ("an unknown output", lambda said: said.outputs.add(name="x")),
        ("another type", lambda said: setattr(said.inputs[0], "datatype", "INT8")),
        ("another shape", lambda said: said.inputs[0].shape.append(7)),
        ("another version", lambda said: setattr(said, "model_version", "77")),
    ):
        yield Way(f"gRPC {name}, names told",
                  lambda change=change: over_grpc(change))  # type: ignore[misc]  # fmt: skip
    for name, change in (
        ("numbers of 1e38", lambda said: _fill(said, 1e38)),
        ("an unknown input", lambda said: said["inputs"][0].update(name="x")),
        ("an unknown output", lambda said: said.update(outputs=[{"name": "x"}])),
        ("another type", lambda said: said["inputs"][0].update(datatype="INT8")),
        ("another shape", lambda said: said["inputs"][0].update(shape=[1, 7])),
    ):
        yield Way(f"HTTP {name}, names told",
                  lambda change=change: over_http(change))  # type: ignore[misc]  # fmt: skip


def _fill(question: Any, value: float) -> None:
    one = question["inputs"][0]
    if one["datatype"].startswith("FP"):
        one["data"] = [value] * len(one["data"])


def _named(said: str, names: list[str]) -> str | None:
    """Return what was said if it holds a name that only the inside knows."""
    inner = next((name for name in names if name in said), None)
    return None if inner is None else f"names {inner}: {' '.join(said.split())[:80]}"


def _silences(door: Door) -> Iterator[tuple[str, Callable[[], socket.socket]]]:
    yield "silent TCP", door.tcp
    if door.ca is not None:
        yield "half a TLS handshake", partial(begun, door.tcp, HALF_HELLO)
        yield "silent TLS", door.connect
    yield "half a request's headers", partial(begun, door.connect, half_head(door))


class _Held:
    """A connection that was opened, and is looked at later."""

    def __init__(self, name: str, opened: Callable[[], socket.socket]) -> None:
        self.name, self._until = name, time.monotonic() + SILENCE_S
        self._connection: socket.socket | None = None
        with contextlib.suppress(*Broken):
            self._connection = opened()

    def look(self) -> str | None:
        """Return that it lives after its time, None once it is closed."""
        if self._connection is None:
            return None
        with contextlib.closing(self._connection) as connection:
            while (left := self._until - time.monotonic()) > 0:
                connection.settimeout(left)
                try:
                    if not connection.recv(4096):
                        return None
                except (TimeoutError, ssl.SSLWantReadError):
                    select.select([connection], [], [], min(left, 0.5))
                except OSError:
                    return None
        return f"still open after {SILENCE_S:g} s"

"""Honest clients, who ask the same all the time and know the right answer."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.audit.door import INFER, Door, told
from deploy.audit.http1 import ask, request
from deploy.audit.target import TIMEOUT_S
from load_tests.timing.paced import Ask
from postprocess.errors import ReverseSigmoidError

#: How far the same answer may be from itself: the victim's last digits differ with the batch.
_SAME = 1e-4
Answer = NDArray[np.float64]


class NotAnsweredError(ReverseSigmoidError):
    """An honest question was refused."""


def over_grpc(door: Door) -> Callable[[], Answer]:
    """Return a question over one connection that is kept."""
    from tritonclient.grpc import service_pb2

    call = door.channel().unary_unary(INFER)

    def once() -> Answer:
        status, said = told(call, door.message, metadata=door.keys, timeout=TIMEOUT_S)
        if isinstance(said, str):
            raise NotAnsweredError(f"gRPC {status}: {said}")
        answered = service_pb2.ModelInferResponse.FromString(said)
        return np.frombuffer(answered.raw_output_contents[0], np.float32).astype(np.float64)

    return once


def over_http(door: Door) -> Callable[[], Answer]:
    """Return a question over a new connection each time."""
    raw = request(door, door.body, {"connection": "close"})

    def once() -> Answer:
        status, said = ask(door, raw)
        if status != 200:
            raise NotAnsweredError(f"HTTP {status}: {said[:200].decode(errors='replace')}")
        answered: dict[str, Any] = json.loads(said)
        return np.array(answered["outputs"][0]["data"], np.float64)

    return once


@contextmanager
def client(
    door: Door, over: Callable[[Door], Callable[[], Answer]], expected: Answer
) -> Iterator[Ask]:
    """Yield a client's question, for ``Paced``."""
    once = over(door)

    def asked() -> str:
        try:
            answered = once()
        except NotAnsweredError as error:
            return str(error)
        same = answered.shape == expected.shape and np.abs(answered - expected).max() <= _SAME
        return "" if same else "another answer than before"

    yield asked

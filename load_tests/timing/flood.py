"""A thief in a process of its own, who queries a model for as long as the parent wants.

It asks about inputs of its own in batches, closed loop, as the Sample attack does with real images
(``data``). A pipe is its life line: once the parent's end is closed, which the kernel does even for
one that was killed, the thief ends. ``bound_s`` bounds it besides.
"""

import contextlib
import os
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from exporters.training import datasets
from load_tests.asking.endpoint import OPEN, Access, EndpointError, connect
from load_tests.asking.spawned import Spawned
from load_tests.data import query_sets
from load_tests.data.rows import Rows
from load_tests.timing.closed_loop import ClosedLoop
from load_tests.timing.prepared import Preparer, RefusedError
from postprocess.errors import ReverseSigmoidError

CONCURRENCY = 4
BATCH = 8
#: Requests with inputs of their own, asked in turn.
REQUESTS = 64
READY = "flooding"
#: How long a request that is under way when the thief has to end is waited for.
PATIENCE_S = 5


@dataclass(frozen=True)
class FloodOptions:
    """Whom to query."""

    url: str  #: HOST:PORT of Triton's gRPC endpoint
    model: str
    seed: int  #: of the inputs
    bound_s: float  #: the process ends by itself after this time
    data: str = ""  #: a data set's name, "" for random inputs
    data_dir: Path | None = None
    query_set: str = ""  #: file of a query set, in the data set's place
    access: Access = OPEN  #: what the endpoint asks of its clients


class Flood:
    """The process, as a context manager: it queries inside the block and is gone after it."""

    def __init__(self, asked: FloodOptions) -> None:
        """Say whom to query."""
        self._thief = Spawned("the thief", _steal, asked)
        #: What the thief did, once the block is left: batch, requests, errors, seconds.
        self.done: dict[str, Any] = {}

    def __enter__(self) -> "Flood":
        """Start it and wait until it is under way.

        Raises:
            EndpointError: it could not begin.
        """
        if (said := self._thief.start()) != READY:
            self._thief.end()
            raise EndpointError(f"the thief ended early: {said}")
        return self

    def check(self) -> None:
        """Do nothing if the thief is still at it.

        Raises:
            EndpointError: it is not.
        """
        if self._thief.has_said_more:
            raise EndpointError(f"the thief ended early: {self._thief.hear()}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let it end, and kill it if it does not."""
        try:
            if kind is None:
                said = None
                with contextlib.suppress(OSError):  # it has ended already
                    self._thief.line.send(None)
                with contextlib.suppress(EndpointError):
                    said = self._thief.hear(2 * PATIENCE_S)
                if not isinstance(said, dict):
                    raise EndpointError("the thief did not say what it did")
                self.done = said
        finally:
            self._thief.end()


def _steal(asked: FloodOptions, line: "Connection[Any, Any]") -> None:
    """Query until the parent says that it is enough, or is no more, or the time is over."""
    try:
        said: Any = _queried(asked, line)
    except ReverseSigmoidError as error:
        said = str(error)
    except Exception as error:
        said = repr(error)
    with contextlib.suppress(OSError):  # nobody listens any more
        line.send(said)


def _queried(asked: FloodOptions, line: "Connection[Any, Any]") -> dict[str, Any]:
    url, access, rng = asked.url, asked.access, np.random.default_rng(asked.seed)
    sent: Rows | None = datasets.load(asked.data, asked.data_dir).x_train if asked.data else None
    if asked.query_set:
        sent = query_sets.read(Path(asked.query_set), to_learn=False).rows
    with ClosedLoop(url, CONCURRENCY, access) as clients, closing(connect(url, access)) as client:
        threading.Thread(target=_follow_parent, args=(line, clients), daemon=True).start()
        preparer = Preparer(client, url, asked.model, sent=sent)
        try:
            rows = preparer.request(BATCH, rng=rng).rows
        except RefusedError:
            rows = 1
        requests = [preparer.request(rows, rng=rng) for _ in range(REQUESTS)]
        line.send(READY)
        done = clients.run(requests, clients=CONCURRENCY, seconds=asked.bound_s)
    answered = len(done.latencies_ms)
    return {
        "concurrency": CONCURRENCY,
        "batch": rows,
        "seconds": done.seconds,
        "requests": answered,
        "errors": done.errors,
        "rows_per_second": answered * rows / max(done.seconds, 1e-9),
    }


def _follow_parent(line: "Connection[Any, Any]", clients: ClosedLoop) -> None:
    """Stop once the parent says so or is gone, even if the server leaves a request unanswered."""
    with contextlib.suppress(EOFError, OSError):
        line.recv()
    clients.stop()
    time.sleep(PATIENCE_S)
    os._exit(1)

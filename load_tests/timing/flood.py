"""A thief in a process of its own, who queries a model for as long as the parent wants.

It asks about inputs of its own in batches, closed loop, as the Sample attack does with real images
(``data``). A pipe is its life line: once the parent's end is closed, which the kernel does even for
one that was killed, the thief ends. ``bound_s`` bounds it besides.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from exporters.training import datasets
from load_tests.asking.deferred_signals import deferred_signals
from load_tests.asking.endpoint import OPEN, Access, EndpointError, connect
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
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


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
        self._asked = asked
        #: What the thief did, once the block is left: batch, requests, errors, seconds.
        self.done: dict[str, Any] = {}

    def __enter__(self) -> "Flood":
        """Start it and wait until it is under way.

        Raises:
            EndpointError: it could not begin.
        """
        spawn = multiprocessing.get_context("spawn")  # a fork would share gRPC's threads
        self._line, its_end = spawn.Pipe()
        self._process = spawn.Process(target=_steal, args=(self._asked, its_end), daemon=True)
        resource_tracker.ensure_running()  # whose start would let through what is blocked below
        try:
            with deferred_signals():  # one within would leave a child that nobody knows
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the child has it too
                self._process.start()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                its_end.close()
            if (said := self._heard()) != READY:
                raise EndpointError(f"the thief ended early: {said}")
        except BaseException:
            self._kill()
            raise
        return self

    def check(self) -> None:
        """Do nothing if the thief is still at it.

        Raises:
            EndpointError: it is not.
        """
        if self._line.poll():
            raise EndpointError(f"the thief ended early: {self._heard()}")

    def _heard(self) -> Any:
        """Return what it says next: that it is ready, what it did, or why it cannot."""
        try:
            return self._line.recv()
        except EOFError:
            self._process.join()
            return f"exit code {self._process.exitcode}"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let it end, and kill it if it does not."""
        try:
            if kind is None:
                with contextlib.suppress(OSError):  # it has ended already
                    self._line.send(None)
                said = self._heard() if self._line.poll(2 * PATIENCE_S) else None
                if not isinstance(said, dict):
                    raise EndpointError("the thief did not say what it did")
                self.done = said
        finally:
            self._kill()

    def _kill(self) -> None:
        self._line.close()
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()


def _steal(asked: FloodOptions, line: "Connection[Any, Any]") -> None:
    """Query until the parent says that it is enough, or is no more, or the time is over."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING - {signal.SIGINT})  # Ctrl-C: the parent's
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

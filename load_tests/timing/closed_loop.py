"""A closed loop: clients that each send the next request once the last is answered."""

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.asking.endpoint import OPEN, Access, connect
from load_tests.asking.failures import said_by

#: Of every request. Whoever is not answered by then counts an error.
TIMEOUT_S = 30.0
#: How long a client waits after an error, so that a server that is down is not hammered.
PAUSE_S = 0.01


@dataclass(frozen=True)
class Request:
    """A request that is ready to be sent, any number of times and by several clients at once."""

    model: str
    inputs: Sequence[Any]  #: tritonclient's InferInput, filled
    rows: int


@dataclass(frozen=True)
class Slice:
    """What a short stretch of load on one model gave."""

    latencies_ms: NDArray[np.float64]  #: of the requests that were answered
    seconds: float  #: from the first request sent to the last one answered
    errors: int = 0
    error: str = ""  #: the first one


class ClosedLoop:
    """Clients with one thread and one connection each, kept for many slices.

    Use it as a context manager: what is under way when it is left is cancelled.
    """

    def __init__(self, url: str, clients: int, access: Access = OPEN) -> None:
        """Open ``clients`` connections to HOST:PORT; they connect with their first request."""
        from tritonclient.utils import InferenceServerException

        self._failure = InferenceServerException
        self._connections = [connect(url, access, own_connection=True) for _ in range(clients)]
        self._threads = ThreadPoolExecutor(clients)
        self._stopped = threading.Event()

    def run(self, requests: Sequence[Request], *, clients: int, seconds: float) -> Slice:
        """Return what ``clients`` of the clients saw, who all start at the same moment.

        Each sends the requests in turn, over and over; none is sent after ``seconds``, or
        after ``stop``, but those under way are waited for. Each client sends at least one.
        """
        gate = threading.Barrier(clients)
        try:
            running = [
                self._threads.submit(self._ask, connection, requests, gate, seconds)
                for connection in self._connections[:clients]
            ]
            asked = [one.result() for one in running]
        except BaseException:
            gate.abort()  # else those that came first would wait for the others
            raise
        return Slice(
            np.array([ms for one in asked for ms in one.latencies_ms]),
            max(one.ended for one in asked) - min(one.began for one in asked),
            sum(one.errors for one in asked),
            next((one.error for one in asked if one.error), ""),
        )

    def _ask(
        self, connection: Any, requests: Sequence[Request], gate: threading.Barrier, seconds: float
    ) -> "_Asked":
        asked, turns = _Asked(), itertools.cycle(requests)
        gate.wait()
        asked.began = asked.ended = time.perf_counter()
        while asked.ended < asked.began + seconds and not self._stopped.is_set():
            request = next(turns)
            start = time.perf_counter()
            try:
                connection.infer(request.model, request.inputs, client_timeout=TIMEOUT_S)
            except self._failure as error:
                asked.errors += 1
                asked.error = asked.error or said_by(error)
                self._stopped.wait(PAUSE_S)
                asked.ended = time.perf_counter()
            else:
                asked.ended = time.perf_counter()
                asked.latencies_ms.append((asked.ended - start) * 1000)
        return asked

    def stop(self) -> None:
        """Let ``run`` end, from another thread."""
        self._stopped.set()

    def __enter__(self) -> "ClosedLoop":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for connection in self._connections:
            connection.close()
        self._threads.shutdown()


class _Asked:
    """What one client has seen so far."""

    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.errors, self.error = 0, ""
        self.began = self.ended = 0.0


def bare_loop(client: Any, request: Request, seconds: float) -> Slice:
    """Return what a loop over tritonclient alone gives, with no class or thread of ours.

    What ``ClosedLoop`` adds to a latency is known by comparison with it. An error ends it.
    """
    from tritonclient.utils import InferenceServerException

    latencies_ms, error = [], ""
    model, inputs = request.model, request.inputs
    began = ended = time.perf_counter()
    try:
        while ended < began + seconds:
            start = time.perf_counter()
            client.infer(model, inputs)
            ended = time.perf_counter()
            latencies_ms.append((ended - start) * 1000)
    except InferenceServerException as failure:
        error = said_by(failure)
    return Slice(np.array(latencies_ms), time.perf_counter() - began, int(bool(error)), error)

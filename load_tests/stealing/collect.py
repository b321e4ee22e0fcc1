"""Spending a query budget: an attack's questions go to an endpoint, its answers to a file.

An attack is a *plan*: a generator that yields ``Queries`` and is sent the ``TransferSet`` of
their answers, until its budget is spent. It neither knows whom it asks nor who keeps what came.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exporters.training.train import Progress
from load_tests.asking.endpoint import Answers, EndpointError, Query
from load_tests.data.rows import Rows, features
from load_tests.stealing.transfer_set import Queries, TransferSet, joined
from load_tests.stealing.transfer_set_file import TransferSetFile

#: See the module's docstring.
Plan = Generator[Queries, TransferSet, None]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How requests are sent; none of it changes what is asked."""

    batch_size: int = 64  #: rows per request, at most
    concurrency: int = 1  #: requests in flight, at most
    retries: int = 4  #: of one request that the server failed on
    retry_after_s: float = 0.5  #: before the first of them; doubled for each one after
    pause_s: float = 0  #: after each request, or each that are in flight together


#: A block whose end nothing but the event it yields brings about before its time.
Guard = Callable[[], AbstractContextManager[threading.Event]]


@contextmanager
def _unguarded() -> Iterator[threading.Event]:
    yield threading.Event()


class _Answer(NamedTuple):
    scores: Answers
    sent_at: float
    latency_ms: float


def collect(
    plan: Plan,
    query: Query,
    *,
    manner: Manner | None = None,
    file: TransferSetFile | None = None,
    total: int = 0,
    progress: Progress | None = None,
    guard: Guard = _unguarded,
) -> TransferSet:
    """Return the answers to all that a plan asks, each paid for once.

    Args:
        plan: the attack.
        query: the endpoint under attack; called from several threads if the manner says so.
        manner: how requests are sent.
        file: takes the answers as they come. What it holds already is not asked again: the plan
            is told the stored images and answers instead.
        total: the query budget, for the progress.
        progress: called after every request with (queries spent, total).
        guard: around all sending and keeping. ``deferred_signals``, but not in Locust, whose
            greenlets would put back each other's handlers.

    Raises:
        EndpointError: the server refused a request, or failed on it again and again. Requests
            in flight are waited for, and every answer up to then is in the file.
    """
    sender = _Sender(query, manner or Manner(), file, total=total, progress=progress, guard=guard)
    numbers = count()

    def answers(queries: Queries) -> TransferSet:
        these = np.fromiter(islice(numbers, len(queries.rows)), np.intp)
        return sender.ask(queries, these) if file is None else sender.resume(queries, these, file)

    parts = [part for part in drive(plan, answers) if len(part)]
    if not parts:
        raise EndpointError("no query was answered: each was sent once before, its answer lost")
    return joined(parts)


def drive(plan: Plan, answers: Callable[[Queries], TransferSet]) -> list[TransferSet]:
    """Return what a plan was told, round by round, until its budget is spent.

    Args:
        plan: the attack; it is closed, whatever happens.
        answers: asks. What it raises ends the plan.
    """
    told: list[TransferSet] = []
    try:
        queries = next(plan)
        while True:
            told.append(answers(queries))
            queries = plan.send(told[-1])
    except StopIteration:
        return told
    finally:
        plan.close()


class _Sender:
    """Sends requests, several at a time, and keeps what comes back."""

    def __init__(
        self,
        query: Query,
        manner: Manner,
        file: TransferSetFile | None,
        *,
        total: int,
        progress: Progress | None,
        guard: Guard,
    ) -> None:
        self._query, self._manner, self._file = query, manner, file
        self._spent, self._total, self._progress = 0, total, progress
        self._guard = guard

    def resume(
        self, queries: Queries, numbers: NDArray[np.intp], file: TransferSetFile
    ) -> TransferSet:
        """Ask what the file does not hold, and return what it then holds of these numbers."""
        to_ask = file.open_ones(numbers)
        self._count(len(numbers) - len(to_ask))
        if len(to_ask):
            at, index = to_ask - numbers[0], queries.pool_index
            self.ask(Queries(queries.rows[at], None if index is None else index[at]), to_ask)
        return file.read(numbers)

    def ask(self, queries: Queries, numbers: NDArray[np.intp]) -> TransferSet:
        """Ask everything, and return the answers in the order of the questions."""
        inputs = self._inputs(queries)
        size = self._manner.batch_size
        batches = [slice(start, start + size) for start in range(0, len(numbers), size)]
        waiting = iter(batches)
        answers: dict[int, Answers] = {}
        flying: dict[Future[_Answer], slice] = {}
        failure: EndpointError | None = None

        def keep(future: "Future[_Answer]") -> None:
            nonlocal failure
            batch = flying.pop(future)
            these = numbers[batch].tolist()
            try:
                answer = future.result()
            except EndpointError as error:
                failure = error
                if self._file is not None:
                    self._file.failed(these)
                return
            answers[batch.start] = answer.scores
            if self._file is not None:
                self._file.append(these, inputs[batch], *answer)
            self._count(len(these))

        with self._guard() as stop, ThreadPoolExecutor(self._manner.concurrency) as threads:
            try:
                while failure is None and not stop.is_set():
                    for batch in islice(waiting, self._manner.concurrency - len(flying)):
                        if self._file is not None:
                            self._file.sent(numbers[batch].tolist())
                        flying[threads.submit(self._patiently, queries.rows[batch], stop)] = batch
                    if not flying:
                        break
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        keep(future)
                    stop.wait(self._manner.pause_s)
            finally:  # what is in flight is paid for, so kept
                stop.set()
                for future in list(flying):
                    keep(future)
        if failure is not None:
            raise failure
        return TransferSet(
            queries.rows, np.concatenate([answers[batch.start] for batch in batches])
        )

    def _inputs(self, queries: Queries) -> list[str]:
        if self._file is None:
            return []
        if queries.pool_index is None:
            return self._file.made(features(queries.rows))
        return [f"pool:{index}" for index in queries.pool_index]

    def _count(self, queries: int) -> None:
        self._spent += queries
        if self._progress is not None:
            self._progress(self._spent, self._total)

    def _patiently(self, rows: Rows, stop: threading.Event) -> _Answer:
        """Ask once, and again a few times where the server failed but might not the next time."""
        sent_at, start = time.time(), time.perf_counter()
        attempt = 0
        while True:
            try:
                scores = self._query(rows)
                return _Answer(scores, sent_at, (time.perf_counter() - start) * 1000)
            except EndpointError as error:
                if not error.may_pass or attempt == self._manner.retries:
                    raise
                if stop.wait(self._manner.retry_after_s * 2**attempt):
                    raise
            attempt += 1

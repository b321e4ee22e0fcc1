"""Thefts side by side, each in a process with its share of the processors.

For a small network two trainings of one thread each take less time than one after the other with
two, and what comes of them hangs on no number of processors.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from exporters.quiet_import import import_quietly
from exporters.training.train import Progress
from load_tests.asking.endpoint import EndpointError
from load_tests.asking.spawned import Spawned
from load_tests.stealing.theft import Here, Scene, Theft
from load_tests.stealing.thief import Thief
from postprocess.errors import ReverseSigmoidError

#: Seconds from one word about a training to the next.
_TELL_S = 0.1


@dataclass(frozen=True)
class Share:
    """What each of several trainings has of the machine."""

    jobs: int  #: at a time
    threads: int | None  #: of each, as the environment says; None where that is not known


ALONE = Share(1, None)


class _There:
    """As ``Here``, in a process of its own."""

    def __init__(self, scene: Scene) -> None:
        self._process, self._started = Spawned("a process that trains", _steal, scene), False

    def begin(self, theft: Theft) -> None:
        if not self._started:
            self._process.start()
            self._started = True
        self._say(theft)

    def steal(self, thief: Thief, progress: Progress) -> dict[str, float]:
        self._say(thief)
        try:
            while isinstance(said := self._process.hear(), tuple):
                progress(*said)
        except EndpointError as error:
            raise EndpointError(
                f"{thief.name}: {error}; if memory ran out, give fewer --jobs"
            ) from None
        if isinstance(said, ReverseSigmoidError):
            raise said
        measured: dict[str, float] = said
        return measured

    def end(self) -> None:
        self._process.end()

    def _say(self, what: Theft | Thief) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is heard
            self._process.line.send(what)


Place = Here | _There


@contextmanager
def crew(
    scene: Scene, work: Callable[[Place, Theft], None], jobs: int
) -> Iterator[Callable[[Theft], object]]:
    """Yield what has a theft done; at the end of the block all are.

    A single job is done here, at once. Several are done by processes that begin with the
    environment of this one and end with the block.

    Args:
        scene: what all thefts have in common.
        work: does a theft in a place, and keeps what comes of it; of several jobs each has a
            thread for it.
        jobs: thefts at a time.

    Raises:
        ReverseSigmoidError: as the first that failed did; the others are given up.
    """
    if jobs == 1:
        here = Here(scene)
        yield lambda theft: work(here, theft)
        return
    places = [_There(scene) for _ in range(jobs)]
    free: SimpleQueue[_There] = SimpleQueue()
    for place in places:
        free.put(place)

    def do(theft: Theft) -> None:
        place = free.get()
        try:
            work(place, theft)
        finally:
            free.put(place)

    done: list[Future[None]] = []
    with ThreadPoolExecutor(jobs) as threads:
        try:
            yield lambda theft: done.append(threads.submit(do, theft))
            for each in as_completed(done):
                each.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for place in places:
                place.end()


def _steal(scene: Scene, line: "Connection[Any, Any]") -> None:
    """Do what the parent says until it is no more."""
    told_at = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told_at
        if done == total or time.monotonic() - told_at > _TELL_S:
            told_at = time.monotonic()
            line.send((done, total))

    here = Here(scene)
    with contextlib.suppress(EOFError, BrokenPipeError):
        line.send("here")
        import_quietly("keras", "tensorflow")
        while True:
            what = line.recv()
            if isinstance(what, Theft):
                here.begin(what)
                continue
            try:
                said: Any = here.steal(what, tell)
            except ReverseSigmoidError as error:
                said = error
            line.send(said)

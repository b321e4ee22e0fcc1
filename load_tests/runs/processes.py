"""Places where tasks are done: processes of this machine, each asked by a thread of its own."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from load_tests.runs.conditions import Conditions
from load_tests.runs.run import Run, Victim

Task = Run | Victim
#: What ``worker`` says to a task; ``lost`` instead where it did not come to an answer.
Reply = dict[str, Any]
_Place = TypeVar("_Place")

#: Seconds after which places are looked for again: others may have come.
_LOOK_S = 1.0
#: Tasks that are under way at a time, at most.
MOST_PLACES = 1024


def asked(task: Task) -> dict[str, Any]:
    """Return what ``worker`` is asked for a task."""
    return {"run": task.to_json()} if isinstance(task, Run) else {"victim": asdict(task)}


class Places(Protocol[_Place]):
    """Where tasks are done, one at a time in each place."""

    def free(self, busy: Collection[_Place]) -> Iterable[_Place]:
        """Return places that can take a task, beside the busy ones."""

    def ask(self, place: _Place, task: Task) -> Reply:
        """Return the answer to a task; called by threads."""

    def stop(self) -> None:
        """Have everything that is under way come to an end."""


def answered(
    places: Places[_Place], following: Callable[[], Task | None], until: float
) -> Iterator[tuple[Task, Reply, float]]:
    """Yield each task with its answer and the seconds it took, as they come.

    Args:
        places: where they are done.
        following: returns a task that can be begun now, None while there is none; nothing more is
            asked for once there is none and no task is under way.
        until: when what is under way is given up, by ``time.monotonic``.
    """
    flying: dict[Future[tuple[Reply, float]], tuple[Task, _Place]] = {}

    def ask(place: _Place, task: Task) -> tuple[Reply, float]:
        start = time.monotonic()
        return places.ask(place, task), time.monotonic() - start

    asks = True  # nothing more can be begun until something has ended
    with ThreadPoolExecutor(MOST_PLACES) as threads:
        try:
            while True:
                for place in places.free([place for _, place in flying.values()]):
                    task = following() if asks else None
                    asks = task is not None
                    if task is None:
                        break
                    flying[threads.submit(ask, place, task)] = task, place
                if not flying:
                    return
                rest = max(0.0, min(_LOOK_S, until - time.monotonic()))
                for done in wait(flying, rest, return_when=FIRST_COMPLETED).done:
                    asks, (task, _) = True, flying.pop(done)
                    yield task, *done.result()
                if flying and time.monotonic() >= until:
                    places.stop()
                    return
        except BaseException:
            places.stop()  # whoever waits for them goes on
            raise


class Process:
    """A process of ``worker``: started when it is asked, and again after it ended at a task."""

    def __init__(self, victims: Path, data_dir: Path | None, conditions: Conditions) -> None:
        self._command = [
            *(sys.executable, "-m", "load_tests.runs.worker", str(victims)),
            *([str(data_dir)] if data_dir else []),
        ]
        self._environment = conditions.environment()
        self._process: subprocess.Popen[str] | None = None
        self._starting, self._ended = threading.Lock(), False

    def ask(self, task: dict[str, Any]) -> Reply:
        """Return its answer to a line of ``worker``."""
        process = self._started()
        line = ""
        if process is not None:
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(json.dumps(task) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                line = process.stdout.readline()  # type: ignore[union-attr]
        if line.endswith("\n"):
            answer: Reply = json.loads(line)
            return answer
        self._kill()
        return {"lost": "its process ended; stderr may say why"}

    def end(self) -> None:
        """End it for good, whoever waits for its answer."""
        with self._starting:
            self._ended = True
        self._kill()

    def _started(self) -> subprocess.Popen[str] | None:
        with self._starting:
            if self._ended:
                return None
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is for us alone
                )
            return self._process

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
            process.wait()


class Processes:
    """So many processes of this machine."""

    def __init__(
        self, jobs: int, victims: Path, data_dir: Path | None, conditions: Conditions
    ) -> None:
        """Take what they are started with; each is started when it is needed."""
        self._all = [Process(victims, data_dir, conditions) for _ in range(jobs)]

    def free(self, busy: Collection[Process]) -> list[Process]:
        """Return the others."""
        return [process for process in self._all if process not in busy]

    def ask(self, place: Process, task: Task) -> Reply:
        """Return the answer of one of them to a task."""
        return place.ask(asked(task))

    def stop(self) -> None:
        """End them all."""
        for process in self._all:
            process.end()

"""What a person sees on stderr while a long command works."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.commands.console import counted, err_console, say

if TYPE_CHECKING:
    from exporters.pipeline import Stage
    from exporters.training.train import Progress as Callback


def stages(total: int) -> "Stage":
    """Return what opens one of so many numbered stages, by its title."""
    return _Stages(total).stage


class _Stages:
    """Numbered stages: bars on a terminal, one line for each finished stage everywhere."""

    def __init__(self, total: int) -> None:
        self._total, self._begun, self._open = total, 0, 0
        self._lock = threading.Lock()
        self._bars = Progress(
            *(TextColumn("{task.description}", markup=False), BarColumn()),
            *(TextColumn("{task.fields[speed]}"), TimeRemainingColumn()),
            console=err_console,
            transient=True,
            disable=not err_console.is_terminal,
        )

    @contextmanager
    def stage(self, title: str) -> "Iterator[Callback]":
        """Yield a callback for (steps done, steps in all); report the time when left.

        Several may be open at a time, each of a thread.
        """
        start = time.monotonic()
        done = 0

        def advance(so_far: int, total: int) -> None:
            nonlocal done
            done = so_far
            speed = f"{done / max(time.monotonic() - start, 1e-3):.0f}/s"
            self._bars.update(task, completed=done, total=total, speed=speed)

        with self._shown() as number:
            label = f"[{number}/{self._total}] {title}"
            task = self._bars.add_task(label, total=None, speed="")
            try:
                yield advance
            finally:
                self._bars.remove_task(task)
        seconds = time.monotonic() - start
        speed = f", {done / seconds:.0f}/s" if done else ""
        err_console.print(f"{label}: {seconds:.1f} s{speed}", markup=False, highlight=False)

    @contextmanager
    def _shown(self) -> Iterator[int]:
        """Yield the next stage's number; the bars are shown as long as a stage is open."""
        with self._lock:
            self._begun, self._open = self._begun + 1, self._open + 1
            number = self._begun
            self._bars.start()
        try:
            yield number
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._bars.stop()


class Countdown:
    """A line for each run that is done, with the time left."""

    def __init__(self) -> None:
        self.expect(0)

    def expect(self, runs: int) -> None:
        """Begin to count anew: about so many runs are left, if that is more than are asked for."""
        self._expected, self._start = runs, time.monotonic()

    def tell(self, name: str, done: int, total: int, seconds: float, error: str) -> None:
        """Report a run that is done, or why it failed."""
        left = max(self._expected, total) - done
        minutes = (time.monotonic() - self._start) / max(done, 1) * left / 60
        failed = f"FAILED: {error}; " if error else ""
        say(
            f"{name}: {failed}{seconds:.1f} s, about {counted(left, 'run')} and {minutes:.0f} min "
            "left",
            console=err_console,
        )

"""What a person sees on stderr while a long command works."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from exporters.train import Progress as Callback


class Stages:
    """Numbered stages: a bar on a terminal, one line for each finished stage everywhere."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0

    @contextmanager
    def stage(self, title: str) -> Iterator[Callback]:
        """Yield a callback for (steps done, steps in all); report the time when left."""
        self._done += 1
        label = f"[{self._done}/{self._total}] {title}"
        start = time.monotonic()
        done = 0
        columns = (
            *(TextColumn("{task.description}", markup=False), BarColumn()),
            *(TextColumn("{task.fields[speed]}"), TimeRemainingColumn()),
        )
        with Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            task = bar.add_task(label, total=None, speed="")

            def advance(so_far: int, total: int) -> None:
                nonlocal done
                done = so_far
                speed = f"{done / max(time.monotonic() - start, 1e-3):.0f}/s"
                bar.update(task, completed=done, total=total, speed=speed)

            yield advance
        seconds = time.monotonic() - start
        speed = f", {done / seconds:.0f}/s" if done else ""
        self._console.print(f"{label}: {seconds:.1f} s{speed}", markup=False, highlight=False)

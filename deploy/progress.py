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
        columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn()
        with Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        seconds = time.monotonic() - start
        self._console.print(f"{label}: {seconds:.1f} s", markup=False, highlight=False)

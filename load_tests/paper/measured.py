"""What the runs of a plan say: measures over seeds, as cells of tables."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from load_tests.paper.grids import DefenceSettings
from load_tests.paper.plan import PaperPlan
from load_tests.reporting.page import markdown
from load_tests.runs.run import Run

TableRows = list[Sequence[str]]
STOLEN = ("stolen", "agreement")


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


def number(values: Sequence[float], digits: int = 3) -> str:
    """Return the mean, and the spread over seeds where they differ; nothing of no values."""
    if not values:
        return ""
    shown = f"{statistics.fmean(values):.{digits}f}"
    return f"{shown} ± {statistics.stdev(values):.{digits}f}" if len(set(values)) > 1 else shown


def arrow(before: str, after: str) -> str:
    """Return two cells as one, nothing where both are missing."""
    return f"{before} -> {after}" if before or after else ""


def said(setting: DefenceSettings | None) -> str:
    """Return a setting as people write it."""
    hidden = ("defense", "preserve_top1", "margin")
    shown = (setting or {}).items()
    return ", ".join(f"{key} {value:g}" for key, value in shown if key not in hidden)


def table(head: Sequence[str], rows: TableRows, *, keys: int = 1) -> str:
    """Return a table of what has been measured: a row or a column without numbers is left out.

    Args:
        head: of the columns.
        rows: their cells, empty where nothing has been measured.
        keys: the first columns, which say what a row is about.

    Returns:
        Markdown; nothing where there are no numbers at all.
    """
    rows = [row for row in rows if any(row[keys:])]
    kept = [at for at in range(len(head)) if at < keys or any(row[at] for row in rows)]
    return markdown([head[at] for at in kept], [[row[at] for at in kept] for row in rows]) * any(
        rows
    )


class Measured:
    """The runs of one scale, looked up."""

    def __init__(self, plan: PaperPlan) -> None:
        """Take the plan, which knows the results."""
        self.plan, self.scale = plan, plan.scale

    def values(self, runs: Iterable[Run], *path: str) -> list[float]:
        """Return one measure of those runs that have been made, such as ("stolen", "cosine")."""
        found = []
        for run in runs:
            value: Any = self.plan.known(run)
            if value is None:
                continue
            for key in path:
                value = value[key]
            found.append(float(value))
        return found

    def stolen(self, runs: Iterable[Run]) -> float:
        """Return the mean agreement of the substitutes, NaN while there is none."""
        return mean(self.values(runs, *STOLEN))

    def cell(self, runs: Iterable[Run], *path: str, digits: int = 3) -> str:
        """Return a measure over the seeds, the agreement of the substitute unless named."""
        return number(self.values(runs, *(path or STOLEN)), digits)

    def repeated(
        self, data: str, setting: DefenceSettings | None, *path: str, digits: int = 3
    ) -> str:
        """Return a measure of the defence study over its seeds."""
        return self.cell(self.plan.repeats(data, setting), *path, digits=digits)

    def capped(self) -> list[Run]:
        """Return every run with the cap on that has been made."""
        runs = {run.name: run for run in self.plan.needed("all")}
        return [
            run
            for run in runs.values()
            if run.defence and run.parameters.preserve_top1 and self.plan.known(run) is not None
        ]

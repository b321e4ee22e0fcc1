"""Two Tritons with the same models, asked by turns: two builds, or two backends.

Run as ``python -m deploy.benchmarks.servers BEFORE AFTER --model digits_classifier --model digits
--data digits --out FILE``, with HOST:PORT of two gRPC endpoints that nobody else asks. Each model
of each server gets a slice of load in every round; what is told is AFTER over BEFORE.
"""

import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.benchmarks import arguments
from exporters.files.atomic_file import write_json
from exporters.training import datasets
from load_tests.asking.endpoint import connect
from load_tests.reporting.page import markdown
from load_tests.timing import interleaved
from load_tests.timing.closed_loop import ClosedLoop
from load_tests.timing.interleaved import Load
from load_tests.timing.machine import machine
from load_tests.timing.paired_rounds import Rounds, ratios, summary
from load_tests.timing.prepared import Preparer

#: Rows of a request, and clients at once.
CELLS = ((1, 1), (1, 8), (1, 32), (32, 8))
BEFORE, AFTER = "before", "after"
_TOLD = ("latency_p50_ms", "rows_per_second")


def main() -> int:
    """Measure every cell, print the table and return an exit code."""
    parser = arguments.parser("servers", "--seed")
    parser.add_argument(BEFORE, help="HOST:PORT")
    parser.add_argument(AFTER, help="HOST:PORT")
    parser.add_argument("--model", action="append", required=True, help="may be given repeatedly")
    parser.add_argument("--data", required=True, help="data set whose test rows are sent")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seconds", type=float, default=9, help="of a model and cell; default 9")
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of every number")
    asked = parser.parse_args()
    about = {"machine": machine(), "seed": asked.seed, "command": arguments.command("servers")}
    rng = np.random.default_rng(asked.seed)
    cells: list[dict[str, Any]] = []
    with ExitStack() as stack:
        servers = {name: _Server(getattr(asked, name), stack) for name in (BEFORE, AFTER)}
        rows = datasets.load(asked.data, asked.data_dir).x_test
        for batch, clients in CELLS:
            print(f"batch {batch}, {clients} at once", file=sys.stderr)
            loads: dict[str, Load] = {
                f"{name} {model}": servers[name].load(model, batch, clients, rows, asked.seed)
                for name in servers
                for model in asked.model
            }
            slices = interleaved.measure(loads, seconds=asked.seconds, rounds=asked.rounds, rng=rng)
            found = {name: Rounds(ones, rows=batch) for name, ones in slices.items()}
            models = {
                model: {
                    **{name: summary(found[f"{name} {model}"]) for name in servers},
                    "ratio": ratios(found[f"{AFTER} {model}"], found[f"{BEFORE} {model}"], rng=rng),
                }
                for model in asked.model
            }
            cells.append({"batch": batch, "concurrency": clients, "models": models})
            write_json(asked.out, {**about, "cells": cells}, indent=1)
    print(_table(cells, asked.model), end="")
    return 0


class _Server:
    """One of the two, with clients of its own."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self._url = url
        self._client = stack.enter_context(closing(connect(url)))
        most = max(clients for _, clients in CELLS)
        self._loop = stack.enter_context(ClosedLoop(url, most))

    def load(self, model: str, batch: int, clients: int, rows: Any, seed: int) -> Load:
        """Return what puts load on a model, every time with the same request."""
        preparer = Preparer(self._client, self._url, model, sent=rows)
        request = preparer.request(batch, rng=np.random.default_rng([seed, batch]))
        return partial(self._run, request, clients)

    def _run(self, request: Any, clients: int, seconds: float) -> Any:
        return self._loop.run([request], clients=clients, seconds=seconds)


def _table(cells: list[dict[str, Any]], models: list[str]) -> str:
    lines = []
    for cell in cells:
        for model in models:
            ratio = cell["models"][model]["ratio"]
            shown = [_interval(**ratio[name]) for name in _TOLD]
            lines.append([f"{cell['batch']} x {cell['concurrency']}", model, *shown])
    heads = ("rows x clients", "model", "p50, after over before", "rows/s, after over before")
    return markdown(heads, lines, "---", "---", "---:")


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return a ratio with its interval, ``-`` where one of the two gave no answer."""
    if value is None or low is None or high is None:
        return "-"
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    sys.exit(main())

"""Every way to serve a protected classifier, timed in one interleaved run on one Triton."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import postprocess
from deploy.benchmarks import rivals
from deploy.triton.server import TritonServer, on_free_ports
from exporters.pipeline import Stage
from exporters.training import datasets
from load_tests.asking.endpoint import EndpointError, connect
from load_tests.timing import interleaved
from load_tests.timing.closed_loop import ClosedLoop, Request, Slice
from load_tests.timing.interleaved import Load
from load_tests.timing.machine import machine
from load_tests.timing.paired_rounds import CONFIDENCE, RESAMPLES, Rounds, ratios, summary
from load_tests.timing.prepared import Preparer, RefusedError
from postprocess.errors import ReverseSigmoidError

_TICKS = os.sysconf("SC_CLK_TCK")
#: For which a client sends a single request.
SHORT_S = 1e-3
#: How often a way that was too slow is asked whether it has done what was asked of it.
CLEARED = 3
Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """What to measure."""

    repository: Path  #: it holds the ensemble layout of the model
    model: str  #: the public name
    ways: tuple[str, ...]  #: of ``rivals.WAYS``, the victim alone among them
    batches: tuple[int, ...]  #: rows per request
    concurrencies: tuple[int, ...]  #: clients at once
    seconds: float  #: of each way in each cell, over all rounds
    rounds: int  #: at most
    seed: int  #: of the inputs, the order within rounds and the bootstrap
    data: str = ""  #: a data set's name; "" for random inputs
    data_dir: Path | None = None


def run(
    asked: ServingOptions, *, stages: Any, keep: Callable[[Report], None] = lambda report: None
) -> Report:
    """Return the report: what it was measured with, ``cells``, and what was ``skipped``.

    A cell has, by way, the measures of ``paired_rounds``, ``cpu_seconds_per_1000_rows`` of all
    of Triton's processes, ``cpu_seconds_by_process`` of those that worked (Triton itself is
    ``triton``, a Python process its model), and ``ratio``, over the victim alone.

    Skipped is, with the reason, a way that refuses a batch, or that failed or was silent when each
    client asked once; if it is the victim, so is the cell.

    Raises:
        InputError: the model is not of the ensemble layout.
        ServerError: Triton does not start with all of them.
        EndpointError: Triton does not know one of them.
    """
    images = datasets.load(asked.data, asked.data_dir).x_test if asked.data else None
    grid = [(rows, clients) for rows in asked.batches for clients in asked.concurrencies]
    stage: Stage = stages(len(grid) + 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with stage(f"write and load {len(asked.ways)} models"):
            models = rivals.build(asked.repository, asked.model, asked.ways, folder / "models")
            server = stack.enter_context(on_free_ports(folder / "models"))
        client = stack.enter_context(closing(connect(server.grpc_url)))
        loop = stack.enter_context(ClosedLoop(server.grpc_url, max(asked.concurrencies)))
        preparers = {
            way: Preparer(client, server.grpc_url, model, sent=images)
            for way, model in models.items()
        }
        run_ = _Run(asked, server, loop)
        report = _about(asked, server)
        for rows, clients in grid:
            with stage(f"batch {rows}, {clients} at once"):
                ways, skipped = run_.cell(preparers, rows, clients)
            cell = {"batch": rows, "concurrency": clients}
            if ways:
                rounds = ways[rivals.VICTIM].pop("rounds")
                report["cells"].append({**cell, "rounds": rounds, "ways": ways})
            report["skipped"] += [{**cell, "way": way, "why": why} for way, why in skipped.items()]
            keep(report)
    return report


class ProcessGoneError(ReverseSigmoidError):
    """A process that is measured has ended."""


class _Run:
    """The measurement under way."""

    def __init__(self, asked: ServingOptions, server: TritonServer, loop: ClosedLoop) -> None:
        self._asked, self._server, self._loop = asked, server, loop
        self._rng = np.random.default_rng(asked.seed)
        self._requests: dict[tuple[str, int], Request] = {}

    def cell(
        self, preparers: dict[str, Preparer], rows: int, clients: int
    ) -> tuple[Report, dict[str, str]]:
        """Return what was measured, by way, and why others were skipped; the victim first."""
        requests: dict[str, Request] = {}
        skipped: dict[str, str] = {}
        for way, preparer in preparers.items():
            try:
                request = self._request(way, preparer, rows)
                self._try(request, clients)
            except (RefusedError, EndpointError) as error:
                skipped[way] = str(error)
                if way == rivals.VICTIM:
                    return {}, skipped
            else:
                requests[way] = request
        try:
            return self._measure(requests, rows, clients), skipped
        except ProcessGoneError as error:
            return {}, dict.fromkeys(preparers, str(error)) | skipped

    def _request(self, way: str, preparer: Preparer, rows: int) -> Request:
        """Return a way's request of so many rows, made once."""
        if (way, rows) not in self._requests:
            rng = np.random.default_rng([self._asked.seed, rows])
            self._requests[way, rows] = preparer.request(rows, rng=rng)
        return self._requests[way, rows]

    def _try(self, request: Request, clients: int) -> None:
        """Have each client ask once: a way that cannot keep up would spend hours to say so.

        Raises:
            EndpointError: somebody got no answer.
        """
        tried = self._loop.run([request], clients=clients, seconds=SHORT_S)
        if tried.errors:
            for _ in range(CLEARED):  # what was given up is worked on, in the way of what follows
                if not self._loop.run([request], clients=1, seconds=SHORT_S).errors:
                    break
            raise EndpointError(f"{tried.errors} of {clients} clients got no answer: {tried.error}")

    def _measure(self, requests: dict[str, Request], rows: int, clients: int) -> Report:
        meters = {way: _Meter(self._server, self._loop) for way in requests}
        loads: dict[str, Load] = {
            way: partial(meters[way].slice, request, clients) for way, request in requests.items()
        }
        slices = interleaved.measure(
            loads, seconds=self._asked.seconds, rounds=self._asked.rounds, rng=self._rng
        )
        rounds = {way: Rounds(ones, rows=rows) for way, ones in slices.items()}
        alone = rounds[rivals.VICTIM]
        found: dict[str, dict[str, Any]] = {}
        for way, ones in rounds.items():
            found[way] = dict(summary(ones))
            spent = meters[way].cpu_seconds_per_1000_rows(rows)
            found[way]["cpu_seconds_per_1000_rows"] = sum(spent.values()) if spent else None
            found[way]["cpu_seconds_by_process"] = spent
            found[way]["ratio"] = ratios(ones, alone, rng=self._rng)
        found[rivals.VICTIM]["rounds"] = len(alone)
        return found


class _Meter:
    """CPU time of Triton and of its Python processes, while one way is asked."""

    def __init__(self, server: TritonServer, loop: ClosedLoop) -> None:
        self._loop = loop
        #: Every process, and what it is called.
        self._names = {pid: name for name, pids in server.stubs().items() for pid in pids}
        self._names[int(server.pid or 0)] = "triton"
        self._ticks: Counter[str] = Counter()
        self._answered = 0

    def slice(self, request: Request, clients: int, seconds: float) -> Slice:
        """Return a slice of load, metered."""
        before = self._used()
        made = self._loop.run([request], clients=clients, seconds=seconds)
        self._ticks += self._used() - before
        self._answered += len(made.latencies_ms)
        return made

    def cpu_seconds_per_1000_rows(self, rows: int) -> dict[str, float]:
        """Return the mean of all slices, the warming up among them; ticks are of 10 ms."""
        thousands = self._answered * rows / 1000
        return {name: ticks / _TICKS / thousands for name, ticks in self._ticks.items()
                if thousands}  # fmt: skip

    def _used(self) -> Counter[str]:
        ticks: Counter[str] = Counter()
        for pid, name in self._names.items():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                raise ProcessGoneError(f"process {pid} of Triton's is gone") from None
            ticks[name] += int(fields[11]) + int(fields[12])  # user and system
        return ticks


def _about(asked: ServingOptions, server: TritonServer) -> dict[str, Any]:
    """Return what is needed to run it again, but for the command line."""
    return {
        "model": asked.model,
        "machine": machine(),
        "versions": {
            "triton": server.version(),
            "triton-reverse-sigmoid": postprocess.__version__,
            **{name: version(name) for name in ("onnxruntime-gpu", "numpy", "tritonclient")},
        },
        "data": asked.data or "random",
        "seed": asked.seed,
        "seconds": asked.seconds,
        "rounds": asked.rounds,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "cells": [],
        "skipped": [],
    }

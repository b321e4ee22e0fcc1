"""What the defence costs: a protected and an unprotected model, timed in one interleaved run.

A cell is a batch size and a number of clients. In every round of a cell each model is asked for
a short slice of time, closed loop, in an order drawn anew, so that both share whatever else the
machine does; one round on top warms up. ``measuring_overhead`` sets our own loop beside one of
tritonclient alone in the same rounds.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import postprocess
from exporters.pipeline import Stage
from exporters.training import datasets
from load_tests.asking.address import address
from load_tests.asking.endpoint import OPEN, Access, EndpointError, connect
from load_tests.data import query_sets
from load_tests.data.rows import Rows
from load_tests.timing import interleaved
from load_tests.timing.closed_loop import TIMEOUT_S, ClosedLoop, Request, Slice, bare_loop
from load_tests.timing.flood import Flood, FloodOptions
from load_tests.timing.interleaved import Load
from load_tests.timing.paired_rounds import CONFIDENCE, RESAMPLES, Rounds, ratios, summary
from load_tests.timing.prepared import Preparer, RefusedError
from postprocess.errors import InputError

PROTECTED, UNPROTECTED, BARE = "protected", "unprotected", "bare"
#: A thief lives at most this many times as long as planned, and ten minutes.
FLOOD_BOUND = 20


@dataclass(frozen=True)
class OverheadOptions:
    """What to measure."""

    url: str  #: HOST:PORT of Triton's gRPC endpoint
    protected: str  #: name of a model
    unprotected: str
    batches: tuple[int, ...]  #: rows per request
    concurrencies: tuple[int, ...]  #: clients at once
    seconds: float  #: of each model in each cell, over all rounds
    rounds: int  #: at least 2; fewer where requests take long
    seed: int  #: of the inputs, the order within rounds and the bootstrap
    data: str = ""  #: a data set's name; "" for random inputs
    data_dir: Path | None = None
    query_set: str = ""  #: file of a query set, in the data set's place
    under_attack: bool = False  #: measure every cell once more while a thief queries
    access: Access = OPEN  #: what the endpoint asks of its clients

    def __post_init__(self) -> None:
        """Refuse what is no measurement.

        Raises:
            InputError: seconds or rounds are out of range, or the url is no HOST:PORT.
        """
        address(self.url, "--url")
        if not 0 < self.seconds < float("inf"):
            raise InputError(f"--seconds: expected a number above 0, got {self.seconds:g}")
        if self.data and self.query_set:
            raise InputError("--data, --query-set: give one of them")
        if self.rounds < 2:
            raise InputError(f"--rounds: expected at least 2, got {self.rounds}")

    @property
    def names(self) -> dict[str, str]:
        """Role to the model's name."""
        return {PROTECTED: self.protected, UNPROTECTED: self.unprotected}


def measure(asked: OverheadOptions, *, stages: Callable[[int], Stage]) -> dict[str, Any]:
    """Return the report: how to run it again, ``measuring_overhead``, ``cells``, ``skipped``.

    With ``under_attack`` also ``cells_under_attack`` and ``thief``, what the thief did meanwhile.

    Raises:
        EndpointError: the server cannot be reached, does not know a model, or a model answered
            no request at all.
        InputError: no batch is taken by both models, or the data set is not what they take.
    """
    sent: Rows | None = datasets.load(asked.data, asked.data_dir).x_test if asked.data else None
    if asked.query_set:
        sent = query_sets.read(Path(asked.query_set), to_learn=False).rows
    with ExitStack() as stack:
        client = stack.enter_context(closing(connect(asked.url, asked.access)))
        preparers = {
            role: Preparer(client, asked.url, name, sent=sent) for role, name in asked.names.items()
        }
        requests, refused = _prepare(preparers, asked)
        grid = [(rows, clients) for rows in requests for clients in asked.concurrencies]
        calibration = (min(requests), 1)
        quiet = grid if calibration in grid else [calibration, *grid]
        stage = stages(len(quiet) + asked.under_attack * len(grid))
        loop = stack.enter_context(ClosedLoop(asked.url, max(asked.concurrencies), asked.access))
        run = _Run(asked, requests, loop)
        report = _about(asked, client) | {"measuring_overhead": None, "cells": []}
        for rows, clients in quiet:
            with stage(f"batch {rows}, {clients} at once"):
                rounds = run.measure(rows, clients, bare=(rows, clients) == calibration)
            if BARE in rounds:
                report["measuring_overhead"] = run.measuring_overhead(rounds, rows)
            if (rows, clients) in grid:
                report["cells"].append(run.cell(rounds, rows, clients))
        if asked.under_attack:
            cells = report["cells_under_attack"] = []
            with _flood(asked, cells=len(grid)) as flood:
                for rows, clients in grid:
                    with stage(f"batch {rows}, {clients} at once, under attack"):
                        rounds = run.measure(rows, clients)
                    flood.check()
                    cells.append(run.cell(rounds, rows, clients))
            report["thief"] = flood.done
        run.refuse_silence()
    report["skipped"] = [
        {"batch": rows, "concurrency": clients, "why": why}
        for rows, why in refused.items()
        for clients in asked.concurrencies
    ]
    return report


def _prepare(
    preparers: Mapping[str, Preparer], asked: OverheadOptions
) -> tuple[dict[int, dict[str, Request]], dict[int, str]]:
    """Return per batch either a request for each role, or why there is none.

    Both roles' inputs are of the same random numbers.
    """
    requests: dict[int, dict[str, Request]] = {}
    refused: dict[int, str] = {}
    for rows in asked.batches:
        made = {}
        for role, preparer in preparers.items():
            try:
                made[role] = preparer.request(rows, rng=np.random.default_rng([asked.seed, rows]))
            except RefusedError as error:
                refused.setdefault(rows, f"{asked.names[role]} refuses it: {error}")
        if rows not in refused:
            requests[rows] = made
    if not requests:
        rows, why = next(iter(refused.items()))
        raise InputError(f"no batch is left to measure; batch {rows}: {why}")
    return requests, refused


def _flood(asked: OverheadOptions, *, cells: int) -> Flood:
    options = FloodOptions(
        asked.url,
        asked.protected,
        seed=asked.seed + 1,
        bound_s=600 + FLOOD_BOUND * cells * 2 * asked.seconds,
        data=asked.data,
        data_dir=asked.data_dir,
        query_set=asked.query_set,
        access=asked.access,
    )
    return Flood(options)


class _Run:
    """The measurement under way."""

    def __init__(
        self,
        asked: OverheadOptions,
        requests: Mapping[int, Mapping[str, Request]],
        loop: ClosedLoop,
    ) -> None:
        self._asked, self._requests, self._loop = asked, requests, loop
        self._rng = np.random.default_rng(asked.seed)
        self._answered = dict.fromkeys(asked.names, 0)
        self._failed: dict[str, tuple[int, str]] = dict.fromkeys(asked.names, (0, ""))

    def measure(self, rows: int, clients: int, *, bare: bool = False) -> dict[str, Rounds]:
        """Return each role's rounds in one cell, and with ``bare`` those of tritonclient alone."""
        requests = self._requests[rows]
        calls: dict[str, Load] = {
            role: partial(self._slice, [request], clients) for role, request in requests.items()
        }
        with ExitStack() as stack:
            if bare:
                client = stack.enter_context(closing(connect(self._asked.url, self._asked.access)))
                calls[BARE] = partial(bare_loop, client, requests[UNPROTECTED])
            slices = interleaved.measure(
                calls, seconds=self._asked.seconds, rounds=self._asked.rounds, rng=self._rng
            )
        found = {name: Rounds(ones, rows=rows) for name, ones in slices.items()}
        for role in requests:
            self._answered[role] += found[role].requests
            errors, error = self._failed[role]
            self._failed[role] = errors + found[role].errors, error or found[role].error
        return found

    def _slice(self, requests: list[Request], clients: int, seconds: float) -> Slice:
        return self._loop.run(requests, clients=clients, seconds=seconds)

    def cell(self, rounds: Mapping[str, Rounds], rows: int, clients: int) -> dict[str, Any]:
        """Return a cell of the report."""
        return {
            "batch": rows,
            "concurrency": clients,
            "rounds": len(rounds[PROTECTED]),
            **{role: summary(rounds[role]) for role in self._asked.names},
            "ratio": ratios(rounds[PROTECTED], rounds[UNPROTECTED], rng=self._rng),
        }

    def measuring_overhead(self, rounds: Mapping[str, Rounds], rows: int) -> dict[str, Any]:
        """Return our loop's median latency, tritonclient's own, and their ratio."""
        return {
            "model": self._asked.unprotected,
            "batch": rows,
            "concurrency": 1,
            "latency_p50_ms": summary(rounds[UNPROTECTED])["latency_p50_ms"],
            "bare_latency_p50_ms": summary(rounds[BARE])["latency_p50_ms"],
            "ratio": ratios(rounds[UNPROTECTED], rounds[BARE], rng=self._rng)["latency_p50_ms"],
        }

    def refuse_silence(self) -> None:
        """Return if each model answered something.

        Raises:
            EndpointError: one did not.
        """
        for role, answered in self._answered.items():
            if not answered:
                errors, error = self._failed[role]
                raise EndpointError(
                    f"{self._asked.url}, model {self._asked.names[role]}: all {errors} requests "
                    f"failed: {error}"
                )


def _about(asked: OverheadOptions, client: Any) -> dict[str, Any]:
    """Return what is needed to run it again, but for the command line."""
    from tritonclient.utils import InferenceServerException

    try:
        version = str(client.get_server_metadata(client_timeout=TIMEOUT_S).version)
    except InferenceServerException:  # a gateway that lets only inference through
        version = "unknown"
    return {
        "triton_version": version,
        "package_version": postprocess.__version__,
        "cpu_count": os.cpu_count(),
        "url": asked.url,
        **asked.names,
        "data": asked.data or asked.query_set or "random",
        "seed": asked.seed,
        "seconds": asked.seconds,
        "rounds": asked.rounds,
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
    }

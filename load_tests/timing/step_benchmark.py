"""The defence's own speed beside adversarial-robustness-toolbox (ART), without any server.

Run as ``python -m load_tests.timing.step_benchmark [--json FILE] [--rounds N]``. Every round calls
each contender once on the same batch, in an order drawn anew, so that all of them share
every disturbance of the machine; the ratios are taken round by round. Ours answer as they do
in Triton: rows checked, accuracy constraint on, a new array for the answer. ART checks
nothing, has no constraint, and is exact only in float64. The hardened modes are timed beside the
plain one.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.files.atomic_file import write_json
from load_tests.reporting.page import markdown
from load_tests.timing.interleaved import call_seconds
from load_tests.timing.machine import cpu
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

BETA, GAMMA, MARGIN = 1.5, 0.2, 0.01
CLASSES = (10, 100, 1000)
BATCHES = (1, 32, 256, 4096)
#: Standard deviation of the logits, which are normal.
SCALE = 3.0
SEED = 20260101
#: A contender is called until this time has passed, at least once, and the calls averaged.
AT_LEAST_S = 0.0005

ART, EXACT_ART = "ART float32", "ART float64"
OURS, OURS_PROBABILITIES, NUMPY = "ours", "ours from probabilities", "ours without kernel"
Contender = Callable[[], object]

#: What is not the plain step, and what beside it is set; or the type of its scores.
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "decimals 3": {"decimals": 3},
    "decimals 2": {"decimals": 2},
    "decoy": {"defense": "decoy"},
    "calibrated": {"defense": "calibrated", "calibration": "made up"},
    "gamma 2": {"gamma": 2.0},
    "beta 10": {"beta": 10.0},
    "multi-label": {"multi_label": True},
    "float16": {"dtype": np.float16},
    "float64": {"dtype": np.float64},
}
MODES_BATCHES = (1, 32, 256)


def main() -> int:
    """Print the table as Markdown; with --json also write every number. Returns an exit code."""
    arguments = _arguments()
    try:
        from art.defences.postprocessor import ReverseSigmoid
    except ModuleNotFoundError as error:
        print(
            f"step_benchmark: needs {error.name}, which is not installed: "
            "python -m pip install -e '.[bench]' in the clone",
            file=sys.stderr,
        )
        return 1
    rng = np.random.default_rng(SEED)
    cells = []
    for classes in CLASSES:
        for batch in BATCHES:
            print(f"K = {classes}, batch {batch}", file=sys.stderr)
            contenders = _contenders(ReverseSigmoid(beta=BETA, gamma=GAMMA), batch, classes, rng)
            seconds = call_seconds(
                contenders, rounds=arguments.rounds, rng=rng, at_least_s=AT_LEAST_S
            )
            cells.append(_cell(seconds, batch=batch, classes=classes))
    modes = {
        f"{classes}, {batch}": _modes(batch, classes, arguments.rounds, rng)
        for classes in CLASSES
        for batch in MODES_BATCHES
    }
    result = {"about": _about(arguments.rounds), "cells": cells, "modes": modes}
    print(_table(result))
    times = [[cell, *(f"{one:.1f}" for one in found.values())] for cell, found in modes.items()]
    print(f"\nTimes the plain step's\n\n{markdown(('K, rows', *MODES), times, '---:')}", end="")
    if arguments.json:
        write_json(arguments.json, result)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load_tests.timing.step_benchmark")
    parser.add_argument("--json", type=Path, help="also write every number to this new file")
    parser.add_argument("--rounds", type=int, default=60, help="rounds per cell (default: 60)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {arguments.rounds}")
    if arguments.json and arguments.json.exists():
        parser.error(f"--json: {arguments.json} is there already")
    return arguments


def _contenders(
    art: Callable[[NDArray[Any]], NDArray[Any]],
    batch: int,
    classes: int,
    rng: np.random.Generator,
) -> dict[str, Contender]:
    """Name to a call without arguments; all of them have the same rows to protect."""
    exact = rng.normal(size=(batch, classes)) * SCALE
    weight = np.exp(exact - exact.max(axis=1, keepdims=True))
    exact_probabilities = weight / weight.sum(axis=1, keepdims=True)
    logits = exact.astype(np.float32)
    probabilities = exact_probabilities.astype(np.float32)

    def defence(scores: str, *, native: bool) -> Postprocessor:
        parameters = Parameters(beta=BETA, gamma=GAMMA, margin=MARGIN, scores=scores)
        return Postprocessor(parameters, native=native)

    from_logits = defence("logits", native=True)
    from_probabilities = defence("probabilities", native=True)
    numpy_only = defence("logits", native=False)
    contenders: dict[str, Contender] = {
        ART: lambda: art(probabilities),
        EXACT_ART: lambda: art(exact_probabilities),
        NUMPY: lambda: numpy_only(logits),
    }
    if from_logits.kernel is not None:
        contenders[OURS] = lambda: from_logits(logits)
        contenders[OURS_PROBABILITIES] = lambda: from_probabilities(probabilities)
    return contenders


def _modes(batch: int, classes: int, rounds: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the median time of a step in each mode, over that of the plain one, by round."""
    logits = rng.normal(size=(batch, classes)) * SCALE
    calls: dict[str, Contender] = {}
    for name, mode in MODES.items():
        said = {"beta": BETA, "gamma": GAMMA, "margin": MARGIN, "scores": "logits", **mode}
        rows = logits.astype(said.pop("dtype", np.float32))
        parameters = Parameters(**said)
        table = _table_of(classes) if parameters.calibration else None
        calls[name] = partial(Postprocessor(parameters, table=table), rows)
    seconds = call_seconds(calls, rounds=rounds, rng=rng, at_least_s=AT_LEAST_S)
    plain = np.array(seconds["plain"])
    return {name: float(np.median(np.array(each) / plain)) for name, each in seconds.items()}


def _table_of(classes: int) -> Calibration:
    """Return ten levels such as a confident classifier has."""
    confidence = tuple(np.linspace(0.5, 0.99, 10).tolist())
    cuts = tuple(np.linspace(-1, 8, 9).tolist())
    return Calibration(
        classes=classes, single=False, log_odds=cuts, confidence=(confidence,) * classes
    )


def _cell(seconds: dict[str, list[float]], *, batch: int, classes: int) -> dict[str, Any]:
    """Rows per second (median), and how many times ART's: 10, 50, 90 percent of the rounds."""
    return {
        "classes": classes,
        "batch": batch,
        "rows_per_second": {
            name: batch / float(np.median(values)) for name, values in seconds.items()
        },
        "times": {
            art: {
                name: np.quantile(
                    np.array(seconds[art]) / np.array(values), (0.1, 0.5, 0.9)
                ).tolist()
                for name, values in seconds.items()
                if name not in (ART, EXACT_ART)
            }
            for art in (ART, EXACT_ART)
        },
    }


def _about(rounds: int) -> dict[str, Any]:
    return {
        "beta": BETA,
        "gamma": GAMMA,
        "margin": MARGIN,
        "preserve_top1": True,
        "logits": f"normal, standard deviation {SCALE:g}",
        "seed": SEED,
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "cpu": cpu(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "art": version("adversarial-robustness-toolbox"),
    }


def _table(result: dict[str, Any]) -> str:
    """Rows per second, and ratios to ART as median (10th to 90th percentile)."""
    columns = [(ART, OURS), (EXACT_ART, OURS), (ART, OURS_PROBABILITIES), (ART, NUMPY)]
    columns = [pair for pair in columns if pair[1] in result["cells"][0]["rows_per_second"]]
    head = ["K", "batch", "rows/s, " + columns[0][1]]
    head += [f"{ours} : {art}" for art, ours in columns]
    rows = []
    for cell in result["cells"]:
        row = [str(cell["classes"]), str(cell["batch"])]
        row.append(f"{cell['rows_per_second'][columns[0][1]]:,.0f}")
        for art, ours in columns:
            low, middle, high = cell["times"][art][ours]
            row.append(f"{middle:.1f} ({low:.1f} to {high:.1f})")
        rows.append(row)
    about = ", ".join(f"{key} {value}" for key, value in result["about"].items())
    return f"{markdown(head, rows, '---:')}\n{about}"


if __name__ == "__main__":
    sys.exit(main())

"""What answers leave to honest clients and give to thieves: ``... --data FILE.npz --out DIR``.

Each training is a run in DIR with a file of its own, made once: the same command goes on where it
was stopped. ``frontier.json``, ``FRONTIER.md`` and its plots are written of the runs that are
there, by ``--summary`` without making any.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from deploy.benchmarks import arguments
from exporters.training import datasets
from load_tests.frontier import study
from load_tests.frontier.study import KINDS, Study
from load_tests.runs import cluster
from load_tests.runs.conditions import Conditions
from load_tests.runs.run import Known, Run
from load_tests.runs.runner import Runner


def main() -> int:
    """Make the runs that are missing, write the page, and return an exit code."""
    asked = _parser().parse_args()
    start = time.monotonic()
    say = partial(print, file=sys.stderr, flush=True)
    with cluster.connected(asked.scheduler, say) as workers:
        runner = Runner(
            asked.out,
            data_dir=asked.data_dir,
            jobs=workers.jobs if workers else asked.jobs,
            tell=_tell,
            conditions=replace(Conditions.here(), threads=1),
            cluster=workers,
        )
        studies = [_study(name, asked) for name in asked.data]
        if not asked.summary:
            with runner:
                until = start + asked.minutes * 60
                runner.make_missing(lambda: _needed(studies, runner.known), until=until)
            runner.refuse_failed()
    from load_tests.frontier.page import write

    command = arguments.command("frontier").replace(" --summary", "")  # which makes them
    print(write(asked.out, studies, runner.known, command=command))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser("frontier")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", action="append", default=[], help="a data set or .npz; several")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--pilots",
        type=int,
        default=1,
        help="seeds that choose thieves; more where few rows judge; default: %(default)s",
    )
    parser.add_argument("--architecture", default="mlp", help="default: %(default)s")
    parser.add_argument(
        "--steps", type=int, default=study.STEPS, help="batches of 64; default: %(default)s"
    )
    parser.add_argument(
        "--budgets",
        type=int,
        nargs="+",
        default=study.BUDGETS,
        help="queries for each class; all kinds of answers with the first; default: %(default)s",
    )
    parser.add_argument("--kinds", type=int, default=len(KINDS), help="of answers; default: all")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so many; default: when done"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; default: %(default)s")
    parser.add_argument(
        "--scheduler", default="", help="tcp://HOST:PORT of Dask, whose workers make the runs"
    )
    parser.add_argument("--summary", action="store_true", help="make no runs")
    return parser


def _needed(studies: Sequence[Study], known: Known) -> Iterator[Run]:
    for each in studies:
        yield from each.needed(known)


def _study(name: str, asked: argparse.Namespace) -> Study:
    dataset = datasets.load(name, asked.data_dir)
    pool = len(datasets.hold_off(dataset, seed=0).adversary_images)
    return Study(
        data=name,
        classes=dataset.classes,
        pool=pool,
        architecture=asked.architecture,
        steps=asked.steps,
        budgets=tuple(asked.budgets),
        seeds=asked.seeds,
        pilot_seeds=max(1, asked.pilots),
        kinds=KINDS[: asked.kinds],
    )


def _tell(name: str, done: int, total: int, seconds: float, error: str) -> None:
    print(f"{done}/{total} {name}: {seconds:.1f} s {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(arguments.ended(main))

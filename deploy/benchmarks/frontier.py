"""What answers leave to honest clients and give to thieves: ``... --data FILE.npz --out DIR``.

Each training is a run in DIR with a file of its own, made once: the same command goes on where it
was stopped. ``frontier.json``, ``FRONTIER.md`` and its plots are written of the runs that are
there, by ``--summary`` without making any.
"""

import argparse
import sys
from pathlib import Path

from deploy.benchmarks import arguments
from exporters.training import datasets
from load_tests.frontier.study import KINDS, Study
from load_tests.runs.conditions import Conditions
from load_tests.runs.runner import Runner


def main() -> int:
    """Make the runs that are missing, write the page, and return an exit code."""
    parser = arguments.parser("frontier")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", action="append", default=[], help="a data set or .npz; several")
    parser.add_argument("--data-dir", type=Path, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--architecture", default="mlp", help="default: %(default)s")
    parser.add_argument("--kinds", type=int, default=len(KINDS), help="of answers; default: all")
    parser.add_argument("--summary", action="store_true", help="make no runs")
    asked = parser.parse_args()
    studies = [_study(name, asked) for name in asked.data]
    runner = Runner(
        asked.out,
        data_dir=asked.data_dir,
        jobs=1,
        tell=_tell,
        conditions=Conditions(threads=1, backend=Conditions.here().backend),
    )
    if not asked.summary:
        with runner:
            for study in studies:
                runner.make(runner.missing(study.pilot()))
            for seed in studies[0].told if studies else ():
                for study in studies:
                    runner.make(runner.missing(study.of_seed(seed, runner.known)))
        runner.refuse_failed()
    from load_tests.frontier.page import write

    print(write(asked.out, studies, runner.known, command=arguments.command("frontier")))
    return 0


def _study(name: str, asked: argparse.Namespace) -> Study:
    dataset = datasets.load(name, asked.data_dir)
    pool = len(datasets.hold_off(dataset, seed=0).adversary_images)
    return Study(
        data=name,
        classes=dataset.classes,
        pool=pool,
        architecture=asked.architecture,
        seeds=asked.seeds,
        kinds=KINDS[: asked.kinds],
    )


def _tell(name: str, done: int, total: int, seconds: float, error: str) -> None:
    print(f"{done}/{total} {name}: {seconds:.1f} s {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(arguments.ended(main))

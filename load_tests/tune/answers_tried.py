"""What other kinds of answers would leave and give, of the classifier that is tuned."""

from collections.abc import Callable
from typing import Any

from load_tests.frontier.study import KINDS, Study, deceptive
from load_tests.runs.run import Run
from load_tests.runs.runner import Runner

#: Thieves of each kind, seeds that are told of, and queries for each class at least.
THIEVES, SEEDS, LEAST_A_CLASS = 2, 2, 5


def study(thief: Run, defence: dict[str, Any], *, classes: int, pool: int) -> Study:
    """Return the study of a recorded classifier, few thieves of each kind of answers."""
    others = [kind for kind in KINDS if not kind.defence]
    a_class = max(LEAST_A_CLASS, thief.queries // classes)
    return Study(
        data=thief.victim.data,
        classes=classes,
        pool=min(pool, max(thief.queries, LEAST_A_CLASS * classes)),
        architecture=thief.substitute,
        victim_steps=0,
        steps=thief.steps,
        seeds=SEEDS,
        budgets=(a_class,),
        thieves=THIEVES,
        kinds=(*others, deceptive("recommended setting", **defence)),
        recorded=thief.victim,
    )


def make(asked: Study, runner: Runner, *, expect: Callable[[int], None]) -> None:
    """Make the runs that are missing; returns nothing.

    Args:
        asked: the study.
        runner: makes the runs.
        expect: told first how many there are.

    Raises:
        RunError: one of them failed.
    """
    made = [run for run in asked.needed(runner.known) if runner.known(run) is not None]
    expect((len(asked.kinds) + 1) * (THIEVES + SEEDS) - len(made))
    runner.make_missing(lambda: asked.needed(runner.known))
    runner.refuse_failed()

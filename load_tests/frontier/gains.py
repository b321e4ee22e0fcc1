"""What the best thief of an answer gains over the best thief of labels, and what others lose."""

import statistics
from dataclasses import dataclass
from itertools import chain

from load_tests.frontier.study import LABELS, Kind, Study
from load_tests.runs.run import Known, Measures
from load_tests.stealing.thief import Change


@dataclass(frozen=True)
class Mean:
    """A mean over seeds."""

    value: float
    error: float  #: its standard error
    seeds: int


def mean(values: list[float]) -> Mean | None:
    """Return the mean, None of fewer than two seeds."""
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / len(values) ** 0.5
    return Mean(statistics.fmean(values), error, len(values))


def gain(
    study: Study, kind: Kind, a_class: int, known: Known, *, over: Change | None = None
) -> Mean | None:
    """Return by how much the best thief of an answer agrees more than that of labels.

    Args:
        study, kind, a_class, known: whose runs.
        over: another thief of labels in place of the best.
    """
    theirs = _made(study, kind, a_class, known)
    labels = _made(study, LABELS, a_class, known, over)
    return mean(
        [
            theirs[seed]["stolen"]["agreement"] - labels[seed]["stolen"]["agreement"]
            for seed in theirs
            if seed in labels
        ]
    )


def controls(study: Study, a_class: int, known: Known) -> list[tuple[Change, Mean]]:
    """Return all thieves of labels that were run on every seed that is told of, the best first."""
    found = []
    for change in LABELS.thieves:
        made = _made(study, LABELS, a_class, known, change)
        told = mean([one["stolen"]["agreement"] for one in made.values()])
        if told is not None and told.seeds == len(study.told):
            found.append((change, told))
    return sorted(found, key=lambda one: -one[1].value)


def stolen(study: Study, kind: Kind, a_class: int, known: Known) -> Mean | None:
    """Return the agreement of the best thief of an answer."""
    made = _made(study, kind, a_class, known).values()
    return mean([one["stolen"]["agreement"] for one in made])


def late(study: Study, known: Known) -> float | None:
    """Return what the second half of the steps added to the agreement of one training's thieves.

    The mean over the pilot's, with half as many steps at the full rate; None while there are none.
    """
    added = []
    for a_class in study.budgets:
        for kind in study.asked(a_class):
            for run in chain.from_iterable(study.pilots(kind, a_class)):
                result = None if run.learn else known(run)
                curve = [] if result is None else result["curve"]
                if len(curve) > 1:  # of one step it has one point
                    added.append(curve[-1]["agreement"] - curve[-2]["agreement"])
    return statistics.fmean(added) if added else None


def honest(study: Study, kind: Kind, known: Known) -> dict[str, Mean]:
    """Return what honest clients get, see ``calibrate.honest``, and the answers' agreement."""
    by_seed = {}
    for a_class in study.budgets:
        for seed, one in _made(study, kind, a_class, known).items():
            by_seed[seed] = one["honest"] | {"agreement": one["protected"]["agreement"]}
    found = {}
    for key in next(iter(by_seed.values()), ()):
        told = mean([one[key] for one in by_seed.values()])
        if told is not None:
            found[key] = told
    return found


def _made(
    study: Study, kind: Kind, a_class: int, known: Known, thief: Change | None = None
) -> dict[int, Measures]:
    """Return the measures of the chosen thief, or of another, by seed."""
    found = {}
    thief = study.chosen(kind, a_class, known) if thief is None else thief
    for seed in study.told:
        run = None if thief is None else study.run(kind, a_class, seed, thief)
        result = None if run is None else known(run)
        if result is not None:
            found[seed] = result
    return found

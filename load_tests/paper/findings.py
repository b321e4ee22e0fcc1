"""What the runs of one data set say of thieves: the numbers, for whatever words tell them.

Each is None while a run that it needs is missing.
"""

import math
from typing import NamedTuple

from load_tests.paper.beyond import Beyond, times_said
from load_tests.paper.grids import DefenceSettings
from load_tests.paper.measured import mean

_OURS, _TRUE = "all solutions, logits matched", "true probabilities, logits matched"


class HeldBack(NamedTuple):
    """What a defence leaves of the probabilities, and to the naive thief."""

    setting: DefenceSettings | None
    cosine: float
    before: float  #: agreement of the naive thief without a defence
    after: float


def held_back(of: Beyond, data: str, setting: DefenceSettings | None) -> HeldBack | None:
    """Return what a setting leaves in the defence study."""
    runs = of.plan.repeats(data, setting)
    cosine = mean(of.values(runs, "protected", "cosine"))
    found = HeldBack(setting, cosine, of.stolen(of.plan.repeats(data, {})), of.stolen(runs))
    return None if math.isnan(cosine + found.before + found.after) else found


class Longer(NamedTuple):
    """How far the naive thief comes with our setting."""

    short: float  #: in the defence study's steps
    long: float  #: trained to the end
    plain: float  #: the same without a defence


def longer(of: Beyond, data: str) -> Longer | None:
    """Return how far the naive thief comes, the longer it trains."""
    plan, ours = of.plan, of.plan.ours(data)
    runs = (
        plan.against(data, ours, {}),
        plan.converged(data, ours, {}),
        plan.converged(data, {}, {}),
    )
    found = Longer(*map(of.stolen, runs))
    return None if math.isnan(sum(found)) else found


class Few(NamedTuple):
    """Thieves of few queries."""

    queries: int
    labels: float  #: the best of those who keep labels alone, be it by luck
    ours: float  #: who matches the logits of all solutions of equation 2; NaN if not run
    true: float  #: who has true probabilities, and matches logits; NaN if not run


def few(of: Beyond, data: str) -> list[Few]:
    """Return them for each number of queries that was run."""
    found = []
    for queries in of.scale.few_on.get(data, ()):
        labels = of.best_label_thief_of_few(data, queries)
        if not math.isnan(labels):
            known = (of.few_agreement(data, queries, name) for name in (_OURS, _TRUE))
            found.append(Few(queries, labels, *known))
    return found


class Worth(NamedTuple):
    """How many times as many queries labels need, after few steps and after all."""

    steps: tuple[int, int]
    times: tuple[float, float]
    said: tuple[str, str]  #: the same, as people write it


def worth(of: Beyond, data: str) -> Worth | None:
    """Return what a probability is worth in labels, with the fewest queries."""
    looked_at, kept = of.steps_looked_at(data), of.scale.labels_kept
    if not looked_at or len(kept) < 2:
        return None
    steps = looked_at[0], looked_at[-1]
    first, last = (of.times(data, kept[0], at) for at in steps)
    if math.isnan(first + last):
        return None
    most = kept[-1] / kept[0]
    return Worth(steps, (first, last), (times_said(first, most), times_said(last, most)))

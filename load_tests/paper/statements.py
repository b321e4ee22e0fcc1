"""What the READMEs say of thieves, as the runs have it, word for word.

Numbers come from the runs: where they change, the words do, and a test finds that the page says
something else.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from load_tests.paper import headings
from load_tests.paper.beyond import Beyond, times_said
from load_tests.paper.headings import heading, link
from load_tests.paper.measured import mean, said
from load_tests.paper.tables import TITLES
from load_tests.paper.thieves import LABELS_ONLY

HEADING = "What the READMEs say of thieves"
#: Two agreements this near are nearly the same.
NEARLY = 0.06
_README, _LOAD_TESTS = "README.md", "load_tests/README.md"
_OURS, _TRUE = "all solutions, logits matched", "true probabilities, logits matched"


class Statement(NamedTuple):
    """What a page says."""

    words: str
    page: str
    holds: bool
    table: str  #: a link to the numbers that decide


def rows(measured: dict[str, Beyond]) -> list[tuple[str, str, str, str]]:
    """Return, for each statement that the runs can decide, its words, page, verdict and table.

    Of several scales that can, the one with the most seeds does.
    """
    scales = sorted(measured.items(), key=lambda one: -one[1].scale.other_seeds)
    found: list[Statement] = []
    for find in (_longer, _labels, _worth, _few, _left):
        by_scale = (list(find(name, of)) for name, of in scales if name != "smoke")
        found += next(filter(None, by_scale), [])
    return [
        (one.words, f"`{one.page}`", "holds" if one.holds else "**does not hold**", one.table)
        for one in found
    ]


def _longer(scale: str, of: Beyond) -> Iterator[Statement]:
    """The naive thief comes further the longer it trains."""
    for data in of.scale.data[:1]:
        plan, ours = of.plan, of.plan.ours(data)
        short, long = plan.against(data, ours, {}), plan.converged(data, ours, {})
        before, after, plain = map(of.stolen, (short, long, plan.converged(data, {}, {})))
        if math.isnan(before + after + plain):
            continue
        words = f"{TITLES[data]} {before:.2f} after {of.scale.steps:,} steps, {after:.2f} after "
        words += f"{of.scale.kept_steps:,}, {plain:.2f} unprotected"
        table = link("numbers", heading(scale, headings.CONVERGED, data))
        yield Statement(words, _README, after > before, table)


def _few(scale: str, of: Beyond) -> Iterator[Statement]:
    """Who inverts equation 2 is ahead where queries are few."""
    data = "mnist"
    told, known, ahead = [], [], True
    for queries in of.scale.few_on.get(data, ()):
        labels = of.best_of_few(data, queries, labels=True)
        ours, true = (of.few_agreement(data, queries, name) for name in (_OURS, _TRUE))
        if labels is None or math.isnan(ours + true):
            return
        told.append(f"{ours:.2f} against {labels[1]:.2f} with {queries}")
        known.append(f"{true:.2f}")
        ahead &= ours > labels[1]
    if told:
        table = link("numbers", heading(scale, headings.FEW, data))
        words = f"where queries are few: MNIST, {told[0]} queries, {', '.join(told[1:])} (true "
        words += f"probabilities: {', '.join(known)})"
        yield Statement(words, _README, ahead, table)
        yield Statement("is ahead of labels where queries are few", _LOAD_TESTS, ahead, table)


def _worth(scale: str, of: Beyond) -> Iterator[Statement]:
    """A probability is worth more labels the longer a thief trains."""
    for data in of.scale.labels_on[:1]:
        steps, kept = of.steps_looked_at(data), of.scale.labels_kept
        if not steps or len(kept) < 2:
            continue
        times = [of.times(data, kept[0], at) for at in (steps[0], steps[-1])]
        if any(map(math.isnan, times)):
            continue
        first, last = (times_said(one, kept[-1] / kept[0]) for one in times)
        words = f"on {TITLES[data]} {first} the queries after {steps[0]:,} steps of training, "
        words += f"{last} after {steps[-1]:,}"
        table = link("numbers", heading(scale, headings.WORTH, data))
        yield Statement(words, _README, times[1] > times[0], table)


def _labels(scale: str, of: Beyond) -> Iterator[Statement]:
    """Labels alone steal nearly as much."""
    for data in of.scale.labels_on[:1]:
        most = of.scale.labels_kept[-1]
        plain, labels = (of.stolen(of.plan.kept(data, most, way)) for way in ({}, LABELS_ONLY))
        if len(of.scale.labels_kept) < 2 or math.isnan(plain + labels):
            continue
        words = f"nearly as much as probabilities do: {labels:.2f} against {plain:.2f} on "
        words += f"{TITLES[data]} with {most:,} queries"
        table = link("numbers", heading(scale, headings.WORTH, data))
        yield Statement(words, _README, plain - labels < NEARLY, table)


def _left(scale: str, of: Beyond) -> Iterator[Statement]:
    """What the criterion's setting leaves of the probabilities, and to the naive thief."""
    for data in of.scale.data[:1]:
        ours = of.plan.ours(data)
        runs, plain = of.plan.repeats(data, ours), of.plan.repeats(data, {})
        cosine = mean(of.values(runs, "protected", "cosine"))
        before, after = of.stolen(plain), of.stolen(runs)
        if math.isnan(cosine + before + after):
            continue
        words = f"{TITLES[data]}, {said(ours)}: cosine {cosine:.2f}, stolen {after:.2f}, "
        table = link("numbers", heading(scale, headings.TABLE_1, data))
        yield Statement(f"{words}{before:.2f} unprotected", _README, after < before, table)

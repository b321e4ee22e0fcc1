"""What the READMEs say of thieves, as the runs have it, word for word.

Numbers come from the runs: where they change, the words do, and a test finds that the page says
something else.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from load_tests.paper import findings, headings
from load_tests.paper.beyond import Beyond
from load_tests.paper.headings import heading, link
from load_tests.paper.measured import said
from load_tests.paper.tables import TITLES
from load_tests.paper.thieves import LABELS_ONLY

HEADING = "What the READMEs say of thieves"
#: Two agreements this near are nearly the same.
NEARLY = 0.06
_README, _LOAD_TESTS = "README.md", "load_tests/README.md"


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
        found = findings.longer(of, data)
        if found is None:
            continue
        words = f"{TITLES[data]} {found.short:.2f} after {of.scale.steps:,} steps, "
        words += f"{found.long:.2f} after {of.scale.kept_steps:,}, {found.plain:.2f} unprotected"
        table = link("numbers", heading(scale, headings.CONVERGED, data))
        yield Statement(words, _README, found.long > found.short, table)


def _few(scale: str, of: Beyond) -> Iterator[Statement]:
    """Who inverts equation 2 is ahead where queries are few."""
    data = "mnist"
    found = findings.few(of, data)
    if len(found) < len(of.scale.few_on.get(data, ())):
        return
    if found and not any(math.isnan(one.ours + one.true) for one in found):
        told = [f"{one.ours:.2f} against {one.labels:.2f} with {one.queries}" for one in found]
        known = ", ".join(f"{one.true:.2f}" for one in found)
        ahead = all(one.ours > one.labels for one in found)
        table = link("numbers", heading(scale, headings.FEW, data))
        words = f"where queries are few: MNIST, {told[0]} queries, {', '.join(told[1:])} (true "
        words += f"probabilities: {known})"
        yield Statement(words, _README, ahead, table)
        yield Statement("is ahead of labels where queries are few", _LOAD_TESTS, ahead, table)


def _worth(scale: str, of: Beyond) -> Iterator[Statement]:
    """A probability is worth more labels the longer a thief trains."""
    for data in of.scale.labels_on[:1]:
        found = findings.worth(of, data)
        if found is None:
            continue
        (few, all_), (first, last) = found.steps, found.said
        words = f"on {TITLES[data]} {first} the queries after {few:,} steps of training, "
        words += f"{last} after {all_:,}"
        table = link("numbers", heading(scale, headings.WORTH, data))
        yield Statement(words, _README, found.times[1] > found.times[0], table)


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
        found = findings.held_back(of, data, of.plan.ours(data))
        if found is None:
            continue
        words = f"{TITLES[data]}, {said(found.setting)}: cosine {found.cosine:.2f}, stolen "
        words += f"{found.after:.2f}, {found.before:.2f} unprotected"
        table = link("numbers", heading(scale, headings.TABLE_1, data))
        yield Statement(words, _README, found.after < found.before, table)

"""What a campaign comes to: the best attack, the best label thief, and what theft costs.

No defence that keeps the top-1 class stops a thief who keeps only the labels. So the honest
score of a defence is *best attack minus best label thief*, each the best of all that were run: at
or below 0, probabilities are worth nothing to any thief that we know.
"""

import math
from typing import Any

from load_tests.stealing.thief import NAIVE, UNPROTECTED

#: Agreements whose price is told.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: Queries for each class from which on the honest score is told; with fewer it is luck.
LEAST_A_CLASS = 5

Result = dict[str, Any]
Curve = list[tuple[int, float]]


def summary(
    results: list[Result], *, prices: tuple[float, float], classes: int = 1
) -> dict[str, Any]:
    """Return the comparison of all thieves.

    Args:
        results: of ``Campaign.measure``.
        prices: dollars for 1,000 queries, from and to.
        classes: K; with fewer than ``LEAST_A_CLASS`` queries for each there is no honest score.

    The keys: ``budgets``, a list with, for each query budget, ``best`` (the best outsider's
    name), ``best_agreement``, ``best_label_thief``, its agreement ``labels_only`` and
    ``honest_score``, each None where it was not run; and ``queries_needed``, a list with, for
    each agreement, the queries of four thieves (None: not reached with the largest budget) and
    their price in dollars.
    """
    compared, needed = curves(results), []
    for level in LEVELS:
        queries = {name: queries_needed(points, level) for name, points in compared.items()}
        needed.append(
            {
                "agreement": level,
                "queries": queries,
                "dollars": {
                    name: None if count is None else [count / 1000 * price for price in prices]
                    for name, count in queries.items()
                },
            }
        )
    return {
        "budgets": [_at(results, queries, classes) for queries in budgets(results)],
        "queries_needed": needed,
        "dollars_per_1000_queries": list(prices),
    }


def curves(results: list[Result]) -> dict[str, Curve]:
    """Return the four thieves' curves that are compared, empty for those who were not run."""
    return {
        "unprotected": curve(results, UNPROTECTED.name),
        "naive": curve(results, NAIVE.name),
        "best": best_curve(results),
        "labels_only": best_curve(results, labels_only=True),
    }


def budgets(results: list[Result]) -> list[int]:
    """Return the query budgets that were measured, in order."""
    return sorted({result["queries"] for result in results})


def curve(results: list[Result], name: str) -> Curve:
    """Return (queries, agreement) of one thief, in the order of the queries."""
    return sorted(
        (result["queries"], result["agreement"]) for result in results if result["name"] == name
    )


def best_curve(results: list[Result], *, labels_only: bool = False) -> Curve:
    """Return (queries, agreement) of whichever outsider is best, labels-only thieves aside.

    Args:
        results: of ``Campaign.measure``.
        labels_only: the best of these in their place.
    """
    best = [_best(results, queries, labels_only=labels_only) for queries in budgets(results)]
    return [(one["queries"], one["agreement"]) for one in best if one is not None]


def queries_needed(points: Curve, level: float) -> float | None:
    """Return how many queries reach an agreement, None if none of the budgets does.

    Between two budgets it is interpolated over the logarithm of the queries; at or below the
    least budget it is that budget.
    """
    for index, (queries, agreement) in enumerate(points):
        if agreement >= level:
            if index == 0:
                return float(queries)
            before, least = points[index - 1]
            share = (level - least) / (agreement - least)
            return math.exp(math.log(before) + share * (math.log(queries) - math.log(before)))
    return None


def _best(results: list[Result], queries: int, *, labels_only: bool) -> Result | None:
    rivals = [
        result
        for result in results
        if result["queries"] == queries
        and result["outsider"]
        and result["labels_only"] == labels_only
    ]
    return max(rivals, key=lambda result: float(result["agreement"]), default=None)


def _at(results: list[Result], queries: int, classes: int) -> dict[str, Any]:
    best = _best(results, queries, labels_only=False)
    labels = _best(results, queries, labels_only=True)
    found: dict[str, Any] = {
        "queries": queries,
        "best": best and best["name"],
        "best_agreement": best and best["agreement"],
        "best_label_thief": labels and labels["name"],
        "labels_only": labels and labels["agreement"],
        "honest_score": None,
    }
    if best and labels and queries >= LEAST_A_CLASS * classes:
        found["honest_score"] = best["agreement"] - labels["agreement"]
    return found

"""Consistency in the manner of FixMatch (Sohn et al., 2020): a disturbed row is still that row.

What the substitute is sure of becomes its label for a disturbed form of the same row. FixMatch does
so in every batch; here in a few rounds, so that one way of training serves all.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from exporters.training.datasets import Images
from load_tests.stealing import probabilities
from load_tests.stealing.learning.self_training import surest, with_words
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet

ROUNDS = 3
#: Share of a row's features, or of an image's sides, that is taken away.
TAKEN = 0.25


def consistency(
    answered: TransferSet, recipe: Recipe, pool: Images, train: Callable[..., Any]
) -> Any:
    """Return a substitute that answers disturbed rows as the rows themselves.

    See ``learn.Learner``.
    """
    rng = np.random.default_rng(recipe.seed)
    model = train_substitute(answered, recipe)
    steps = -(-recipe.steps // ROUNDS)
    for left in reversed(range(ROUNDS)):
        told = probabilities.told(model, pool)
        believed = surest(told)
        words = TransferSet(disturbed(pool[believed], rng), told[believed])
        go_on = train_substitute if left else train
        round_ = replace(recipe, steps=steps, seed=recipe.seed + 1 + left)
        go_on(with_words(answered, words), round_, model=model)
    return model


def disturbed(rows: Images, rng: np.random.Generator) -> Images:
    """Return images with a square taken out of each, or features some of which are 0."""
    if rows.ndim != 4:
        kept: Images = rows * (rng.random(rows.shape) >= TAKEN).astype(np.float32)
        return kept
    count, *sides, _ = rows.shape
    inside = np.ones((count, *sides, 1), bool)
    for axis, side in enumerate(sides, start=1):
        reach = max(1, round(TAKEN**0.5 * side))
        start = rng.integers(0, side - reach + 1, count)[:, None]
        within = (np.arange(side) >= start) & (np.arange(side) < start + reach)
        inside &= within.reshape(count, *(side if at == axis else 1 for at in (1, 2)), 1)
    emptied: Images = np.where(inside, np.float32(0), rows)
    return emptied

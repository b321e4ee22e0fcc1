"""Self-distillation (Furlanello et al., 2018): a second one learns from the first."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from exporters.training.datasets import Images
from exporters.training.train import one_hot
from load_tests.stealing import probabilities
from load_tests.stealing.learning.self_training import with_words
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet


def self_distillation(
    answered: TransferSet, recipe: Recipe, pool: Images, train: Callable[..., Any]
) -> Any:
    """Return a substitute of the mean of the answers and a first one's; see ``learn.Learner``.

    Of rows that nobody was asked about it learns what the first one said, as probabilities, also
    where that one had nothing but labels.
    """
    first = train_substitute(answered, recipe)
    answers = answered.scores
    if recipe.labels_only:
        answers = one_hot(answers.argmax(axis=1), answers.shape[1])
        recipe = replace(recipe, labels_only=False, loss="cross_entropy")
    said = probabilities.told(first, answered.features)
    mean = TransferSet(answered.features, (answers + said) / 2)
    words = TransferSet(pool, probabilities.told(first, pool))
    return train(with_words(mean, words), replace(recipe, seed=recipe.seed + 1))

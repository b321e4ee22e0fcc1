"""Self-training (Lee, 2013): believe the substitute where it is surest, and learn that too."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.training.datasets import Images
from load_tests.asking.endpoint import Answers
from load_tests.stealing import probabilities
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet, joined

#: Share of each class's rows in the pool that are believed, the surest of them.
BELIEVED = 0.5


def self_training(
    answered: TransferSet, recipe: Recipe, pool: Images, train: Callable[..., Any]
) -> Any:
    """Return a substitute of the answers, and of what a first one said about the pool.

    See ``learn.Learner``.
    """
    told = probabilities.told(train_substitute(answered, recipe), pool)
    believed = surest(told)
    return train(with_words(answered, TransferSet(pool[believed], told[believed])), recipe)


def surest(told: Answers) -> NDArray[np.intp]:
    """Return the rows of the highest confidence, so many of each class, at least one."""
    top, confidence = told.argmax(axis=1), told.max(axis=1)
    found = []
    for each in np.unique(top):
        members = np.flatnonzero(top == each)
        count = max(1, int(BELIEVED * len(members)))
        found.append(members[np.argsort(-confidence[members], kind="stable")[:count]])
    return np.concatenate(found)


def with_words(answered: TransferSet, words: TransferSet) -> TransferSet:
    """Return both, the answers so often that they are about half of it."""
    copies = max(1, len(words) // len(answered))
    own = TransferSet(answered.features, answered.scores)
    return joined([*([own] * copies), words])

"""What an adversary makes of scores that may be logits.

SciPy is imported where it is needed: the command line's help names attacks, and does not wait.
"""

from typing import Any

import numpy as np

from exporters.training.datasets import Images
from exporters.training.train import predict
from load_tests.asking.endpoint import Answers, Query
from postprocess.errors import InputError

#: How far from 1 a row of float16 probabilities may sum.
TOLERANCE = 0.01


def as_probabilities(scores: Answers) -> Answers:
    """Return rows that sum to 1: the scores themselves, or their softmax if they are logits.

    Args:
        scores: shape (n, K), K >= 2, any float type.

    Raises:
        InputError: not of that shape, or not finite.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise InputError(f"scores: expected shape (n, K) with K >= 2, got {scores.shape}")
    scores = scores.astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        raise InputError("scores: expected finite numbers")
    if (scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) <= TOLERANCE).all():
        return scores
    return _softmax(scores)


def told(model: Any, rows: Images) -> Answers:
    """Return what a trained network says of rows, as probabilities."""
    return _softmax(predict(model, rows))


def _softmax(logits: Answers) -> Answers:
    from scipy.special import softmax

    probabilities: Answers = softmax(logits, axis=1)
    return probabilities


def of(query: Query) -> Query:
    """Return the query with every answer made probabilities."""
    return lambda rows: as_probabilities(query(rows))

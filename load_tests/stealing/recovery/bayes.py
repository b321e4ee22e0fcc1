"""Partial Bayes (Tang et al., ModelGuard, USENIX Security 2024): what is likely, given the answer.

Where a lookup table takes the nearest row alone, all that come near count, and nobody knows the
whole distribution: the shadow's answers are drawn from it.
"""

from collections.abc import Callable

import numpy as np

from load_tests.asking.endpoint import Answers
from load_tests.stealing.recovery.table import compared

#: The distance to which neighbour a weight falls by half: a wider kernel where rows are rare.
NEIGHBOUR = 5


def recover(answers: Answers, shadow: Answers, defence: Callable[[Answers], Answers]) -> Answers:
    """Return, for each answer, the mean of the shadow's probabilities, weighted by nearness.

    Only rows of the answer's own top class count, where there are any; else as ``table.recover``.
    """
    table = defence(shadow).astype(np.float64)
    tops, recovered = table.argmax(axis=1), []
    for chunk, apart in compared(answers, table):
        distance = apart + (chunk**2).sum(axis=1)[:, None]
        other = tops != chunk.argmax(axis=1)[:, None]
        other &= ~other.all(axis=1)[:, None]
        distance = np.where(other, np.inf, np.maximum(distance, 0))
        near = np.partition(distance, min(NEIGHBOUR, len(table)) - 1, axis=1)
        width = near[:, min(NEIGHBOUR, len(table)) - 1][:, None]
        nearest = distance.min(axis=1, keepdims=True)  # of ``near``, the order is none
        width = np.where(np.isfinite(width), width, nearest) + 1e-15
        weights = np.exp2(-(distance - nearest) / width)
        recovered.append(weights / weights.sum(axis=1, keepdims=True) @ shadow)
    found: Answers = np.concatenate(recovered).astype(np.float32)
    return found

"""Partial Bayes (Tang et al., ModelGuard, USENIX Security 2024): what is likely, given the answer.

Where a lookup table takes the nearest row alone, all that come near count, and nobody knows the
whole distribution: the shadow's answers are drawn from it.
"""

from collections.abc import Callable

import numpy as np

from load_tests.asking.endpoint import Answers
from load_tests.stealing.recovery.table import CHUNK

#: The distance to which neighbour a weight falls by half: a wider kernel where rows are rare.
NEIGHBOUR = 5


def recover(answers: Answers, shadow: Answers, defence: Callable[[Answers], Answers]) -> Answers:
    """Return, for each answer, the mean of the shadow's probabilities, weighted by nearness.

    Args:
        answers: the endpoint's, shape (n, K), rows sum to 1.
        shadow: probabilities of the adversary's own model, shape (m, K): the prior.
        defence: what the adversary takes the endpoint's to be, from probabilities to answers.

    Only rows of the answer's own top class count, where there are any.
    """
    table = defence(shadow).astype(np.float64)
    lengths, tops = (table**2).sum(axis=1), table.argmax(axis=1)
    recovered = []
    for chunk in np.array_split(answers.astype(np.float64), -(-len(answers) // CHUNK)):
        distance = lengths - 2 * chunk @ table.T + (chunk**2).sum(axis=1)[:, None]
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

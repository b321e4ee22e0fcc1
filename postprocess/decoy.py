"""Label, a level of confidence, and a tail that means nothing: a hardened mode (``decoy``)."""

import numpy as np
from numpy.typing import NDArray

from postprocess import keyed
from postprocess.pseudo_logits import Float32

#: By how much the top class leads at the lowest level, as a share of 1 / K. Clients of more
#: than two decimals see it for K = 10; substitutes make nothing of it.
LEAST_LEAD = 0.01


def replace(probabilities: Float32, top: NDArray[np.intp], *, levels: int, key: bytes) -> Float32:
    """Return rows that depend on the top class, a level of its probability, and the key alone.

    At most ``K * levels`` different rows exist under one key, so a query tells its sender at
    most **log2(K) + log2(levels) bits**, whatever the sender computes from it; the label alone
    is log2(K) of them. The order of the other classes is drawn from the key, the same for
    every answer of that label and level.

    Args:
        probabilities: shape (rows, K), K >= 2, rows sum to 1, no entry above the top class's.
        top: the top class of each row, shape (rows,).
        levels: 1 to 100, of equal width between 1 / K and 1. An answer shows the lowest
            confidence of its level.
        key: the secret.
    """
    rows, classes = probabilities.shape
    least = 1 / classes
    height = (probabilities[np.arange(rows), top] - least) / (1 - least)
    level = np.clip(np.floor(height * levels), 0, levels - 1).astype(np.int64)
    codes, which = np.unique(np.stack([top, level], axis=1), axis=0, return_inverse=True)

    confidence = least + codes[:, 1] / levels * (1 - least)
    confidence = np.maximum(confidence, (1 + LEAST_LEAD) * least)[:, None]
    tail = 1.0 + keyed.uniform(key, b"decoy", codes.astype("<i8"), classes).astype(np.float64)
    each = np.arange(len(codes))
    tail[each, codes[:, 0]] = 0
    tail *= (1 - confidence) / tail.sum(axis=1, keepdims=True)
    mean = (1 - confidence) / (classes - 1)
    # Pulled towards their mean, where need be, so that none passes the top class.
    highest = tail.max(axis=1, keepdims=True)
    room = 0.99 * confidence + 0.01 * mean - mean
    squeeze = np.minimum(1, room / np.maximum(highest - mean, 1e-12))
    tail = mean + (tail - mean) * squeeze
    tail[each, codes[:, 0]] = confidence[:, 0]
    answers: Float32 = tail.astype(np.float32)[which.reshape(-1)]
    return answers

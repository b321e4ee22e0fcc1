"""Deceptive answers with a proven bound: the label, and nothing else that the classifier said.

There are K answers, one for each class: of K classes a query tells its sender at most ``log2 K``
bits, whatever is computed from it, and those are the label. An answer looks like one of Reverse
Sigmoid on a confident row: nearly flat, its top class just ahead, the others in an order that
means nothing. No secret is needed for that, as there is nothing behind it to be found.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.arrays import Array
from postprocess.scores import Scores

#: By how much the top class leads 1 / K, as a share of it: clients of more than two decimals see
#: it for K = 10; substitutes make nothing of it.
LEAD = 0.01


def twice(classes: int, *, seed: int, data_type: np.dtype[Any]) -> Array:
    """Return the answer of class 0, followed by itself, shape (2 * K,).

    That of class k is the same row turned by k places: entries K - k to 2 * K - k.

    Args:
        classes: K >= 2.
        seed: another one makes another row.
        data_type: of the answers.
    """
    drawn = hashlib.shake_256(b"decoy %d of %d" % (seed, classes)).digest(2 * (classes - 1))
    tail = 1 + np.frombuffer(drawn, "<u2") / 2**16
    top = (1 + LEAD) / classes
    mean = (1 - top) / (classes - 1)
    tail *= (1 - top) / tail.sum()
    # Pulled towards their mean, so that the highest stays halfway below the top class.
    tail = mean + (tail - mean) * min(1.0, (top - mean) / 2 / max(tail.max() - mean, 1e-12))
    row = np.concatenate([[top], tail]).astype(data_type)
    row[0] = max(row[0], np.nextafter(row[1:].max(), row.dtype.type(2)))
    return np.tile(row, 2)


def rows(scores: Scores, turned: Array) -> Array:
    """Return the answer of each row's top class, the first of several, shape (rows, K).

    Args:
        scores: shape (rows, K), K >= 2, without bad rows.
        turned: what ``twice`` makes for K classes.
    """
    classes = scores.shape[1]
    start = classes - scores.argmax(axis=1)
    answer: Array = turned[start[:, None] + np.arange(classes)]
    return answer


def sides(scores: Scores, *, probabilities: bool) -> Scores:
    """Return which side of 1/2 each score lies on, by as little as a row of two classes says it.

    Args:
        scores: shape (rows, K), each a yes or no of its own, without bad rows.
        probabilities: they are such, and not logits.
    """
    middle = 0.5 if probabilities else 0.0
    side: NDArray[Any] = np.sign(scores - scores.dtype.type(middle))
    return (0.5 + side * (LEAD / 2)).astype(scores.dtype)

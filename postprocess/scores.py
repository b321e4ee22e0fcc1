"""What the victim hands over, made into float32 logits: the one form that the defence works on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.errors import InputError
from postprocess.pseudo_logits import Float32

#: float16, float32 or float64.
Scores = NDArray[np.floating[Any]]

#: Step of the coarsest probabilities that are taken as such: those of an 8-bit graph.
PROBABILITY_STEP = 1 / 256
#: How far K probabilities may be from summing to 1: K steps, but at least so far, which float16
#: needs, and at most so far: rounding to the nearest step doubles a probability at most.
PROBABILITY_SUM_TOLERANCE, PROBABILITY_SUM_LIMIT = 0.01, 1.0
#: How far above 1 a probability may be: an 8-bit scale seldom ends at 1.
PROBABILITY_EXCESS = 2 * PROBABILITY_STEP
#: How far below 0 a probability may be: runtimes round 1 - p and sigmoids that far.
PROBABILITY_ROUNDING = 1e-6


class BadRowsError(InputError):
    """Rows that cannot be protected; ``rows`` says which, shape (rows,)."""

    def __init__(self, message: str, rows: NDArray[np.bool_]) -> None:
        super().__init__(message)
        self.rows = rows


def sum_tolerance(classes: int) -> float:
    """Return how far the sum of K probabilities may be from 1, 0.01 to 1."""
    off = classes * PROBABILITY_STEP
    return min(max(off, PROBABILITY_SUM_TOLERANCE), PROBABILITY_SUM_LIMIT)


def looks_like_probabilities(scores: Scores, *, single: bool = False) -> NDArray[np.bool_]:
    """Return which rows may be probabilities, shape (rows,), for scores (rows, K).

    Every entry lies in [0, 1], up to rounding, and the row sums to 1, up to what rounding
    each entry to 8 bits takes or adds; see ``sum_tolerance``. NaN and a row of zeros never do.

    Args:
        scores: shape (rows, K), K >= 1.
        single: every entry is a yes or no of its own, so that no sum is looked at; for K = 1
            it is so whatever is said.
    """
    likely = in_unit_range(scores)
    if not single and scores.shape[1] > 1:
        with np.errstate(invalid="ignore", over="ignore"):
            total = scores.sum(axis=1, dtype=np.float64)
        likely &= (np.abs(total - 1) <= sum_tolerance(scores.shape[1])) & (total > 0)
    return likely


def in_unit_range(scores: Scores) -> NDArray[np.bool_]:
    """Return which rows lie in [0, 1] up to rounding, shape (rows,), for scores (rows, K)."""
    with np.errstate(invalid="ignore"):
        low, high = scores >= -PROBABILITY_ROUNDING, scores <= 1 + PROBABILITY_EXCESS
    inside: NDArray[np.bool_] = (low & high).all(axis=1)
    return inside


def bad_rows(scores: Scores, *, probabilities: bool, single: bool) -> NDArray[np.bool_]:
    """Return which rows cannot be protected, shape (rows,), for scores (rows, K).

    A row is bad if it holds NaN or an infinity, or if it should hold probabilities and does
    not look like them.
    """
    if probabilities:
        return ~looks_like_probabilities(scores, single=single)
    good: NDArray[np.bool_] = np.isfinite(scores).all(axis=1)
    return ~good


def to_logits(scores: Scores, *, probabilities: bool) -> Float32:
    """Return float32 logits whose softmax is the victim's answer, shape (rows, K).

    Args:
        scores: shape (rows, K), K >= 2, without bad rows: logits, or probabilities, which may
            sum to anything above 0 here.

    The order within a row survives the conversion, however near a tie: what float32 cannot
    tell apart is measured from the row's highest score first.
    """
    if not probabilities:
        if scores.dtype == np.float64:
            wide = scores.astype(np.float64, copy=False)
            return _narrow(wide - wide.max(axis=1, keepdims=True))
        return scores.astype(np.float32, copy=False)
    wide = np.maximum(scores.astype(np.float64), 0)
    wide /= wide.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return _narrow(np.log(wide, out=wide))


def to_pair(scores: Scores, *, probabilities: bool) -> Float32:
    """Return the logits of (p, 1 - p), shape (rows, 2), for single sigmoid outputs (rows, 1)."""
    if probabilities:
        # float16 would round 1 - p off by more than it tells p from the next.
        p = np.clip(scores.astype(np.promote_types(scores.dtype, np.float32), copy=False), 0, 1)
        return to_logits(np.concatenate([p, 1 - p], axis=1), probabilities=True)
    limit = np.finfo(np.float32).max
    logits = np.clip(scores, -limit, limit).astype(np.float32)
    return np.concatenate([logits, np.zeros_like(logits)], axis=1)


def _narrow(below_top: NDArray[np.float64]) -> Float32:
    """Return logits measured from the row's highest, as float32, still below it if they were."""
    with np.errstate(over="ignore", under="ignore"):
        narrow: Float32 = below_top.astype(np.float32)
    narrow[(below_top < 0) & (narrow == 0)] = -np.finfo(np.float32).smallest_subnormal
    return narrow

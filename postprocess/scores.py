"""What the victim hands over, made into float32 logits: the one form that the defence works on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.errors import InputError
from postprocess.pseudo_logits import Float32

#: float16, float32 or float64.
Scores = NDArray[np.floating[Any]]

#: How far a row that claims to hold probabilities may be from summing to 1. Wide enough for
#: float16 softmax outputs over 1,000 classes, narrow enough to refuse logits.
PROBABILITY_SUM_TOLERANCE = 0.01
#: How far outside of 0 to 1 a probability may be: runtimes round 1 - p and sigmoids that far.
PROBABILITY_ROUNDING = 1e-6


class BadRowsError(InputError):
    """Rows that cannot be protected; ``rows`` says which, shape (rows,)."""

    def __init__(self, message: str, rows: NDArray[np.bool_]) -> None:
        super().__init__(message)
        self.rows = rows


def bad_rows(scores: Scores, *, probabilities: bool, single: bool) -> NDArray[np.bool_]:
    """Return which rows cannot be protected, shape (rows,), for scores (rows, K).

    A row is bad if it holds NaN or an infinity, or if it should hold probabilities and does
    not: an entry below 0, or a sum further than 0.01 from 1 (single: an entry above 1). An
    entry that misses 0 or 1 by 1e-6 is taken for it.
    """
    good: NDArray[np.bool_] = np.isfinite(scores).all(axis=1)
    if probabilities:
        good &= (scores >= -PROBABILITY_ROUNDING).all(axis=1)
        if single:
            good &= (scores <= 1 + PROBABILITY_ROUNDING).all(axis=1)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                total = scores.sum(axis=1, dtype=np.float64)
            good &= np.abs(total - 1) <= PROBABILITY_SUM_TOLERANCE
    return np.logical_not(good)


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
        p = np.clip(scores, 0, 1)
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

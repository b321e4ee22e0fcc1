"""The table of calibrated answers, made from what a classifier said about held-out rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from postprocess import calibrated
from postprocess.arrays import Float64
from postprocess.calibration import MOST_LEVELS, Calibration
from postprocess.errors import InputError
from postprocess.scores import Scores

#: Rows that a level's mean counts for where a class has few of its own.
SHRINKAGE = 10.0
#: By how much an answer leads the next class at least, as a share of 1 / K: float16 shows it.
LEAST_LEAD = 0.01


def fit(
    scores: Scores,
    labels: NDArray[np.integer[Any]] | None,
    *,
    levels: int = 10,
    probabilities: bool = False,
    victim: str = "",
) -> Calibration:
    """Return the table of K classes, with as many levels as the scores tell apart, at most.

    Levels end at quantiles of the victim's confidence. A class's confidence in a level is how
    often it was right there, shrunk towards the mean of the level, by ``SHRINKAGE`` rows of it
    (histogram binning: Zadrozny and Elkan, 2001), and made to rise from level to level.

    Args:
        scores: of the held-out rows, shape (n, K), K >= 2, logits or probabilities.
        labels: the true classes, shape (n,); None: the classifier's own mean confidence counts.
        levels: 1 to 100.
        probabilities: what the scores are.
        victim: digest of the classifier.

    Raises:
        InputError: no rows, or as many levels as are never told apart.
    """
    if not 1 <= levels <= MOST_LEVELS:
        raise InputError(f"--levels: expected 1 to {MOST_LEVELS}, got {levels}")
    if not len(scores):
        raise InputError("expected at least one held-out row, got none")
    classes = scores.shape[1]
    top, log_odds = calibrated.top_and_log_odds(scores, probabilities=probabilities)
    with np.errstate(over="ignore"):
        right = 1 / (1 + np.exp(-log_odds)) if labels is None else (top == labels).astype(float)
    cuts = _cuts(log_odds, levels)
    level = np.searchsorted(cuts, log_odds, side="right")
    shape = classes, len(cuts) + 1
    place = np.ravel_multi_index((top, level), shape)
    rows = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.bincount(place, right, minlength=shape[0] * shape[1]).reshape(shape)
    mean = (hits.sum(axis=0) + 0.5) / (rows.sum(axis=0) + 1)
    confidence = (hits + SHRINKAGE * mean) / (rows + SHRINKAGE)
    confidence = np.stack(
        [_rising(row, count) for row, count in zip(confidence, rows + SHRINKAGE, strict=True)]
    )
    confidence = np.maximum(confidence, (1 + LEAST_LEAD) / classes)
    return Calibration(
        classes=classes,
        single=False,
        log_odds=tuple(cuts.tolist()),
        confidence=tuple(map(tuple, confidence.tolist())),
        victim=victim,
        rows=len(scores),
        labelled=labels is not None,
    )


def _cuts(log_odds: Float64, levels: int) -> Float64:
    """Return where levels of about as many rows each end, halfway between two rows."""
    found = np.unique(log_odds[np.isfinite(log_odds)])
    ordered = np.sort(log_odds)
    wanted = ordered[[len(ordered) * level // levels for level in range(1, levels)]]
    after = np.searchsorted(found, wanted)
    after = np.unique(after[(after > 0) & (after < len(found))])
    halfway: Float64 = (found[after - 1] + found[after]) / 2
    return np.unique(halfway)


def _rising(confidence: Float64, weights: Float64) -> Float64:
    rising: Float64 = isotonic_regression(confidence, weights=weights).x
    return np.maximum.accumulate(rising)  # up to the last digit

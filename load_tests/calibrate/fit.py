"""The table of calibrated answers, made from what a classifier said about held-out rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    single: bool = False,
    victim: str = "",
) -> Calibration:
    """Return the table of K classes, with as many levels as the scores tell apart, at most.

    Levels end at quantiles of the victim's confidence. A class's confidence in a level is how
    often it was right there, shrunk towards the mean of the level, by ``SHRINKAGE`` rows of it
    (histogram binning: Zadrozny and Elkan, 2001), and made to rise from level to level. Of yes or
    no outputs, each side of each has such a confidence, shrunk towards that of all yes or all no,
    and those towards the mean of the level; a side that is wrong more often than not keeps
    ``LEAST_LEAD``.

    Args:
        scores: of the held-out rows, shape (n, K), logits or probabilities.
        labels: the true classes, shape (n,), or of yes or no outputs 1 or 0, shape (n, K); None:
            the classifier's own mean confidence counts.
        levels: 1 to 100.
        probabilities: what the scores are.
        single: every score is a yes or no of its own, as it is where K is 1.
        victim: digest of the classifier.

    Raises:
        InputError: no rows, other labels, or as many levels as are never told apart.
    """
    if not 1 <= levels <= MOST_LEVELS:
        raise InputError(f"--levels: expected 1 to {MOST_LEVELS}, got {levels}")
    if not len(scores):
        raise InputError("expected at least one held-out row, got none")
    classes = scores.shape[1]
    said, log_odds, right = _said(scores, labels, probabilities=probabilities, single=single)
    if not len(said):
        raise InputError("expected at least one yes or no, got scores that are all in the middle")
    if right is None:
        with np.errstate(over="ignore"):
            right = 1 / (1 + np.exp(-log_odds))
    cuts = _cuts(log_odds, levels)
    level = np.searchsorted(cuts, log_odds, side="right")
    shape = 2 * classes if single else classes, len(cuts) + 1
    place = np.ravel_multi_index((said, level), shape)
    rows = np.bincount(place, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.bincount(place, right, minlength=shape[0] * shape[1]).reshape(shape)
    confidence = np.maximum(
        _confidence(hits, rows, single=single), (1 + LEAST_LEAD) / (2 if single else classes)
    )
    return Calibration(
        classes=classes,
        single=single,
        log_odds=tuple(cuts.tolist()),
        confidence=tuple(map(tuple, confidence.tolist())),
        victim=victim,
        rows=len(scores),
        labelled=labels is not None,
    )


def refuse_other_labels(
    labels: NDArray[np.integer[Any]], shape: tuple[int, ...], *, single: bool
) -> None:
    """Return if labels are those of scores of a shape, (n, K), or (n, ..., K) of positions.

    Raises:
        InputError: they are not.
    """
    *rows, classes = shape
    wanted = [shape] if single else [(*rows,)]
    if single and classes == 1:
        wanted.append((*rows,))
    most, least = 1 if single else classes - 1, labels.min(initial=0)
    none = len(rows) > 1
    if labels.shape not in wanted or (least < 0 and not none) or labels.max(initial=0) > most:
        what = "1 for yes and 0 for no" if single else f"classes from 0 to {most}"
        what += ", below 0 where a position has none" * none
        got = f"{least} to {labels.max(initial=0)}, shape {labels.shape}"
        raise InputError(
            f"labels: expected {what}, shape {' or '.join(map(str, wanted))}, got {got}"
        )


def _said(
    scores: Scores,
    labels: NDArray[np.integer[Any]] | None,
    *,
    probabilities: bool,
    single: bool,
) -> tuple[NDArray[np.intp], Float64, Float64 | None]:
    """Return of everything said its row of the table, its log-odds, and whether it was right."""
    if labels is not None:
        refuse_other_labels(labels, scores.shape, single=single)
    if not single:
        top, log_odds = calibrated.top_and_log_odds(scores, probabilities=probabilities)
        return top, log_odds, None if labels is None else (top == labels).astype(float)
    odds = calibrated.side_log_odds(scores, probabilities=probabilities)
    decided = odds != 0  # what is on neither side is answered with 1/2
    side = 2 * np.arange(odds.shape[1]) + (odds < 0)
    right = None
    if labels is not None:
        right = ((odds > 0) == labels.reshape(odds.shape))[decided].astype(float)
    return side[decided], np.abs(odds[decided]), right


def _confidence(hits: NDArray[Any], rows: NDArray[np.intp], *, single: bool) -> Float64:
    """Return how often each row of the table was right in each level, shrunk and rising."""
    mean = (hits.sum(axis=0) + 0.5) / (rows.sum(axis=0) + 1)
    if single:
        sides = [_shrunk(hits[at::2].sum(axis=0), rows[at::2].sum(axis=0), mean) for at in (0, 1)]
        mean = np.tile(sides, (len(rows) // 2, 1))
    pairs = zip(_shrunk(hits, rows, mean), rows + SHRINKAGE, strict=True)
    return np.stack([_rising(row, count) for row, count in pairs])


def _shrunk(hits: NDArray[Any], rows: NDArray[np.intp], mean: Float64) -> Float64:
    """Return how often it was right, as if ``SHRINKAGE`` rows more had the mean's share."""
    shrunk: Float64 = (hits + SHRINKAGE * mean) / (rows + SHRINKAGE)
    return shrunk


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
    from scipy.optimize import isotonic_regression

    rising: Float64 = isotonic_regression(confidence, weights=weights).x
    return np.maximum.accumulate(rising)  # up to the last digit

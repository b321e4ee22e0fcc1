"""Answers for honest clients: the top class and one of a few calibrated levels of confidence.

An answer depends on the top class and the level of its confidence alone, so that a query tells its
sender at most ``log2 K + log2 levels`` bits, whatever is computed from it; the label alone is
log2 K of them. The confidence is how often the victim was right there (histogram binning: Zadrozny
and Elkan 2001, Guo et al. 2017). Not of the paper, whose answers mislead honest clients too.
"""

import numpy as np
from numpy.typing import NDArray

from postprocess.arrays import Float64
from postprocess.calibration import Calibration
from postprocess.scores import Scores


def rows(scores: Scores, table: Calibration, *, probabilities: bool) -> Scores:
    """Return rows of which at most ``K * levels`` differ: the top class's confidence, a flat rest.

    Args:
        scores: shape (rows, K), K >= 2, without bad rows.
        table: of those K classes.
        probabilities: they are such, and not logits.
    """
    top, log_odds = top_and_log_odds(scores, probabilities=probabilities)
    confidence = table.table[top, table.level(log_odds)]
    answer = np.empty_like(scores)
    answer[:] = table.others(confidence)[:, None]
    answer[np.arange(len(answer)), top] = confidence
    return answer


def sides(scores: Scores, table: Calibration, *, probabilities: bool) -> Scores:
    """Return entries of which at most ``2 * levels + 1`` differ in a column: side and confidence.

    Args:
        scores: shape (rows, K), each a yes or no of its own, without bad rows.
        table: of those K outputs.
        probabilities: they are such, and not logits.

    What lies on neither side of 1/2 is answered with 1/2.
    """
    log_odds = side_log_odds(scores, probabilities=probabilities)
    row = 2 * np.arange(scores.shape[1]) + (log_odds < 0)
    confidence = table.table[row, table.level(np.abs(log_odds))]
    answer = np.where(log_odds < 0, 1 - confidence, confidence)
    return np.where(log_odds == 0, 0.5, answer).astype(scores.dtype)


def top_and_log_odds(scores: Scores, *, probabilities: bool) -> tuple[NDArray[np.intp], Float64]:
    """Return each row's top class, the first of several, and the log-odds of its probability.

    Args:
        scores: shape (rows, K), K >= 2, without bad rows.
        probabilities: they are such, and not logits.
    """
    wide = scores.astype(np.float64)
    top = wide.argmax(axis=1)
    each = np.arange(len(wide))
    with np.errstate(divide="ignore"):
        if probabilities:
            wide = np.log(np.maximum(wide, 0))
        wide = np.exp(wide - wide[each, top][:, None])
        wide[each, top] = 0
        log_odds: Float64 = -np.log(wide.sum(axis=1))
    return top, log_odds


def side_log_odds(scores: Scores, *, probabilities: bool) -> Float64:
    """Return the log-odds of each yes, shape (rows, K), below 0 for a no."""
    wide = scores.astype(np.float64)
    if not probabilities:
        return wide
    wide = np.clip(wide, 0, 1)
    with np.errstate(divide="ignore"):
        log_odds: Float64 = np.log(wide) - np.log1p(-wide)
    return log_odds

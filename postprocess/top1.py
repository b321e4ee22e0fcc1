"""The accuracy constraint of the paper, enforced exactly.

Section 3 asks for ``yhat_k >= yhat_j`` for all j, k being the victim's top class, and leaves
it to luck; its own Table 1 shows protected models that answer differently. Here it holds for
every row: beta is lowered, for that row alone, to where the top class is about to lose.
"""

import numpy as np
from numpy.typing import NDArray

from postprocess.arrays import Float64
from postprocess.pseudo_logits import Float32, PseudoLogits
from postprocess.scores import Scores


def largest_beta(scores: PseudoLogits, gamma: float) -> Float64:
    """Return, for each row, the largest beta at which no class passes the top class.

    Args:
        scores: the victim's.
        gamma: the slope, > 0.

    Returns:
        shape (rows,), > 0, ``inf`` where nothing constrains the row. Between the top class k
        and a class j the order holds iff ``beta <= (y_k - y_j) / (s_k - s_j)``, with s the
        sigmoid of gamma times the pseudo-logit; the bound is the least of these over j.
        Classes that tie with k move with it and give no bound.

    The bound is the inverse slope of a secant of s(y). For gamma <= 1 s(y) is concave below
    1/2 and convex above, so the steepest secant from y_k ends at the runner-up or at the
    least likely class, and only these two are looked at. For gamma > 1 all are.
    """
    logits = scores.logits
    if gamma <= 1:
        lowest = logits.min(axis=1).astype(np.float64)
        gap = np.stack([np.zeros(len(logits)), scores.runner_up - lowest], axis=1)
        gap[np.isinf(scores.top_gap)] = 0.0  # one-hot: the runner-up's logit is the top's own
        below_runner_up = gap
    else:
        below_runner_up = scores.runner_up.astype(np.float64)[:, None] - logits
        below_runner_up[np.arange(len(logits)), scores.top] = 0.0
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        ratio = _beta_of_pair(scores, below_runner_up, gamma)
    bound: Float64 = np.where(np.isnan(ratio), np.inf, ratio).min(axis=1)
    return bound


def _beta_of_pair(scores: PseudoLogits, below_runner_up: Float64, gamma: float) -> Float64:
    """Return ``(y_k - y_j) / (s_k - s_j)``, NaN where j ties with k.

    ``below_runner_up`` is ``m2 - g_j`` of shape (rows, candidates). Both differences are
    written as products, since near ties are just where the plain differences cancel.
    """
    rest = scores.rest[:, None]
    gap = scores.top_gap[:, None] + below_runner_up  # g_k - g_j
    scale = np.exp(-scores.top_gap)[:, None]
    log_odds_against_top = np.log(rest) - scores.top_gap[:, None]  # log((1 - y_k) / y_k)
    one_minus_ratio = -np.expm1(-gap)  # 1 - y_j / y_k
    y_top = 1.0 / (1.0 + rest * scale)
    y_difference = one_minus_ratio * y_top

    x_top = -gamma * log_odds_against_top
    remainder = np.maximum(rest - np.exp(-below_runner_up), 0.0)
    x_other = -gamma * (gap + np.log1p(remainder * scale))
    x_difference = gamma * (gap + np.logaddexp(0.0, np.log(one_minus_ratio) - log_odds_against_top))
    # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a))
    s_difference = -np.expm1(-x_difference) / ((1.0 + np.exp(-x_top)) * (1.0 + np.exp(x_other)))
    ratio: Float64 = y_difference / s_difference
    return ratio


def lift_top(perturbed: Float32, scores: PseudoLogits, *, margin: float) -> NDArray[np.bool_]:
    """Lift each row's top class, in place, to the highest of the others; return which rows.

    For perturbations that no lower beta would reconcile with the accuracy constraint without
    giving the row away: noise drawn class by class.

    Args:
        perturbed: shape (rows, K), before it is normalised.
        margin: the share of the victim's own gap, top class to runner-up, that is put on top.
    """
    rows = np.arange(len(perturbed))
    value = perturbed[rows, scores.top]
    perturbed[rows, scores.top] = -np.inf
    gap = scores.probabilities[rows, scores.top] * -np.expm1(-scores.top_gap)
    floor = (perturbed.max(axis=1) + margin * gap).astype(np.float32)
    perturbed[rows, scores.top] = np.maximum(value, floor)
    lifted: NDArray[np.bool_] = value < floor
    return lifted


def keep_top(perturbed: Scores, top: NDArray[np.intp]) -> None:
    """Lift each row's top class, in place, strictly above all others.

    The cap keeps the order in exact arithmetic, but at the cap two classes may meet, and
    closer than one step of the answer's type they can come out equal or swapped. The top class
    moves by a few steps at most. Of several that tie in the victim's row, the first is lifted.

    Args:
        perturbed: shape (rows, K), of the type that is answered with.
        top: the top class of each row, shape (rows,).
    """
    rows = np.arange(len(perturbed))
    value = perturbed[rows, top]
    perturbed[rows, top] = -1
    floor = np.nextafter(perturbed.max(axis=1), perturbed.dtype.type(2))
    perturbed[rows, top] = np.maximum(value, floor)


def keep_side(probability: Scores, pair: PseudoLogits) -> None:
    """Keep, in place, a single sigmoid output on its side of 1/2; shape (rows,).

    ``pair`` is of (p, 1 - p): top class 0 means p > 1/2.
    """
    half = probability.dtype.type(0.5)
    one, nothing = probability.dtype.type(1), probability.dtype.type(0)
    decided: NDArray[np.bool_] = pair.top_gap > 0
    upper = decided & (pair.top == 0)
    lower = decided & (pair.top == 1)
    probability[upper] = np.maximum(probability[upper], np.nextafter(half, one))
    probability[lower] = np.minimum(probability[lower], np.nextafter(half, nothing))

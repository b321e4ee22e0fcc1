"""The accuracy constraint of the paper, enforced exactly.

Section 3 asks for ``yhat_k >= yhat_j`` for all j, k being the victim's top class, and leaves
it to luck; its own Table 1 shows protected models that answer differently. Here it holds for
every row: beta is lowered, for that row alone, to where the top class is about to lose.
"""

import numpy as np
from numpy.typing import NDArray

from postprocess.pseudo_logits import Float32, Float64, PseudoLogits


def largest_beta(scores: PseudoLogits, logits: Float32, gamma: float) -> Float64:
    """Return, for each row, the largest beta at which no class passes the top class.

    Args:
        scores: what ``from_logits`` made of ``logits``.
        logits: shape (rows, K), the victim's.
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


def keep_top(perturbed: Float32, scores: PseudoLogits) -> None:
    """Lift each row's top class, in place, strictly above all others.

    The cap keeps the order in exact arithmetic, but at the cap two classes may meet, and
    closer than one float32 step they can come out equal or swapped. The top class moves by a
    few steps at most. Of several that tie in the victim's row, the first is lifted.
    """
    rows = np.arange(len(perturbed))
    value = perturbed[rows, scores.top]
    perturbed[rows, scores.top] = -1
    floor = np.nextafter(perturbed.max(axis=1), np.float32(2))
    perturbed[rows, scores.top] = np.maximum(value, floor)


def keep_side(probability: Float32, scores: PseudoLogits) -> None:
    """Keep, in place, a single sigmoid output on its side of 1/2; shape (rows,).

    ``scores`` are those of the pair (p, 1 - p): top class 0 means p > 1/2.
    """
    half = np.float32(0.5)
    above, below = np.nextafter(half, np.float32(1)), np.nextafter(half, np.float32(0))
    decided: NDArray[np.bool_] = scores.top_gap > 0
    upper = decided & (scores.top == 0)
    lower = decided & (scores.top == 1)
    probability[upper] = np.maximum(probability[upper], above)
    probability[lower] = np.minimum(probability[lower], below)

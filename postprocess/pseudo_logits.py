"""Softmax probabilities and their pseudo-logits, stable in float32.

The pseudo-logit of a class is ``s^-1(y) = log(y / (1 - y))`` (paper, section 3). Taken from
rounded probabilities it is lost where classifiers are confident: ``1 - y`` is 0 in float32
from a logit gap of 17 on. Here everything is measured from the runner-up's logit instead,
so that neither the top class nor the tail ever cancels or underflows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postprocess.arrays import Float64

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class PseudoLogits:
    """Softmax of a batch of rows, with what the defence needs to know about each row.

    ``k`` is a row's top class (the first, where several tie), ``m2`` its runner-up's logit.
    The per-row scalars are float64: they decide the accuracy constraint.
    """

    logits: Float32  #: shape (rows, K), what the rest was made of
    probabilities: Float32  #: y, shape (rows, K), in [0, 1], rows sum to 1
    pseudo_logits: Float32  #: s^-1(y), shape (rows, K), in [-inf, inf]
    top: NDArray[np.intp]  #: k, shape (rows,)
    top_gap: Float64  #: g_k - m2, shape (rows,), 0 where the top class is tied
    runner_up: Float32  #: m2, shape (rows,)
    rest: Float64  #: sum over i != k of exp(g_i - m2), shape (rows,), in [1, K - 1]


def from_logits(logits: Float32) -> PseudoLogits:
    """Return softmax(logits) and its pseudo-logits.

    Args:
        logits: shape (rows, K), K >= 2, float32. ``-inf`` stands for a probability of 0;
            every row needs at least one finite entry, and no ``+inf`` or NaN.

    For j != k the pseudo-logit is ``(g_j - g_k) - log(1 + sum over i not in {j, k} of
    exp(g_i - g_k))``, and for k it is ``(g_k - m2) - log(rest)``: sums of terms of one sign.
    """
    rows = np.arange(len(logits))
    top = logits.argmax(axis=1)
    others = logits.copy()
    others[rows, top] = -np.inf
    second = others.argmax(axis=1)
    runner_up = others[rows, second]
    # Every other class impossible (a one-hot row): measure from the top class instead.
    only = runner_up == -np.inf
    top_logit = logits[rows, top]
    top_gap = top_logit.astype(np.float64) - runner_up
    runner_up = np.where(only, top_logit, runner_up)

    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        below = np.subtract(others, runner_up[:, None], out=others)  # g_j - m2, in [-inf, 0]
        weight = np.exp(below)
        rest = weight.sum(axis=1, dtype=np.float64)
        scale = np.exp(-top_gap)  # exp(m2 - g_k), in [0, 1]
        total = 1.0 + rest * scale  # sum over all i of exp(g_i - g_k)

        remainder = (rest.astype(np.float32)[:, None] - weight) * scale.astype(np.float32)[:, None]
        pseudo_logits = below
        pseudo_logits -= top_gap.astype(np.float32)[:, None]
        pseudo_logits -= np.log1p(np.maximum(remainder, 0, out=remainder), out=remainder)
        # The two that decide most, in float64: there the sums above would cancel.
        pseudo_logits[rows, second] = -top_gap - np.log1p((rest - 1.0) * scale)
        # The top last: of a one-hot row of class 0, second is 0 as well.
        pseudo_logits[rows, top] = top_gap - np.log(rest)

        probabilities = weight
        probabilities *= (scale / total).astype(np.float32)[:, None]
        probabilities[rows, top] = 1.0 / total
    return PseudoLogits(logits, probabilities, pseudo_logits, top, top_gap, runner_up, rest)

"""Answers of few decimals: a hardened mode (``decimals``).

The tail of a Reverse Sigmoid answer is the true ranking reversed, in differences too small to
matter to an honest client. Rounding takes them away.
"""

import numpy as np
from numpy.typing import NDArray

from postprocess.pseudo_logits import Float32


def quantise(probabilities: Float32, top: NDArray[np.intp], *, decimals: int) -> Float32:
    """Return the rows in whole units of ``10**-decimals`` that sum to 1, top class strictly first.

    Each entry is rounded down, and the units that are left go to the largest remainders, with
    the top class first and the rivals that share its whole part last; where it comes to them,
    the top class gets a second. So an entry moves by less than one unit, or by one where it
    tied with the top class, and the top class by less than two.

    Args:
        probabilities: shape (rows, K), K >= 2, rows sum to 1, no entry above the top class's.
        top: the top class of each row, shape (rows,).
        decimals: 1 to 6.
    """
    units = 10**decimals
    rows = np.arange(len(probabilities))
    exact = probabilities.astype(np.float64)
    exact *= units / exact.sum(axis=1, keepdims=True)
    # A whole number, up to float32 rounding, is that number.
    nearest = np.rint(exact)
    np.copyto(exact, nearest, where=np.abs(exact - nearest) <= 2e-7 * exact)
    whole = np.floor(exact)
    rivals = whole >= whole[rows, top][:, None]
    rivals[rows, top] = False
    left = units - whole.sum(axis=1)

    # Nothing to give, and a rival of as many units: the last of them gives one up.
    short = (left < 1) & rivals.any(axis=1)
    last = rivals.shape[1] - 1 - rivals[:, ::-1].argmax(axis=1)
    whole[rows[short], last[short]] -= 1
    left[short] += 1

    remainder = exact - whole - 2.0 * rivals
    remainder[rows, top] = -np.inf
    others = exact.shape[1] - 1 - rivals.sum(axis=1)
    to_top = np.minimum(left, np.where(left > 1 + others, 2, 1))
    whole[rows, top] += to_top
    order = np.argsort(-remainder, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(exact.shape[1])[None], axis=1)
    whole += rank < (left - to_top)[:, None]
    quantised: Float32 = (whole / units).astype(np.float32)
    return quantised

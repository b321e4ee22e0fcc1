"""Reverse Sigmoid, the perturbation of the paper (section 3, equation 2)."""

import numpy as np

from postprocess.arrays import Float64
from postprocess.pseudo_logits import Float32


def perturb(probabilities: Float32, pseudo_logits: Float32, beta: Float64, gamma: float) -> Float32:
    """Return ``y - r(y)``, the perturbed probabilities before they are normalised.

    ``r(y) = beta * (s(gamma * s^-1(y)) - 1/2)``, equation 2, is computed as
    ``beta / 2 * tanh(gamma * s^-1(y) / 2)``, the same number without the cancellation.

    Args:
        probabilities: y, shape (rows, K), float32, K >= 2.
        pseudo_logits: s^-1(y), same shape. Overwritten.
        beta: the magnitude, shape (rows,), > 0.
        gamma: the slope, > 0.

    Returns:
        shape (rows, K), float32. Only a class with y > 1/2 can be pushed below 0, and only
        where beta is larger than the accuracy constraint allows.
    """
    noise = pseudo_logits
    with np.errstate(over="ignore"):  # on its way to tanh, infinity is as good
        noise *= np.float32(gamma) / 2
    np.tanh(noise, out=noise)
    noise *= (beta / 2).astype(np.float32)[:, None]
    perturbed: Float32 = np.subtract(probabilities, noise, out=noise)
    return perturbed

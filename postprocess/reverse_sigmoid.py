"""Reverse Sigmoid, the perturbation of the paper (section 3, equation 2)."""

import numpy as np

from postprocess.pseudo_logits import Float32, Float64


def perturb(probabilities: Float32, pseudo_logits: Float32, beta: Float64, gamma: float) -> Float32:
    """Return the protected probabilities ``yhat = alpha * (y - r(y))``.

    ``r(y) = beta * (s(gamma * s^-1(y)) - 1/2)``, equation 2, is computed as
    ``beta / 2 * tanh(gamma * s^-1(y) / 2)``, the same number without the cancellation.
    ``alpha`` makes each row sum to 1.

    Args:
        probabilities: y, shape (rows, K), float32, K >= 2.
        pseudo_logits: s^-1(y), same shape. Overwritten.
        beta: the magnitude, shape (rows,), > 0.
        gamma: the slope, > 0.

    Returns:
        shape (rows, K), float32, every entry in [0, 1]. Only a class with y > 1/2 can be
        pushed below 0, and only where beta is larger than the accuracy constraint allows;
        it is clipped to 0, which the paper leaves open.
    """
    noise = pseudo_logits
    with np.errstate(over="ignore"):  # on its way to tanh, infinity is as good
        noise *= np.float32(gamma / 2)
    np.tanh(noise, out=noise)
    noise *= (beta / 2).astype(np.float32)[:, None]
    perturbed = np.subtract(probabilities, noise, out=noise)
    np.maximum(perturbed, 0, out=perturbed)
    perturbed /= perturbed.sum(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    return perturbed

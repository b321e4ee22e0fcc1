"""Reverse Sigmoid as a differentiable function: what an adversary puts behind a substitute."""

from typing import Any

from postprocess.parameters import Parameters

#: Probabilities are kept this far from 0 and 1, where the logit has no finite gradient.
EPSILON = 1e-6


def protect(y: Any, parameters: Parameters) -> Any:
    """Return equation 2 of probabilities, with the accuracy constraint, for any Keras backend.

    The same as ``postprocess`` computes, but for rows within ``EPSILON`` of certainty, and
    without its hardened modes.

    Args:
        y: shape (batch, K), rows sum to 1.
        parameters: beta, gamma, margin and preserve_top1 of a Reverse Sigmoid.
    """
    from keras import ops

    y = ops.clip(y, EPSILON, 1 - EPSILON)
    s = ops.sigmoid((parameters.gamma or 0.0) * (ops.log(y) - ops.log(1 - y)))
    beta = ops.full_like(y[:, :1], parameters.beta or 0.0)
    if parameters.preserve_top1:
        top_y, top_s = ops.max(y, axis=1, keepdims=True), ops.max(s, axis=1, keepdims=True)
        apart = top_s - s > EPSILON
        bounds = (top_y - y) / ops.where(apart, top_s - s, 1.0)
        cap = ops.min(ops.where(apart, bounds, 1e9), axis=1, keepdims=True)
        beta = ops.minimum(beta, (1 - parameters.margin) * cap)
    perturbed = ops.maximum(y - beta * (s - 0.5), 0)
    return perturbed / ops.sum(perturbed, axis=1, keepdims=True)

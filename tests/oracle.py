"""The paper's equations, derived again without any code of the project.

Float64 throughout, straight from section 3: every 1 - y is a sum of its own, every ratio of
the accuracy constraint is looked at. Slow and plain on purpose.
"""

import mpmath
import numpy as np
from scipy.special import expit, logsumexp


def log_odds(logits):
    """log y - log(1 - y) and y of softmax(logits), float64, shape (rows, K)."""
    logits = logits.astype(np.float64)
    log_total = logsumexp(logits, axis=1, keepdims=True)
    log_rest = np.empty_like(logits)
    for j in range(logits.shape[1]):
        log_rest[:, j] = logsumexp(np.delete(logits, j, axis=1), axis=1)
    return logits - log_rest, np.exp(logits - log_total)


def reverse_sigmoid(odds, y, *, beta, gamma, preserve_top1, margin=0.0):
    """Equation 2, the constraint and the normaliser, from what ``log_odds`` returns."""
    s = expit(gamma * odds)
    rows = np.arange(len(y))
    beta = np.full(len(y), float(beta))
    if preserve_top1:
        k = y.argmax(axis=1)
        dy, ds = y[rows, k][:, None] - y, s[rows, k][:, None] - s
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(dy > 0, dy / ds, np.inf)
        beta = np.minimum(beta, (1 - margin) * ratio.min(axis=1))
    z = np.maximum(y - beta[:, None] * (s - 0.5), 0)
    return z / z.sum(axis=1, keepdims=True)


def reverse_sigmoid_mp(logits, *, beta, gamma, margin=0.0, digits=400):
    """One row with the constraint on, in arithmetic so long that nothing cancels."""
    with mpmath.workdps(digits):
        e = [mpmath.exp(mpmath.mpf(float(g))) for g in logits]
        total = mpmath.fsum(e)
        y = [value / total for value in e]
        rest = [mpmath.fsum(e[:j] + e[j + 1 :]) / total for j in range(len(e))]
        s = [1 / (1 + (r / p) ** mpmath.mpf(gamma)) for p, r in zip(y, rest, strict=True)]
        k = max(range(len(e)), key=lambda j: logits[j])
        bounds = [(y[k] - y[j]) / (s[k] - s[j]) for j in range(len(e)) if y[j] < y[k]]
        scale = 1 - mpmath.mpf(margin)
        beta = min([mpmath.mpf(beta), *(scale * bound for bound in bounds)])
        z = [p - beta * (q - mpmath.mpf(1) / 2) for p, q in zip(y, s, strict=True)]
        return np.array([float(value / mpmath.fsum(z)) for value in z])


def protected(scores, *, kind, multi_label=False, **settings):
    """What a client must get for scores of shape (..., K), float64.

    K = 1, and each score of a multi-label classifier, stands for the pair (p, 1 - p).
    """
    scores = np.asarray(scores, np.float64)
    rows = scores.reshape(-1, scores.shape[-1])
    pairs = multi_label or rows.shape[1] == 1
    if pairs:
        yes = rows.reshape(-1, 1)
        no = np.zeros_like(yes) if kind == "logits" else 1 - yes
        rows = np.concatenate([yes, no], axis=1)
    if kind == "probabilities":
        with np.errstate(divide="ignore"):
            rows = np.log(rows)
    answer = reverse_sigmoid(*log_odds(rows), **settings)
    return (answer[:, :1] if pairs else answer).reshape(scores.shape)

"""The compiled kernel: logits of many kinds to run it on, and settings."""

import numpy as np

from postprocess import kernel
from postprocess.parameters import Parameters

#: Around every boundary of the kernel: four classes, sixteen lanes, wide rows and their ends.
CLASSES = [2, 3, 4, 5, 7, 10, 15, 16, 17, 31, 33, 100, 191, 192, 193, 207, 208, 1000]
ROWS = [1, 3, 4, 15, 16, 17, 37]


def parameters(**changes):
    return Parameters(**{"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "logits", **changes})


def run(batch, *, impossible=False, **changes):
    out = np.full_like(batch, np.nan)
    found = kernel.kernel_for(parameters(**changes), impossible=impossible)
    return out, found(batch, out)[1]


def softmax(logits):
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def draw(rng, rows, classes):
    """Logits of five kinds: easy, saturated, tied, one float32 step from a tie, flat."""
    logits = (rng.normal(size=(rows, classes)) * 10 ** rng.uniform(-3, 3)).astype(np.float32)
    kind = rng.integers(5)
    if kind == 1:
        logits = np.round(logits)
    if kind == 2:
        index = np.arange(rows)
        top = logits.argmax(axis=1)
        near = (top + rng.integers(1, classes, rows)) % classes
        logits[index, near] = np.nextafter(logits[index, top], np.float32(-np.inf))
    if kind == 3:
        logits = logits.astype(np.float16).astype(np.float32)
    if kind == 4:
        logits[:, 1:] = logits[:, :1]
    return logits


def draw_settings(rng):
    return {
        "beta": float(rng.choice([0.001, 0.1, 0.9, 1.5, 4])),
        "gamma": float(rng.choice([0.001, 0.05, 0.2, 0.4, 0.9, 1, 1.01, 2.5, 4])),
        "margin": float(rng.choice([0, 0.01, 0.2, 0.9])),
        "preserve_top1": bool(rng.integers(2)),
    }

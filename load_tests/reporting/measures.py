"""The five measures of section 4, between two models' answers to the same inputs, and what
an answer is still worth to an honest user.

All take scores of shape (n, K) and compute in float64; ``p`` and ``q`` hold probabilities.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.scores import Scores

#: Probabilities are clipped to at least this before a logarithm.
KL_EPSILON = 1e-12
#: Of the expected calibration error.
BINS = 15


def agreement(scores: Scores, reference: Scores) -> float:
    """Return the share of rows with the same top-1 class, 0 to 1."""
    return float(np.mean(scores.argmax(axis=1) == reference.argmax(axis=1)))


def accuracy(scores: Scores, labels: NDArray[np.integer[Any]]) -> float:
    """Return the share of rows whose top-1 class is the label, 0 to 1."""
    return float(np.mean(scores.argmax(axis=1) == labels))


def cosine(p: Scores, q: Scores) -> float:
    """Return the mean cosine similarity of the rows, 0 to 1."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    norms = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    return float(np.mean((p * q).sum(axis=1) / norms))


def mae(p: Scores, q: Scores) -> float:
    """Return the mean absolute difference per class, 0 to 2 / K."""
    return float(np.mean(np.abs(p.astype(np.float64) - q.astype(np.float64))))


def kl_nats(p: Scores, q: Scores) -> float:
    """Return the mean over rows of KL(p || q) in nats, both clipped to ``KL_EPSILON``.

    The paper gives neither direction nor unit; this project gives both directions.
    """
    p = np.maximum(p.astype(np.float64), KL_EPSILON)
    q = np.maximum(q.astype(np.float64), KL_EPSILON)
    return float(np.mean((p * np.log(p / q)).sum(axis=1)))


def between(scores: Scores, truth: Scores) -> dict[str, float]:
    """Return the measures of probabilities against the victim's that need no labels."""
    return {
        "agreement": agreement(scores, truth),
        "cosine": cosine(scores, truth),
        "mae": mae(scores, truth),
        "kl_nats_from_victim": kl_nats(truth, scores),
        "kl_nats_to_victim": kl_nats(scores, truth),
    }


def top5_overlap(p: Scores, q: Scores) -> float:
    """Return the mean share of the five highest classes that two models have in common, 0 to 1.

    Fewer than five where K is; 1 then says nothing.
    """
    count = min(5, p.shape[1])
    ours, theirs = (np.argsort(-each, axis=1, kind="stable")[:, :count] for each in (p, q))
    return float(np.mean((ours[:, :, None] == theirs[:, None, :]).any(axis=2)))


def brier(p: Scores, labels: NDArray[np.integer[Any]]) -> float:
    """Return the mean squared distance of the rows from the labels' one-hot rows, 0 to 2."""
    truth = np.eye(p.shape[1])[labels]
    return float(np.mean(np.square(p.astype(np.float64) - truth).sum(axis=1)))


def confidence(p: Scores) -> float:
    """Return the mean probability of the top-1 class, 1/K to 1."""
    return float(p.max(axis=1).mean(dtype=np.float64))


def calibration_error(p: Scores, labels: NDArray[np.integer[Any]]) -> float:
    """Return the expected calibration error of the top-1 class, 0 to 1.

    Rows are sorted into 15 bins of equal width by their highest probability; the error is the
    mean distance of that probability from the share of right answers, over bins, weighted by
    their rows (Guo et al., 2017).
    """
    confidence = p.max(axis=1).astype(np.float64)
    right = (p.argmax(axis=1) == labels).astype(np.float64)
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(which, right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(p))


def risk_coverage(p: Scores, labels: NDArray[np.integer[Any]]) -> float:
    """Return the area under the risk-coverage curve, 0 to 1: less is better.

    The mean, over all shares of rows that a user keeps, the most confident first, of the share of
    wrong answers among them (Geifman and El-Yaniv, 2017). Rows of one confidence come in any
    order, so that each counts as their mean.
    """
    confidence = p.max(axis=1).astype(np.float64)
    wrong = (p.argmax(axis=1) != labels).astype(np.float64)
    _, which = np.unique(-confidence, return_inverse=True)
    mean = np.bincount(which, wrong) / np.bincount(which)
    expected = np.cumsum(mean[np.sort(which)])
    return float(np.mean(expected / np.arange(1, len(p) + 1)))


def top5_accuracy(p: Scores, labels: NDArray[np.integer[Any]]) -> float:
    """Return how often the label is among the five highest classes, 0 to 1.

    Classes that tie share the places that are left, as a user who draws among them would get.
    """
    own = p[np.arange(len(p)), labels][:, None]
    above, level = (p > own).sum(axis=1), (p == own).sum(axis=1)
    return float(np.mean(np.clip((5 - above) / level, 0, 1)))

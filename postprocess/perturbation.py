"""How far the protected answers are from the victim's."""

from dataclasses import dataclass

import numpy as np

from postprocess.arrays import Float64
from postprocess.parameters import Parameters
from postprocess.scores import Scores


@dataclass(frozen=True)
class Perturbation:
    """The size of the perturbation of each row, float64, shape (rows,)."""

    l1: Float64  #: sum over the classes of |y - yhat|, 0 to 2
    kl_nats: Float64  #: KL(y || yhat) in nats
    top1_margin: Float64  #: the highest protected probability less the next, 0 to 1


def perturbation(scores: Scores, protected: Scores, parameters: Parameters) -> Perturbation:
    """Return the size of the perturbation of each row.

    Args:
        scores: the victim's, shape (rows, K), without bad rows.
        protected: what the defence made of them, same shape. For KL its zeros count as 1e-9.
        parameters: of the defence. With ``multi_label``, and for K = 1, each entry is a row
            (p, 1 - p) of its own.
    """
    y, yhat = scores.astype(np.float64), protected.astype(np.float64)
    if parameters.multi_label or y.shape[1] == 1:
        y, yhat = y.reshape(-1, 1), yhat.reshape(-1, 1)
        other = 1 - y if parameters.scores == "probabilities" else np.zeros_like(y)
        y, yhat = np.concatenate([y, other], axis=1), np.concatenate([yhat, 1 - yhat], axis=1)
    with np.errstate(under="ignore"):
        if parameters.scores == "logits":
            y = np.exp(y - y.max(axis=1, keepdims=True))
        y = np.maximum(y, 0)
        y /= y.sum(axis=1, keepdims=True)
        terms = y * np.log(np.maximum(y, 1e-300) / np.maximum(yhat, 1e-9))
    highest = np.partition(yhat, -2, axis=1)
    return Perturbation(
        l1=np.abs(y - yhat).sum(axis=1),
        kl_nats=np.maximum(terms.sum(axis=1), 0),
        top1_margin=highest[:, -1] - highest[:, -2],
    )

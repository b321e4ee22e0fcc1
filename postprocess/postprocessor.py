"""Scores in, protected probabilities out: the one door to the defence."""

import numpy as np
from numpy.typing import NDArray

from postprocess import pseudo_logits, reverse_sigmoid, top1
from postprocess.errors import InputError
from postprocess.kernel import kernel_for
from postprocess.parameters import Parameters
from postprocess.pseudo_logits import Float32

#: How far a row that claims to hold probabilities may be from summing to 1. Wide enough for
#: float16 softmax outputs over 1,000 classes, narrow enough to refuse logits.
PROBABILITY_SUM_TOLERANCE = 0.01


class Postprocessor:
    """The defence of one model: a function of a batch of scores, and nothing else."""

    def __init__(self, parameters: Parameters, *, native: bool = True) -> None:
        """Take the parameters; ``native=False`` keeps to NumPy even where the kernel is there."""
        self.parameters = parameters
        self.kernel = kernel_for(parameters) if native else None

    def bad_rows(self, scores: Float32) -> NDArray[np.bool_]:
        """Return which rows cannot be protected, shape (rows,), for scores (rows, K).

        A row is bad if it holds NaN or an infinity, or if the parameters say probabilities
        and it is none: an entry below 0, or a sum further than 0.01 from 1 (one sigmoid
        output, K = 1: an entry above 1).
        """
        good: NDArray[np.bool_] = np.isfinite(scores).all(axis=1)
        if self.parameters.scores == "probabilities":
            good &= (scores >= 0).all(axis=1)
            if scores.shape[1] == 1:
                good &= scores[:, 0] <= 1
            else:
                with np.errstate(over="ignore"):
                    total = scores.sum(axis=1)
                good &= np.abs(total - 1) <= PROBABILITY_SUM_TOLERANCE
        return np.logical_not(good)

    def __call__(self, scores: Float32) -> Float32:
        """Return the protected probabilities of a batch.

        Args:
            scores: shape (rows, K), float32: logits or probabilities, as the parameters say.
                K = 1 is one sigmoid output and stands for the pair (p, 1 - p).

        Returns:
            a new float32 array of the same shape, in [0, 1]. Rows sum to 1 (K >= 2). With
            ``preserve_top1`` every row's top class is the victim's: the first of its highest
            scores, or its side of 1/2 where K = 1.

        Raises:
            InputError: a row is bad (see ``bad_rows``); nothing is returned then.
        """
        if scores.ndim != 2 or scores.shape[1] == 0:
            raise InputError(f"scores: expected shape (rows, K) with K >= 1, got {scores.shape}")
        single = scores.shape[1] == 1
        if self.kernel is not None and not single:
            # The kernel walks over memory itself; a slice or a transposed array is copied.
            rows = scores if scores.flags.carray else np.require(scores, np.float32, ["C", "A"])
            out = np.empty(rows.shape, np.float32)
            if self.kernel(rows, out) < 0:
                raise self._refusal()
            return out
        if self.bad_rows(scores).any():
            raise self._refusal()
        logits = self._pair(scores) if single else self._logits(scores)
        parameters = self.parameters
        batch = pseudo_logits.from_logits(logits)
        beta = np.full(len(logits), parameters.beta)
        if parameters.preserve_top1:
            cap = top1.largest_beta(batch, logits, parameters.gamma)
            beta = np.minimum(beta, (1 - parameters.margin) * cap)
        perturbed = reverse_sigmoid.perturb(
            batch.probabilities, batch.pseudo_logits, beta, parameters.gamma
        )
        if single:
            probability = perturbed[:, 0].copy()
            if parameters.preserve_top1:
                top1.keep_side(probability, batch)
            return probability[:, None]
        if parameters.preserve_top1:
            top1.keep_top(perturbed, batch)
        return perturbed

    def _refusal(self) -> InputError:
        return InputError(f"scores: expected finite {self.parameters.scores} in every row")

    def _logits(self, scores: Float32) -> Float32:
        return scores if self.parameters.scores == "logits" else pseudo_logits.log_of(scores)

    def _pair(self, scores: Float32) -> Float32:
        """Logits of (p, 1 - p), shape (rows, 2), for a single sigmoid output."""
        if self.parameters.scores == "logits":
            return np.concatenate([scores, np.zeros_like(scores)], axis=1)
        return pseudo_logits.log_of(np.concatenate([scores, 1 - scores], axis=1))

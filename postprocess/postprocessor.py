"""Scores in, protected probabilities out: the one door to the defence."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from postprocess import (
    baselines,
    calibrated,
    decoy,
    keyed,
    pseudo_logits,
    quantise,
    reverse_sigmoid,
    top1,
)
from postprocess.calibration import Calibration
from postprocess.defences import DEFENCES
from postprocess.errors import InputError
from postprocess.kernel import Kernel, kernel_for
from postprocess.parameters import Parameters
from postprocess.pseudo_logits import Float32, PseudoLogits
from postprocess.scores import (
    BadRowsError,
    Scores,
    bad_rows,
    looks_like_probabilities,
    to_logits,
    to_pair,
)

#: Scores that are protected at once, where the kernel does not do it.
SCORES_AT_ONCE = 2**14


class ProtectedRows(NamedTuple):
    """What the defence made of a batch."""

    probabilities: Scores  #: shape and type of the scores it was given
    capped_rows: int  #: in how many rows the accuracy constraint had a say
    lookalikes: int = 0  #: of logits: how many rows look like probabilities


class Postprocessor:
    """The defence of one model: a function of a batch of scores, and nothing else."""

    def __init__(
        self,
        parameters: Parameters,
        *,
        key: bytes = b"",
        table: Calibration | None = None,
        native: bool = True,
    ) -> None:
        """Take what the defence needs to know.

        Args:
            parameters: of the defence.
            key: the secret that they name in ``key_file``.
            table: of calibrated answers, that they name in ``calibration``.
            native: use the compiled kernel where it is there and does what the parameters ask.

        Raises:
            InputError: ``key_file`` is given and the key is empty, or ``calibration`` and no table.
        """
        if parameters.calibration is not None and table is None:
            raise InputError("parameter calibration: expected its table, got none")
        if parameters.key_file is not None and not key:
            raise InputError("parameter key_file: expected its key, got none")
        self.parameters = parameters
        self._key, self._table = key, table
        self._rng = np.random.default_rng(parameters.seed)
        self.kernel = kernel_for(parameters) if native else None
        #: The same for what ``to_logits`` makes of float16 and float64.
        self._kernel_of_logits = (
            kernel_for(replace(parameters, scores="logits"), impossible=True) if native else None
        )

    def __call__(self, scores: Scores) -> Scores:
        """Return the protected probabilities of a batch; see ``protect``."""
        return self.protect(scores).probabilities

    def protect(self, scores: Scores) -> ProtectedRows:
        """Return the protected probabilities of a batch, and what they took.

        Args:
            scores: shape (rows, K), float16, float32 or float64: logits or probabilities, as
                the parameters say. K = 1 is one sigmoid output and stands for (p, 1 - p), and
                so does every entry with ``multi_label``.

        Returns:
            a new array of the same shape and type, in [0, 1]. Rows sum to 1, unless K = 1 or
            ``multi_label``. With ``preserve_top1`` every row's top class is the victim's: the
            first of its highest scores, or each entry's side of 1/2.

        Raises:
            InputError: not a batch of rows.
            BadRowsError: a row holds no scores of that kind; nothing is returned then.
        """
        if scores.ndim != 2 or scores.shape[1] == 0 or scores.dtype.kind != "f":
            raise InputError(
                f"scores: expected floats of shape (rows, K) with K >= 1, "
                f"got {scores.dtype} of shape {scores.shape}"
            )
        single = scores.shape[1] == 1 or self.parameters.multi_label
        if self.kernel is not None and scores.dtype == np.float32 and not single:
            out, capped_rows, lookalikes = _run(self.kernel, scores)
            if capped_rows >= 0:
                return ProtectedRows(out, capped_rows, lookalikes)
        probabilities = self.parameters.scores == "probabilities"
        bad = bad_rows(scores, probabilities=probabilities, single=single)
        if bad.any():
            raise BadRowsError(
                f"expected finite {self.parameters.scores}, row {int(bad.argmax())} holds none", bad
            )
        # A few rows at a time, so that what is in between fits the cache, and memory is flat.
        at_once = SCORES_AT_ONCE // 4 if single else SCORES_AT_ONCE  # each a row of two
        some = max(1, at_once // scores.shape[1])
        protect = self._protect_pairs if single else self._protect_rows
        if self._table is not None:
            protect = partial(self._calibrate, self._table)
        answer, capped_rows = np.empty(scores.shape, scores.dtype), 0
        for start in range(0, len(scores), some):
            part = protect(scores[start : start + some], probabilities=probabilities)
            answer[start : start + some] = part.probabilities
            capped_rows += part.capped_rows
        alike = () if probabilities else looks_like_probabilities(scores, single=single)
        return ProtectedRows(answer, capped_rows, int(np.count_nonzero(alike)))

    def _protect_rows(self, scores: Scores, *, probabilities: bool) -> ProtectedRows:
        """Protect rows of K >= 2 classes, none of them bad."""
        logits = to_logits(scores, probabilities=probabilities)
        if self._kernel_of_logits is not None:
            perturbed, capped_rows, _ = _run(self._kernel_of_logits, logits)
        else:
            batch = pseudo_logits.from_logits(logits)
            perturbed, capped = self._perturb(batch)
            capped_rows = int(np.count_nonzero(capped))
        answer = perturbed.astype(scores.dtype, copy=False)
        if self.parameters.preserve_top1:
            top1.keep_top(answer, logits.argmax(axis=1))
        return ProtectedRows(answer, capped_rows)

    def _protect_pairs(self, scores: Scores, *, probabilities: bool) -> ProtectedRows:
        """Protect every entry as a yes-or-no classifier of its own."""
        batch = pseudo_logits.from_logits(
            to_pair(scores.reshape(-1, 1), probabilities=probabilities)
        )
        perturbed, capped = self._perturb(batch)
        answer = perturbed[:, 0].astype(scores.dtype)
        if self.parameters.preserve_top1:
            top1.keep_side(answer, batch)
        capped_rows = np.count_nonzero(capped.reshape(scores.shape).any(axis=1))
        return ProtectedRows(answer.reshape(scores.shape), int(capped_rows))

    def _calibrate(
        self, table: Calibration, scores: Scores, *, probabilities: bool
    ) -> ProtectedRows:
        """Answer by the table in the place of either."""
        answer = calibrated.sides if table.single else calibrated.rows
        return ProtectedRows(answer(scores, table, probabilities=probabilities), 0)

    def _perturb(self, batch: PseudoLogits) -> tuple[Float32, NDArray[np.bool_]]:
        """Return rows that sum to 1, shape (rows, K >= 2), and which were constrained."""
        parameters = self.parameters
        if parameters.defense == "reverse_sigmoid":
            perturbed, capped = self._reverse_sigmoid(batch)
        else:
            perturbed = batch.probabilities.copy()
            noise = DEFENCES[parameters.defense].noise
            if noise is not None:
                perturbed += noise(batch.probabilities, parameters, self._rng)
            capped = np.zeros(len(perturbed), np.bool_)
            if parameters.preserve_top1:
                capped = top1.lift_top(perturbed, batch, margin=parameters.margin)
        perturbed = baselines.normalise(perturbed)
        if parameters.decoy is not None:
            top1.keep_top(perturbed, batch.top)
            perturbed = decoy.replace(perturbed, batch.top, levels=parameters.decoy, key=self._key)
        if parameters.decimals is not None:
            top1.keep_top(perturbed, batch.top)
            perturbed = quantise.quantise(perturbed, batch.top, decimals=parameters.decimals)
        return perturbed, capped

    def _reverse_sigmoid(self, batch: PseudoLogits) -> tuple[Float32, NDArray[np.bool_]]:
        parameters = self.parameters
        gamma: float | Float32 = float(parameters.gamma or 0)
        beta = np.full(len(batch.top), float(parameters.beta or 0))
        if self._key:
            of_beta, of_gamma = keyed.jitter(
                batch.probabilities, batch.top, key=self._key, share=parameters.jitter
            )
            beta *= of_beta
        capped = np.zeros(len(beta), np.bool_)
        if parameters.preserve_top1:
            cap = (1 - parameters.margin) * top1.largest_beta(batch, parameters.gamma or 0.0)
            capped = cap < beta
            np.minimum(beta, cap, out=beta)
        if self._key:
            gamma = gamma * of_gamma
        perturbed = reverse_sigmoid.perturb(batch.probabilities, batch.pseudo_logits, beta, gamma)
        if self._key and parameters.preserve_top1:
            capped |= top1.lift_top(perturbed, batch, margin=parameters.margin)
        return perturbed, capped


def _run(kernel: Kernel, scores: Float32) -> tuple[Float32, int, int]:
    """Return the kernel's answer and what it counted; below 0 there is none, see ``Kernel``."""
    # The kernel walks over memory itself; a slice or a transposed array is copied.
    rows = scores if scores.flags.carray else np.require(scores, np.float32, ["C", "A"])
    out = np.empty(rows.shape, np.float32)
    return out, *kernel(rows, out)

"""Scores in, protected probabilities out: the one door to the defence."""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from postprocess import (
    baselines,
    calibrated,
    decoy,
    kernel,
    pseudo_logits,
    quantise,
    reverse_sigmoid,
    top1,
)
from postprocess.arrays import Array
from postprocess.calibration import Calibration
from postprocess.defences import DEFENCES
from postprocess.errors import InputError
from postprocess.kernel import FLOAT32, Codebook, kernel_for, types_for
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
#: Numbers of classes whose answers are kept ready, where a config says any number.
KEPT = 8


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
        table: Calibration | None = None,
        native: bool = True,
    ) -> None:
        """Take what the defence needs to know.

        Args:
            parameters: of the defence.
            table: of calibrated answers, that they name in ``calibration``.
            native: use the compiled kernel where it is there and does what the parameters ask.

        Raises:
            InputError: ``calibration`` is given and no table.
        """
        if parameters.calibration is not None and table is None:
            raise InputError("parameter calibration: expected its table, got none")
        self.parameters = parameters
        self._table, self._native = table, native
        self._by_top = parameters.defense in ("calibrated", "decoy")
        self._multi_label, self._decimals = parameters.multi_label, parameters.decimals
        self._rng = np.random.default_rng(parameters.seed)
        #: For rows of classes, and for scores that are each a yes or no.
        self.kernel = kernel_for(parameters) if native else None
        self._sides = kernel_for(parameters, single=True) if native else None
        #: The same for what ``to_logits`` makes of float64.
        of_logits = replace(parameters, scores="logits")
        self._kernel_of_logits = kernel_for(of_logits, impossible=True) if native else None
        self._sides_of_logits = kernel_for(of_logits, single=True) if native else None
        self._types = types_for(parameters) if native else None
        self._decoys: dict[tuple[int, np.dtype[Any]], Array] = {}
        self._books: dict[tuple[int, np.dtype[Any], bool], Codebook | None] = {}

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
        single = self._multi_label or scores.shape[1] == 1
        protected = self._in_kernel(scores, single=single)
        if protected is not None:
            return protected
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
        if self._by_top:
            protect = partial(self._look_up, single=single)
        answer, capped_rows = np.empty(scores.shape, scores.dtype), 0
        for start in range(0, len(scores), some):
            part = protect(scores[start : start + some], probabilities=probabilities)
            answer[start : start + some] = part.probabilities
            capped_rows += part.capped_rows
        alike = () if probabilities else looks_like_probabilities(scores, single=single)
        return ProtectedRows(answer, capped_rows, int(np.count_nonzero(alike)))

    def _in_kernel(self, scores: Scores, *, single: bool) -> ProtectedRows | None:
        """Protect in C; None where there is no kernel for it, or where it has found a bad row."""
        kernel, types, rows = self._sides if single else self.kernel, self._types, scores
        if types is None or (kernel is None and (single or not self._by_top)):
            return None
        own_type, of_logits = scores.dtype, None
        if own_type == FLOAT32:
            pass
        elif own_type == np.float64:
            converted = types.to_logits(scores, single=single)
            if converted is None:
                return None
            rows, of_logits = converted
            kernel = self._sides_of_logits if single else self._kernel_of_logits
        else:
            rows = types.widen(scores) if own_type == np.float16 else scores.astype(FLOAT32)
        if not rows.flags.carray:  # the kernel walks over memory itself
            rows = np.require(rows, FLOAT32, ["C", "A"])
        if kernel is None:
            protected = self._by_book(rows, scores)
            if protected is None or of_logits is None:
                return protected
            return protected._replace(lookalikes=of_logits)
        answer, capped_rows, lookalikes = kernel(rows)
        if capped_rows < 0:
            return None
        if self._decimals is not None:
            answer = _in_units(answer, decimals=self._decimals, single=single)
        if own_type != FLOAT32:
            narrow = own_type == np.float16
            answer = types.narrow(answer, single=single) if narrow else answer.astype(own_type)
            lookalikes = lookalikes if of_logits is None else of_logits
        return ProtectedRows(answer, capped_rows, lookalikes)

    def _book(
        self, classes: int, data_type: np.dtype[Any], *, probabilities: bool
    ) -> Codebook | None:
        """Return the answers of that many classes and that type in C, if it has them."""
        name = classes, data_type, probabilities
        if name not in self._books:
            if len(self._books) >= KEPT:
                self._books.clear()
            scores = "probabilities" if probabilities else "logits"
            parameters, book = replace(self.parameters, scores=scores), None
            if not self._native:
                pass
            elif self._table is None:
                book = kernel.decoy_for(parameters, self._decoy(classes, data_type))
            elif self._table.classes == classes:
                book = kernel.calibrated_for(parameters, self._table, data_type)
            self._books[name] = book
        return self._books[name]

    def _decoy(self, classes: int, data_type: np.dtype[Any]) -> Array:
        name = classes, data_type
        if name not in self._decoys:
            if len(self._decoys) >= KEPT:
                self._decoys.clear()
            seed = self.parameters.seed or 0
            self._decoys[name] = decoy.twice(classes, seed=seed, data_type=data_type)
        return self._decoys[name]

    def _by_book(self, rows: Float32, scores: Scores) -> ProtectedRows | None:
        """Answer by the top class and its level; None where there is a bad row, or no book."""
        probabilities = self.parameters.scores == "probabilities"
        of_them = probabilities and scores.dtype != np.float64
        book = self._book(scores.shape[1], scores.dtype, probabilities=of_them)
        if book is None:
            return None
        answer, left, lookalikes, unsure = book(rows)
        if left < 0:
            return None
        if left and self._table is not None:
            some = scores[unsure]
            answer[unsure] = calibrated.rows(some, self._table, probabilities=probabilities)
        return ProtectedRows(answer, 0, lookalikes)

    def _protect_rows(self, scores: Scores, *, probabilities: bool) -> ProtectedRows:
        """Protect rows of K >= 2 classes, none of them bad."""
        logits = to_logits(scores, probabilities=probabilities)
        perturbed, capped = self._perturb(pseudo_logits.from_logits(logits))
        answer = perturbed.astype(scores.dtype, copy=False)
        if self.parameters.preserve_top1:
            top1.keep_top(answer, logits.argmax(axis=1))
        return ProtectedRows(answer, int(np.count_nonzero(capped)))

    def _protect_pairs(self, scores: Scores, *, probabilities: bool) -> ProtectedRows:
        """Protect every entry as a yes-or-no classifier of its own."""
        pair = to_pair(scores.reshape(-1, 1), probabilities=probabilities)
        batch = pseudo_logits.from_logits(pair)
        perturbed, capped = self._perturb(batch)
        answer = perturbed[:, 0].astype(scores.dtype)
        if self.parameters.preserve_top1:
            top1.keep_side(answer, batch)
        capped_rows = np.count_nonzero(capped.reshape(scores.shape).any(axis=1))
        return ProtectedRows(answer.reshape(scores.shape), int(capped_rows))

    def _look_up(self, scores: Scores, *, probabilities: bool, single: bool) -> ProtectedRows:
        """Answer by top class and level, or side and level, in the place of either."""
        table = self._table
        if single:
            answer = decoy.sides(scores, probabilities=probabilities) if table is None else (
                calibrated.sides(scores, table, probabilities=probabilities))  # fmt: skip
            return ProtectedRows(answer, 0)
        if table is None:
            return ProtectedRows(decoy.rows(scores, self._decoy(scores.shape[1], scores.dtype)), 0)
        return ProtectedRows(calibrated.rows(scores, table, probabilities=probabilities), 0)

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
        if parameters.decimals is not None:
            top1.keep_top(perturbed, batch.top)
            perturbed = quantise.quantise(perturbed, batch.top, decimals=parameters.decimals)
        return perturbed, capped

    def _reverse_sigmoid(self, batch: PseudoLogits) -> tuple[Float32, NDArray[np.bool_]]:
        gamma = self.parameters.gamma or 0.0
        beta = np.full(len(batch.top), float(self.parameters.beta or 0))
        capped = np.zeros(len(beta), np.bool_)
        if self.parameters.preserve_top1:
            cap = (1 - self.parameters.margin) * top1.largest_beta(batch, gamma)
            capped = cap < beta
            np.minimum(beta, cap, out=beta)
        perturbed = reverse_sigmoid.perturb(batch.probabilities, batch.pseudo_logits, beta, gamma)
        return perturbed, capped


def _in_units(rows: Float32, *, decimals: int, single: bool) -> Float32:
    """Return the kernel's rows, or yes or no each, with so many decimals."""
    if not single:
        kernel.quantise(rows, decimals=decimals)
        return rows
    pairs = np.stack([rows, 1 - rows], axis=-1).reshape(-1, 2)
    kernel.quantise(pairs, decimals=decimals)
    answer: Float32 = pairs[:, 0].reshape(rows.shape)
    return answer

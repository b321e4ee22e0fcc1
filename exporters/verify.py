"""The written models against the original graph: they must give its answers, protected.

The defence is run as Triton would run it. What comes out is looked at by other means: NumPy's
argmax along the axis that was found to hold the classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.fusing.score_nodes import NO_ANSWER
from exporters.graph.onnx_run import OnnxSession
from exporters.reading.classifier import Classifier, Head
from exporters.reading.evidence import as_rows
from exporters.reading.score_kind import ScoreKind
from exporters.reading.score_output import top
from exporters.repository import model_repository
from postprocess.arrays import Array, Float64
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import bad_rows

#: How far the activation of the cut logits may be from the original probabilities.
CUT_TOLERANCE = {"TYPE_FP16": 1e-2, "TYPE_FP32": 1e-5, "TYPE_FP64": 1e-5}
#: How far from 1 a protected row may sum: each of its scores is rounded to the type.
SUM_TOLERANCE = {"TYPE_FP16": 1e-2, "TYPE_FP32": 1e-3, "TYPE_FP64": 1e-3}
#: How far a fused model's answer may be from the defence's. The rounding of the scores before
#: them is part of it: onnxruntime may fuse other operators in the longer graph.
FUSED_TOLERANCE = {"TYPE_FP16": 2e-2, "TYPE_FP32": 1e-4, "TYPE_FP64": 1e-5}


class CutError(InputError):
    """The cut graph's logits are not as good as the original's probabilities."""


@dataclass(frozen=True)
class Verified:
    """What was seen while verifying."""

    rows: int  #: rows of finite scores that were compared
    refused: int  #: rows that the defence takes for no probabilities, beside these
    cut_difference: float  #: largest difference of a probability that the cut makes


def verify(
    repository: Path, name: str, classifier: Classifier, head: Head, parameters: Parameters
) -> Verified:
    """Return what was compared, once written victim and defence give the original's answers.

    Raises:
        CutError: the logits are not those of the original's probabilities.
        InputError: an answer is not finite, does not sum to 1, or has another top class.
    """
    scores, data_type, what = head.value.name, head.value.data_type, head.scores
    evidence, axis = head.evidence, head.axis
    runner = OnnxSession(model_repository.onnx_path(repository, name))
    postprocessor = Postprocessor(parameters)
    compared, refused, largest = 0, 0, 0.0
    feeds = classifier.source.feeds(evidence.rows_at_once)
    for feed, original in zip(feeds, evidence.scores, strict=False):
        tensor = runner(feed, [scores])[scores]
        written = as_rows(tensor, axis)
        finite = np.isfinite(original).all(axis=1)
        if not finite.any():
            continue
        largest = max(largest, _difference(original[finite], written[finite], data_type, what))
        answer = as_rows(defended(tensor, postprocessor, flat=axis is None), axis)
        good = finite & ~np.isnan(answer).all(axis=1)
        refused += int((finite & ~good).sum())
        refuse_other_answers(original[good], written[good], answer[good], data_type, what)
        compared += int(good.sum())
    if not compared:
        raise InputError(f"verification: the defence takes no row of scores for {what.kind}")
    return Verified(compared, refused, largest)


def defended(scores: Array, postprocessor: Postprocessor, *, flat: bool) -> Array:
    """Return what the step makes of a tensor of scores: its shape, rows that it refuses NaN.

    A ``flat`` one has only a batch, to which Triton adds an axis of one class.
    """
    wide = scores.reshape(-1, 1) if flat else scores
    axis = postprocessor.parameters.class_axis
    moved = np.moveaxis(wide, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    bad = bad_rows(
        rows,
        probabilities=postprocessor.parameters.scores == "probabilities",
        single=postprocessor.parameters.multi_label or rows.shape[1] == 1,
    )
    answer = np.full(rows.shape, np.nan, rows.dtype)
    answer[~bad] = postprocessor(rows[~bad])
    result: Array = np.moveaxis(answer.reshape(moved.shape), -1, axis).reshape(scores.shape)
    return result


def verify_fused(
    repository: Path, name: str, classifier: Classifier, head: Head, parameters: Parameters
) -> None:
    """Refuse a fused model that answers other than the defence does on the victim's scores.

    Raises:
        InputError: an answer differs, or a row that the defence refuses gets one.
    """
    output, data_type, what = head.value.name, head.value.data_type, head.scores
    evidence, axis = head.evidence, head.axis
    postprocessor = Postprocessor(parameters)
    victim = OnnxSession(model_repository.onnx_path(repository, name))
    fused = OnnxSession(model_repository.fused_onnx_path(repository, name))
    feeds = classifier.source.feeds(evidence.rows_at_once)
    for feed, original in zip(feeds, evidence.scores, strict=False):
        scores = victim(feed, [output])[output]
        answer = as_rows(fused(feed, [output])[output], axis)
        wanted = as_rows(defended(scores, postprocessor, flat=axis is None), axis)
        bad = np.isnan(wanted).all(axis=1)
        off = np.abs(answer[~bad].astype(np.float64) - wanted[~bad]).max(initial=0.0)
        refused = (answer[bad] == NO_ANSWER).any(axis=1)
        if not off <= FUSED_TOLERANCE[data_type] or not refused.all():
            raise InputError(
                f"verification: the fused model's answers are off by {off:.1g}; give --layout "
                "ensemble, and please report it"
            )
        good = ~bad & np.isfinite(original).all(axis=1)
        written = as_rows(scores, axis)
        # Within the longer graph onnxruntime need not round to float16, and then ties are none.
        ties = data_type != "TYPE_FP16"
        refuse_other_answers(
            original[good], written[good], answer[good], data_type, what, ties=ties
        )


def activation(logits: Float64, op: str) -> Float64:
    """Return Softmax or Sigmoid of logits, shape (rows, K), stable in float64."""
    if op == "Sigmoid":
        result: Float64 = np.exp(-np.logaddexp(0, -logits))
        return result
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    result = weights / weights.sum(axis=1, keepdims=True)
    return result


def _difference(before: Array, after: Array, data_type: str, what: ScoreKind) -> float:
    if before.shape != after.shape or not np.isfinite(after).all():
        raise CutError("the written classifier does not give finite scores where the original does")
    was, now = before.astype(np.float64), after.astype(np.float64)
    if what.cut is None:
        allowed = CUT_TOLERANCE[data_type] * (1 + np.abs(was))
        if not (np.abs(now - was) <= allowed).all():
            raise InputError("the written classifier does not give the original's scores")
        return 0.0
    difference = float(np.abs(activation(now, what.cut.op) - was).max())
    if difference > CUT_TOLERANCE[data_type]:
        raise CutError(
            f"the graph without its {what.cut.op} gives probabilities that differ by "
            f"{difference:.1g}, at most {CUT_TOLERANCE[data_type]:g} is allowed"
        )
    return difference


def refuse_other_answers(
    original: Array,
    written: Array,
    protected: Array,
    data_type: str,
    what: ScoreKind,
    *,
    ties: bool = True,
) -> None:
    """Refuse protected rows with another top class than the original's, each of shape (rows, K).

    Where the written graph gives the original's very scores, ``ties`` count too: they are broken
    as argmax breaks them. Elsewhere those are left out that rounding decides.

    Raises:
        CutError: the logits that are served have another top class than the original's scores.
        InputError: the protected rows do, are not finite, or do not sum to 1.
    """
    sides = what.multi_label or original.shape[1] == 1
    if not np.isfinite(protected).all():
        raise InputError("verification: a protected answer is not finite")
    total = protected.sum(axis=1, dtype=np.float64)
    if not sides and (np.abs(total - 1) > SUM_TOLERANCE[data_type]).any():
        raise InputError("verification: a protected answer does not sum to 1")
    before = original.astype(np.float64)
    kind = "probabilities" if what.cut else what.kind
    wanted, clear = top(before, data_type, kind=kind, sides=sides)
    got, _ = top(protected.astype(np.float64), data_type, kind="probabilities", sides=sides)
    same = (original == written).all(axis=1)
    if sides:
        middle = 0.0 if kind == "logits" else 0.5
        clear |= same[:, None] & (before != middle)
    else:
        two = np.partition(before, -2, axis=1)[:, -2:]
        untied = two[:, 1] > two[:, 0]
        if what.cut is None:
            clear |= same if ties else same & untied
        elif data_type == "TYPE_FP16":
            clear |= untied
    wrong = int((wanted != got)[clear].sum())
    if wrong and what.cut:  # float16 logits may tie where the probabilities just do not
        raise CutError(
            f"{wrong} of {clear.sum()} answers get another top class from the logits; leave "
            "--scores out"
        )
    if wrong:
        raise InputError(
            f"verification: {wrong} of {clear.sum()} protected answers have another top class "
            "than the original's; this is a fault of triton-reverse-sigmoid, please report it"
        )

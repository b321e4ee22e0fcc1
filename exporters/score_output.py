"""Which output of a graph holds the scores, what they are, and which labels follow from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import onnx_graph
from exporters.onnx_graph import Ending, Value
from postprocess.errors import InputError
from postprocess.scores import PROBABILITY_SUM_TOLERANCE

Array = NDArray[Any]
Float64 = NDArray[np.float64]

#: What exporters and people call the tensor of class scores.
NAMES = (
    "scores", "score", "probabilities", "probability", "probs", "prob", "logits", "logit",
    "output_probability", "predictions", "softmax",
)  # fmt: skip
#: How far outside [0, 1] a probability may be: onnxruntime's own Sigmoid gives 1.0000001.
ROUNDING = 1e-6
#: Top scores closer than this share of the top, or of FLOOR if that is more, are a tie whose
#: winner rounding decides: onnxruntime's own Sigmoid is off by 1e-8 where it is nearly 0.
FLOOR = 1e-2
TIE = {"TYPE_FP16": 1e-2, "TYPE_FP32": 1e-5, "TYPE_FP64": 1e-5}


@dataclass(frozen=True)
class Scores:
    """What a tensor of scores is, and what is done with it."""

    kind: str  #: "logits" or "probabilities", as the defence gets them
    multi_label: bool  #: each score is a yes or no of its own
    cut: Ending | None  #: the activation that is taken off


def find(model: Any, values: list[Value], results: dict[str, Array], wanted: str) -> Value:
    """Return the output that holds the scores.

    Args:
        model: the graph.
        values: its outputs.
        results: what one call gave, by output name.
        wanted: the name that was asked for, "" to find it.

    Raises:
        InputError: there is no such output, or several could be meant.
    """
    names = [value.name for value in values]
    if wanted:
        if wanted not in names:
            raise InputError(f"--output {wanted}: no such output; there are {', '.join(names)}")
        value = values[names.index(wanted)]
        _refuse_map(value)
        if value.data_type not in onnx_graph.FLOATS or results[wanted].ndim == 0:
            raise InputError(
                f"--output {wanted}: expected scores of FLOAT16, FLOAT or DOUBLE and at least one "
                f"dimension, got {value.kind} {results.get(wanted, np.empty(0)).shape}"
            )
        return value
    floats = [
        value
        for value in values
        if value.data_type in onnx_graph.FLOATS and results[value.name].ndim > 0
    ]
    if not floats:
        for value in values:
            _refuse_map(value)
        kinds = ", ".join(f"{value.name} ({value.kind})" for value in values)
        raise InputError(f"no output holds scores of FLOAT16, FLOAT or DOUBLE; there are {kinds}")
    ends = [value for value in floats if _ends(model, value, results)]
    named = [value for value in floats if value.name.lower().partition(":")[0] in NAMES]
    for candidates in (floats, ends, named):
        if len(candidates) == 1:
            return candidates[0]
    raise InputError(
        f"several outputs could be the scores: {', '.join(value.name for value in floats)}; "
        "name one with --output"
    )


def _refuse_map(value: Value) -> None:
    if value.kind in ("sequence", "map"):
        raise InputError(
            f"output {value.name}: a {value.kind} of maps from scikit-learn's converter (ZipMap), "
            "which Triton cannot serve; convert without it: convert_sklearn(model, ..., "
            'options={id(model): {"zipmap": False}}), or to_onnx with the same options'
        )


def _ends(model: Any, value: Value, results: dict[str, Array]) -> bool:
    try:
        return onnx_graph.ending(model, value.name, rank=results[value.name].ndim) is not None
    except InputError:  # a Softmax over another axis: attention, not scores
        return False


def understand(
    rows: Float64,
    end: Ending | None,
    *,
    rank: int,
    asked: str,
    multi_label: bool | None,
) -> tuple[Scores, list[str]]:
    """Return what the scores are, and warnings where that does not look like what was asked.

    Args:
        rows: finite scores of the graph on many inputs, shape (rows, K).
        end: the activation that the graph ends in, if it does.
        rank: of the tensor of scores.
        asked: "logits" or "probabilities", "" to find out.
        multi_label: as asked, None to find out.

    Raises:
        InputError: what was asked contradicts what the graph gives, or both are possible.
    """
    single = rows.shape[1] == 1
    if multi_label and end is not None and end.op == "Softmax":
        raise InputError(
            "--multi-label: the graph ends in a Softmax, so its classes exclude each other"
        )
    if single and end is not None and end.op == "Softmax":
        raise InputError("a Softmax over one class is always 1")
    found = end is not None and end.op == "Sigmoid"
    multi = not single and (found if multi_label is None else multi_label)
    within = bool(((rows >= -ROUNDING) & (rows <= 1 + ROUNDING)).all())
    sums = within and bool((np.abs(rows.sum(axis=1) - 1) <= PROBABILITY_SUM_TOLERANCE).all())
    shown = within if single or multi else sums
    warnings = []
    if asked == "probabilities" and not shown:
        said = "rows do not sum to 1" if within else "scores lie outside [0, 1]"
        raise InputError(f"--scores probabilities: on the input that was tried, {said}")
    if end is not None and asked != "probabilities":
        if found and not single and not multi:
            warnings.append(
                "the graph ends in a Sigmoid for each class; with --no-multi-label the defence "
                "takes their logits for one choice among all classes"
            )
        return Scores("logits", multi, end), warnings
    if asked == "logits" and within and (single or sums) and not multi:
        warnings.append("--scores logits: on the input that was tried they look like probabilities")
    if not asked and within and not shown:
        raise InputError(
            "the scores lie in [0, 1] and rows do not sum to 1: give --multi-label if each is a "
            "yes or no of its own, --scores logits if they are none, or real rows with --sample"
        )
    if not asked and end is None and not shown and rank > 2:
        warnings.append(
            f"the last of the scores' {rank} dimensions, of size {rows.shape[1]}, is taken for the "
            "classes"
        )
    if not asked and single and not shown:
        warnings.append("the one score of a row is taken for the logit of a yes")
    kind = asked or ("probabilities" if shown else "logits")
    return Scores(kind, multi, None), warnings


def top(rows: Float64, data_type: str, *, kind: str, sides: bool) -> tuple[Array, Array]:
    """Return each row's answer, and where it is not a tie that rounding decides.

    Args:
        rows: finite scores, shape (rows, K).
        data_type: of the scores, before they became float64.
        kind: "logits" or "probabilities".
        sides: K = 1 or multi-label: the answer is each score's side of a half.

    Returns:
        the answer, int, shape (rows,), or (rows, K) with ``sides``; and a mask of its shape.
    """
    tie = TIE[data_type]
    if sides:
        middle = 0.0 if kind == "logits" else 0.5
        return (rows > middle).astype(int), np.abs(rows - middle) > tie
    best = rows.argmax(axis=1)
    if rows.shape[1] == 1:
        return best, np.ones(len(rows), bool)
    two = np.partition(rows, -2, axis=1)[:, -2:]
    return best, two[:, 1] - two[:, 0] > tie * np.maximum(np.abs(two).max(axis=1), FLOOR)


def follows(label: Array, answer: Array, clear: Array) -> bool:
    """Return whether a label is a function of the top class, with two classes seen at least.

    Args:
        label: shape (rows,), of any type.
        answer: each row's top class, shape (rows,).
        clear: which rows are no tie, shape (rows,).
    """
    label, answer = label[clear], answer[clear]
    seen = np.unique(answer)
    return len(seen) >= 2 and all(len(set(label[answer == one].tolist())) == 1 for one in seen)

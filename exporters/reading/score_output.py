"""Which outputs of a graph hold scores, and which labels follow from them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from exporters.graph import onnx_graph, zipmap
from exporters.graph.onnx_graph import Value
from exporters.reading import graph_ending
from postprocess.arrays import Array, Float64
from postprocess.errors import InputError

#: What exporters and people call the tensor of class scores.
NAMES = (
    "scores", "score", "probabilities", "probability", "probs", "prob", "logits", "logit",
    "output_probability", "predictions", "softmax",
)  # fmt: skip
#: Top scores closer than this share of the top, or of FLOOR if that is more, are a tie whose
#: winner rounding decides: onnxruntime's own Sigmoid is off by 1e-8 where it is nearly 0.
FLOOR = 1e-2
TIE = {"TYPE_FP16": 1e-2, "TYPE_FP32": 1e-5, "TYPE_FP64": 1e-5}
#: How far from 1 the sum of a row of columns may be; nearer than ``postprocess.scores`` allows, as
#: it may be of one row alone, and two heads of their own come to .99 to 1.01 by chance.
SUM_IS_ONE = {"float16": 1e-2, "float32": 1e-4, "float64": 1e-4}


def find(
    model: Any, values: list[Value], results: dict[str, Array], wanted: Sequence[str]
) -> list[Value]:
    """Return the outputs that hold scores: those that were asked for, or the only one.

    Args:
        model: the graph.
        values: its outputs.
        results: what one call gave, by output name.
        wanted: the names that were asked for; none: to find one.

    Raises:
        InputError: there is no such output, or several could be meant.
    """
    names = [value.name for value in values]
    for name in wanted:
        if name not in names:
            raise InputError(f"--output {name}: no such output; there are {', '.join(names)}")
        value = values[names.index(name)]
        _refuse_unserved(model, value)
        if (
            value.data_type not in onnx_graph.FLOATS
            or results[name].ndim == 0
            or not results[name].size
        ):
            raise InputError(
                f"--output {name}: expected scores of FLOAT16, FLOAT or DOUBLE and at least one "
                f"dimension, none of size 0, got {value.kind} "
                f"{results.get(name, np.empty(0)).shape}"
            )
    if wanted:
        refuse_columns(results, wanted)
        return [values[names.index(name)] for name in wanted]
    floats = [
        value
        for value in values
        if value.data_type in onnx_graph.FLOATS
        and results[value.name].size
        and results[value.name].ndim > 0
    ]
    if not floats:
        for value in values:
            _refuse_unserved(model, value)
        raise InputError(
            f"no output holds scores of FLOAT16, FLOAT or DOUBLE; {_there(model, values)}"
        )
    ends = [
        value for value in floats if graph_ending.ends(model, value.name, results[value.name].shape)
    ]
    named = [value for value in floats if value.name.lower().partition(":")[0] in NAMES]
    for candidates in (floats, ends, named):
        if len(candidates) == 1:
            return candidates
    refuse_columns(results, [value.name for value in floats])
    raise InputError(several([value.name for value in floats]))


def refuse_columns(results: dict[str, Array], names: Sequence[str]) -> None:
    """Refuse outputs of one number a row that are one answer, a column for each class.

    Each would have a defence of its own, which knows nothing of the others: it keeps the side of
    1/2 that its number is on, and not which of them is the top class.

    Args:
        results: what one call gave, by output name.
        names: of the outputs that would be defended.

    Raises:
        InputError: two of them or more are among outputs whose numbers sum to 1 in each row.
    """
    columns = {
        name: rows.astype(np.float64).reshape(-1)
        for name, rows in results.items()
        if rows.dtype.kind == "f" and rows.ndim > 0 and rows.size == len(rows) > 0
    }
    meant = [name for name in names if name in columns]
    if len(meant) < 2 or len({len(column) for column in columns.values()}) > 1:
        return
    rows = np.stack([*columns.values()], axis=1)
    shared = ((rows > 0) & (rows < 1)).any(axis=1)  # else numbers of 0 and 1 would do by chance
    off = max(SUM_IS_ONE[results[name].dtype.name] for name in columns)
    if shared.all() and (np.abs(rows.sum(axis=1) - 1) < off).all():
        first, *_, last = columns
        raise InputError(
            f"the {len(columns)} outputs from {first} to {last} sum to 1 in each row: one answer, "
            "in a column for each class, and columns that are defended one by one lose its top "
            "class; make them one output of all classes (skl2onnx: options={id(model): {'zipmap': "
            "False}})"
        )


def several(names: Sequence[str]) -> str:
    """Return what to say of outputs each of which could be the scores."""
    first, second, *_ = names
    return (
        f"several outputs could be the scores: {', '.join(names)}; name one with --output, for "
        f"example --output {first}: the others are dropped, for scores beside the protected ones "
        "would leak the model. To serve several, each with a defence of its own, name them all: "
        f"--output {first} --output {second}"
    )


def _refuse_unserved(model: Any, value: Value) -> None:
    if value.kind in ("sequence", "map"):
        said = zipmap.refusal(model, value.name, value.kind)
        raise InputError(f"output {value.name}: {said}")
    if not value.data_type:
        raise InputError(f"output {value.name}: {onnx_graph.unserved(value)}")


def _there(model: Any, values: list[Value]) -> str:
    """Return which outputs there are instead of scores, and what to do about it."""
    kinds = ", ".join(f"{value.name} ({value.kind})" for value in values)
    makers = {value.name: graph_ending.makes(model, value.name) for value in values}
    for name, op in makers.items():
        if op in ("ArgMax", "ArgMin", "TopK"):
            return (
                f"there are {kinds}, and {name} is only the class that {op} picks; make the scores "
                f"before the {op} an output too, for they are what is protected"
            )
        if op == "QuantizeLinear":
            return f"there are {kinds}; {name} is quantised: end the graph in DequantizeLinear"
    return f"there are {kinds}"


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

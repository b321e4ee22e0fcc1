"""The defence of ``postprocess`` in ONNX operators: the same numbers, in float64.

In float64 the closed forms need none of the care that float32 asks for, so that this reads
like the equations: k is a row's top class, m its logit. A graph pays for each operator about as
much as for a small row's numbers, so there are few.
"""

from dataclasses import replace

import numpy as np

from exporters.fusing import calibrated_nodes, decoy_nodes, score_nodes
from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_nodes import Nodes
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: A top logit that leads by less leads by that: the bound on beta is then right to 1e-8.
NEAREST = 1e-8
#: From this gamma on s(gamma x) is 0 or 1 to the last digit where exp(x) has no float64.
STEEP = 0.06
#: How far, as a share of the top class, all others stay below it: two steps of the type.
BELOW = {"TYPE_FP16": 2.0**-9, "TYPE_FP32": 2.0**-22, "TYPE_FP64": 2.0**-40}
#: How far a yes or no stays from 1/2: a step of the type, above or below.
FROM_HALF = {"TYPE_FP16": 2.0**-11, "TYPE_FP32": 2.0**-24, "TYPE_FP64": 2.0**-50}
#: Stands for the logarithm of 0 where it would be subtracted from itself.
IMPOSSIBLE = -1e30


def append(
    nodes: Nodes,
    scores: str,
    output: str,
    value: Value,
    parameters: Parameters,
    *,
    table: Calibration | None = None,
) -> None:
    """Append the defence.

    Args:
        nodes: of the graph.
        scores: the tensor that holds the victim's scores.
        output: the tensor to make; of type and shape ``value``.
        value: the scores' and the output's declaration.
        parameters: of the defence; ``class_axis`` says which axis is the classes.
        table: of calibrated answers, which take the place of Reverse Sigmoid's.

    A row that ``postprocess`` would refuse becomes ``NO_ANSWER`` in every entry.

    Raises:
        InputError: decimals or decoy, and the number of classes is not known; or no such axis.
    """
    order = _classes_last(value, parameters)
    if order is None:
        nodes.cast(_answer(nodes, scores, value, parameters, table), value.data_type, output=output)
        return
    shape = value.shape or ()
    last = replace(value, shape=tuple(shape[axis] for axis in order))
    moved = nodes.add("Transpose", scores, perm=order)
    answer = nodes.cast(_answer(nodes, moved, last, parameters, table), value.data_type)
    nodes.add("Transpose", answer, perm=[order.index(i) for i in range(len(order))], output=output)


def _classes_last(value: Value, parameters: Parameters) -> list[int] | None:
    """Return the axes in the order that has the classes last, None where they are."""
    if value.shape is None:
        if parameters.class_axis == -1:
            return None
        raise InputError(
            f"--layout fused: parameter class_axis: expected -1 for an output {value.name} of "
            f"any rank, got {parameters.class_axis}; give --layout ensemble"
        )
    rank = len(value.shape)
    if not -rank <= parameters.class_axis < rank and rank:
        raise InputError(
            f"--layout fused: parameter class_axis: expected {-rank} to {rank - 1} for output "
            f"{value.name} of shape {list(value.shape)}, got {parameters.class_axis}"
        )
    axis = parameters.class_axis % max(rank, 1)
    if axis >= rank - 1:
        return None
    return [*(other for other in range(rank) if other != axis), axis]


def _answer(
    nodes: Nodes, scores: str, value: Value, parameters: Parameters, table: Calibration | None
) -> str:
    """Append the defence of scores with the classes on the last axis; return it in float64."""
    wide = nodes.cast(scores, "TYPE_FP64")
    shape = value.shape or ()
    if parameters.multi_label or shape[-1] == 1 or (len(shape) == 1 and isinstance(shape[0], str)):
        if table is not None:
            return calibrated_nodes.sides(nodes, wide, parameters, table)
        if parameters.defense == "decoy":
            return decoy_nodes.sides(nodes, wide, parameters)
        return _sides(nodes, wide, value.data_type, parameters)
    if table is not None:
        return calibrated_nodes.rows(nodes, wide, value, parameters, table)
    if parameters.defense == "decoy":
        return decoy_nodes.rows(nodes, wide, value, parameters)
    return _rows(nodes, wide, value, parameters)


def _rows(nodes: Nodes, scores: str, value: Value, parameters: Parameters) -> str:
    """Append the defence of rows of K >= 2 classes, float64."""
    add, number, reduce = nodes.add, nodes.number, nodes.reduce
    one, gamma = number("one", 1.0), parameters.gamma or 0.0
    logits, bad = score_nodes.logits(nodes, scores, value, parameters)
    single = nodes.constant("single", np.array([1]))
    m, k = nodes.add_many("TopK", [logits, single], ["", ""], axis=-1)
    low = behind = add("Sub", logits, m)
    if parameters.preserve_top1:
        low = add("Min", behind, number("nearest", -NEAREST))

    # The top class never counts as itself, so that nothing cancels: all others are summed.
    nobody = add("Add", bad, number("no_logit", -np.inf))
    others = add("ScatterElements", low, k, nobody, axis=-1)
    weight = add("Exp", others)  # y_j / y_k, 0 for k
    if gamma < STEEP:
        # Of rows that begin with -inf ONNX Runtime makes -inf.
        finite = add("Max", others, number("impossible", IMPOSSIBLE))
        log_rest = reduce("ReduceLogSumExp", finite)
        rest = add("Exp", log_rest)
    else:
        rest = reduce("ReduceSum", weight)
        log_rest = add("Log", rest)
    total = add("Add", rest, one)
    y, y_top = add("Div", weight, total), add("Div", one, total)

    # s^-1(y_j) = g_j - m - log(1 + sum over i not in {j, k}), s^-1(y_k) = -log_rest; and half of
    # what s(gamma x) is off from 1/2 by is tanh(gamma x / 2).
    x = add("Sub", low, add("Log", add("Sub", total, weight)))
    r = add("Tanh", add("Mul", x, number("half_gamma", gamma / 2)))
    r_top = add("Tanh", add("Mul", log_rest, number("minus_half_gamma", -gamma / 2)))

    # Equation 2: y - beta (s - 1/2); beta is at most the least (y_k - y_j) / (s_k - s_j).
    half_beta = number("half_beta", (parameters.beta or 0.0) / 2)
    if parameters.preserve_top1:
        above = add("Sub", r_top, r)
        if gamma > 1:  # up to 1 the steepest secant ends at the least class, whatever ties on top
            above = add("Max", above, number("least", 1e-30))  # both may be -1 to the last digit
            below = add("Less", behind, number("nothing", 0.0))
            above = add("Where", below, above, number("nothing", 0.0))
        ratio = add("Div", add("Sub", y_top, y), above)
        kept = add("Mul", reduce("ReduceMin", ratio), number("kept", 1.0 - parameters.margin))
        half_beta = add("Min", half_beta, kept)
    z = add("Sub", y, add("Mul", r, half_beta))
    z_top = add("Sub", y_top, add("Mul", r_top, half_beta))
    if parameters.preserve_top1:
        # ONNX Runtime drops a product with a number that it takes for 1, such as 1 - BELOW.
        less = add("Mul", z_top, number("below", BELOW[value.data_type]))
        z = add("Min", z, add("Sub", z_top, less))
    else:
        z_top = add("Max", z_top, number("nothing", 0.0))
    z = add("ScatterElements", z, k, z_top, axis=-1)
    answer = add("Div", z, reduce("ReduceSum", z))
    if parameters.decimals is not None:
        answer = _quantise(nodes, answer, k, value, 10**parameters.decimals)
    return score_nodes.or_none(nodes, answer, bad)


def _sides(nodes: Nodes, scores: str, data_type: str, parameters: Parameters) -> str:
    """Append the defence of scores that are each a yes or no: the first of a pair (p, 1 - p).

    Both lie at one distance from 1/2, so that the constraint needs no quotient: of a capped
    pair is left what the margin leaves.
    """
    add, number = nodes.add, nodes.number
    half = number("half", 0.5)
    logit, bad = score_nodes.side_logits(nodes, scores, parameters)
    y = add("Tanh", add("Mul", logit, half))  # 2 y - 1
    slope = add("Mul", number("gamma", parameters.gamma or 0.0), half)
    r = add("Tanh", add("Mul", logit, slope))  # 2 s - 1
    size = add("Mul", number("beta", parameters.beta or 0.0), half)
    before = add("Mul", add("Abs", y), half)
    distance = add("Sub", before, add("Mul", add("Abs", r), size))
    if parameters.preserve_top1:
        least = add("Mul", before, number("margin", parameters.margin))
        distance = add("Max", distance, least, number("from_half", FROM_HALF[data_type]))
    distance = add("Max", add("Min", distance, half), number("minus_half", -0.5))
    answer = add("Add", half, add("Mul", add("Sign", logit), distance))
    return score_nodes.or_none(nodes, answer, bad)


def _quantise(nodes: Nodes, rows: str, k: str, value: Value, units: int) -> str:
    """Append ``postprocess.quantise``, line by line: whole units, the top class strictly first."""
    add, number, reduce = nodes.add, nodes.number, nodes.reduce
    classes = (value.shape or ("",))[-1]
    if not isinstance(classes, int):
        raise InputError("--layout fused: parameter decimals: expected a known number of classes")
    order = nodes.constant("order", np.arange(classes, dtype=np.float64))
    one, two = number("one", 1.0), number("two_units", 2.0)
    nothing = add("Mul", rows, number("nothing", 0.0))
    is_top = add("ScatterElements", nothing, k, add("Add", add("GatherElements", nothing, k,
                 axis=-1), one), axis=-1)  # fmt: skip
    # From float32 on, as there: the last digits decide who gets the units that are left.
    exact = nodes.cast(nodes.cast(rows, "TYPE_FP32"), "TYPE_FP64")
    unit = add("Div", number("units", float(units)), reduce("ReduceSum", exact))
    exact = add("Mul", exact, unit)
    nearest = add("Round", exact)
    near = add("Less", add("Abs", add("Sub", exact, nearest)),
               add("Mul", exact, number("float32", 2e-7)))  # fmt: skip
    exact = add("Where", near, nearest, exact)
    whole = add("Floor", exact)

    def as_number(condition: str) -> str:
        return nodes.cast(condition, "TYPE_FP64")

    fewer = add("Less", whole, add("GatherElements", whole, k, axis=-1))
    rivals = add("Mul", as_number(add("Not", fewer)), add("Sub", one, is_top))
    count = reduce("ReduceSum", rivals)
    left = add("Sub", number("units", float(units)), reduce("ReduceSum", whole))

    short = as_number(
        add("And", add("Less", left, one), add("Less", number("nothing", 0.0), count))
    )
    place = add("Mul", rivals, add("Add", order, one))
    last = add("Mul", as_number(add("Equal", place, reduce("ReduceMax", place))), rivals)
    whole = add("Sub", whole, add("Mul", last, short))
    left = add("Add", left, short)

    remainder = add("Sub", add("Sub", exact, whole), add("Mul", rivals, two))
    remainder = add("Add", remainder, add("Mul", is_top, number("impossible", IMPOSSIBLE)))
    others = add("Sub", number("others", classes - 1.0), count)
    most = add("Where", add("Less", add("Add", others, one), left), two, one)
    to_top = add("Min", left, most)
    whole = add("Add", whole, add("Mul", is_top, to_top))
    every = nodes.constant("classes", np.array([classes]))
    by_size = nodes.add_many("TopK", [remainder, every], ["", ""], axis=-1)[1]
    rank = add("ScatterElements", nothing, by_size, add("Add", nothing, order), axis=-1)
    given = as_number(add("Less", rank, add("Sub", left, to_top)))
    return add("Div", add("Add", whole, given), number("units", float(units)))

"""The victim's scores in ONNX operators: made logits, and told apart from what are none."""

import numpy as np

from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_nodes import Nodes
from postprocess.parameters import Parameters
from postprocess.scores import (
    PROBABILITY_EXCESS,
    PROBABILITY_ROUNDING,
    PROBABILITY_STEP,
    PROBABILITY_SUM_LIMIT,
    PROBABILITY_SUM_TOLERANCE,
    sum_tolerance,
)

#: What a row is answered with that cannot be protected. A graph cannot refuse one, and NaN, which
#: would say as much, is no JSON.
NO_ANSWER = -1.0


def logits(nodes: Nodes, scores: str, value: Value, parameters: Parameters) -> tuple[str, str]:
    """Append what makes scores logits; return them and 0 for each row, NaN for a bad one."""
    add, number, reduce = nodes.add, nodes.number, nodes.reduce
    nothing = number("nothing", 0.0)
    # 0 times what is not finite is NaN.
    bad = reduce("ReduceSum", add("Mul", scores, nothing))
    if parameters.scores == "logits":
        return scores, bad
    p = add("Max", scores, nothing)
    total = reduce("ReduceSum", scores)
    off = add("Abs", add("Sub", total, number("one", 1.0)))
    near = add("Not", add("Less", _sum_tolerance(nodes, p, value), off))
    sums = add("And", near, add("Less", nothing, total))
    fits = add("And", sums, _in_unit_range(nodes, scores, each=False))
    bad = add("Where", fits, bad, number("nan", np.nan))
    return add("Log", add("Div", p, reduce("ReduceMax", p))), bad


def side_logits(nodes: Nodes, scores: str, parameters: Parameters) -> tuple[str, str]:
    """Append what makes yes or no scores logits; return them and 0, NaN for each bad entry."""
    add, number = nodes.add, nodes.number
    nothing = number("nothing", 0.0)
    bad = add("Mul", scores, nothing)
    if parameters.scores == "logits":
        return scores, bad
    one = number("one", 1.0)
    p = add("Min", add("Max", scores, nothing), one)
    fits = _in_unit_range(nodes, scores, each=True)
    bad = add("Where", fits, bad, number("nan", np.nan))
    return add("Log", add("Div", p, add("Sub", one, p))), bad


def or_none(nodes: Nodes, answer: str, bad: str) -> str:
    """Append the answer where ``bad`` is 0, and what says that there is none where it is NaN."""
    good = nodes.add("Equal", bad, nodes.number("nothing", 0.0))
    return nodes.add("Where", good, answer, nodes.number("no_answer", NO_ANSWER))


def _sum_tolerance(nodes: Nodes, p: str, value: Value) -> str:
    """Append ``scores.sum_tolerance`` of as many classes as there are."""
    add, number = nodes.add, nodes.number
    classes = (value.shape or ("",))[-1]
    if isinstance(classes, int):
        return number("sum_tolerance", sum_tolerance(classes))
    each = add("Add", add("Mul", p, number("nothing", 0.0)), number("step", PROBABILITY_STEP))
    off = add("Max", nodes.reduce("ReduceSum", each), number("least", PROBABILITY_SUM_TOLERANCE))
    return add("Min", off, number("limit", PROBABILITY_SUM_LIMIT))


def _in_unit_range(nodes: Nodes, scores: str, *, each: bool) -> str:
    """Append whether rows, or ``each`` entry, lie in [0, 1] up to rounding."""
    add, number = nodes.add, nodes.number
    least = scores if each else nodes.reduce("ReduceMin", scores)
    most = scores if each else nodes.reduce("ReduceMax", scores)
    low = add("Less", least, number("lowest", -PROBABILITY_ROUNDING))
    high = add("Less", number("highest", 1 + PROBABILITY_EXCESS), most)
    return add("Not", add("Or", low, high))

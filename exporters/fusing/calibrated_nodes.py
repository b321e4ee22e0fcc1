"""Calibrated answers in ONNX operators: ``postprocess.calibrated``, in float64."""

import numpy as np

from exporters.fusing import score_nodes
from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_nodes import Nodes
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters


def rows(
    nodes: Nodes, scores: str, value: Value, parameters: Parameters, table: Calibration
) -> str:
    """Append the answer of rows of K >= 2 classes: a top class's confidence, a flat rest."""
    add, number, reduce = nodes.add, nodes.number, nodes.reduce
    logits, bad = score_nodes.logits(nodes, scores, value, parameters)
    first = nodes.constant("first", np.array([1]))
    most, top = nodes.add_many("TopK", [logits, first], ["", ""], axis=-1)
    below = add("Exp", add("Sub", logits, most))
    nothing = number("nothing", 0.0)
    none = add("Mul", most, nothing)
    others = add("ScatterElements", below, top, none, axis=-1)
    log_odds = add("Neg", add("Log", reduce("ReduceSum", others)))
    confidence = _look_up(nodes, table, top, log_odds)
    one = number("one", 1.0)
    rest = add("Div", add("Sub", one, confidence), number("others", table.classes - 1.0))
    flat = add("Add", add("Mul", below, nothing), rest)
    return score_nodes.or_none(nodes, add("ScatterElements", flat, top, confidence, axis=-1), bad)


def sides(nodes: Nodes, scores: str, parameters: Parameters, table: Calibration) -> str:
    """Append the answer of scores that are each a yes or no: its side's confidence."""
    add, number = nodes.add, nodes.number
    logit, bad = score_nodes.side_logits(nodes, scores, parameters)
    nothing, one = number("nothing", 0.0), number("one", 1.0)
    is_no = add("Less", logit, nothing)
    each = nodes.constant("yes_rows", 2 * np.arange(table.classes))
    row = add("Add", add("Cast", is_no, to=_INT64), each)
    row, alone = (nodes.last_axis("Unsqueeze", one) for one in (row, add("Abs", logit)))
    confidence = nodes.last_axis("Squeeze", _look_up(nodes, table, row, alone))
    answer = add("Where", is_no, add("Sub", one, confidence), confidence)
    undecided = add("Equal", logit, nothing)
    answer = add("Where", undecided, number("half", 0.5), answer)
    return score_nodes.or_none(nodes, answer, bad)


_INT64 = 7


def _look_up(nodes: Nodes, table: Calibration, row: str, log_odds: str) -> str:
    """Append the entries of the table at these rows and these log-odds, all of shape (.., 1)."""
    add = nodes.add
    entries = nodes.constant("confidence", table.table.reshape(-1))
    if table.levels == 1:
        return add("Gather", entries, row)
    cuts = nodes.constant("log_odds", np.array(table.log_odds, np.float64))
    reached = add("Cast", add("Not", add("Less", log_odds, cuts)), to=_INT64)
    level = nodes.reduce("ReduceSum", reached)
    levels = nodes.constant("levels", np.array(table.levels))
    place = add("Add", add("Mul", row, levels), level)
    return add("Gather", entries, place)

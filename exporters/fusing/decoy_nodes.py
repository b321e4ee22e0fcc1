"""Decoys in ONNX operators: ``postprocess.decoy``, in float64."""

import numpy as np

from exporters.fusing import score_nodes
from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_nodes import Nodes
from postprocess import decoy
from postprocess.defence_config import DATA_TYPES
from postprocess.errors import InputError
from postprocess.parameters import Parameters


def rows(nodes: Nodes, scores: str, value: Value, parameters: Parameters) -> str:
    """Append the answer of rows of K >= 2 classes: the one of the top class."""
    classes = (value.shape or ("",))[-1]
    if not isinstance(classes, int):
        raise InputError("--layout fused: defense decoy: expected a known number of classes")
    add, constant = nodes.add, nodes.constant
    logits, bad = score_nodes.logits(nodes, scores, value, parameters)
    top = nodes.add_many("TopK", [logits, constant("first", np.array([1]))], ["", ""], axis=-1)[1]
    start = add("Sub", constant("classes", np.array([classes])), top)
    turned = decoy.twice(
        classes, seed=parameters.seed or 0, data_type=DATA_TYPES[value.data_type]
    ).astype(np.float64)
    place = add("Add", start, constant("places", np.arange(classes)))
    answer = add("Gather", constant("twice", turned), place)
    return score_nodes.or_none(nodes, answer, bad)


def sides(nodes: Nodes, scores: str, parameters: Parameters) -> str:
    """Append the answer of scores that are each a yes or no: its side, and no more."""
    add, number = nodes.add, nodes.number
    logit, bad = score_nodes.side_logits(nodes, scores, parameters)
    step = add("Mul", add("Sign", logit), number("from_half", decoy.LEAD / 2))
    return score_nodes.or_none(nodes, add("Add", number("half", 0.5), step), bad)

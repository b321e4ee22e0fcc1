"""Taking ZipMap off a classifier: the tensor of scores before it becomes the output.

Converters of scikit-learn, LightGBM, XGBoost and CatBoost end a classifier in ZipMap, which makes
a sequence of maps, class to score, of the rows of a tensor. Triton cannot serve such a sequence.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.graph import onnx_graph
from postprocess.errors import InputError

#: How to convert without it, by the producer that the file names.
_CURES = {
    "skl2onnx": 'convert with options={id(model): {"zipmap": False}}',
    "OnnxMLTools": "convert with zipmap=False: convert_lightgbm(model, ..., zipmap=False)",
    "CatBoost": "CatBoost always writes it: let nothing else read its output, and protect takes "
    "it off",
}
_CURE = "convert without it, or let nothing else read its output, and protect takes it off"


@dataclass(frozen=True)
class Removed:
    """A ZipMap that was taken off an output."""

    output: str
    classes: tuple[int | str, ...]  #: the keys of its maps: what the columns are, in their order

    @property
    def warning(self) -> str:
        """What changes for clients."""
        some = ", ".join(map(str, self.classes[:10])) + (", ..." if len(self.classes) > 10 else "")
        return (
            f"output {self.output}: its ZipMap, which Triton cannot serve, is taken off: a tensor "
            f"of {len(self.classes)} columns, for the classes {some}"
        )


def take_off(model: Any) -> list[Removed]:
    """Make every output that is a ZipMap's, in place, the tensor that goes into it.

    One that another node reads, or that lies in another node's graph, stays.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    removed = []
    for node in [one for one in graph.node if one.op_type == "ZipMap"]:
        output, tensor = node.output[0], node.input[0]
        entries = [entry for entry in graph.output if entry.name == output]
        if not entries or _readers(graph, output):
            continue
        graph.node.remove(node)
        if tensor in [entry.name for entry in (*graph.output, *graph.input)]:
            graph.node.append(helper.make_node("Identity", [tensor], [output]))
        else:
            onnx_graph.rename(graph, tensor, output)
        # What goes into it is of float32, and its shape is found by running.
        float32 = TensorProto.FLOAT
        entries[0].CopyFrom(helper.make_tensor_value_info(output, float32, None))
        removed.append(Removed(output, _keys(node)))
    return removed


def refuse_other_scores(maps: Any, scores: NDArray[Any], removed: Removed) -> None:
    """Refuse a ZipMap that gave other scores than the tensor before it, each class its column.

    Args:
        maps: what the graph with ZipMap gave: a map for each row.
        scores: what the graph without it gives on the same rows, shape (rows, K).
        removed: the ZipMap.

    Raises:
        InputError: they differ.
    """
    fits = scores.ndim == 2 and len(maps) == len(scores) and len(removed.classes) == scores.shape[1]
    if fits:
        told = np.array([[row[key] for key in removed.classes] for row in maps])
        fits = np.allclose(told, scores, rtol=1e-5, atol=1e-6, equal_nan=True)
    if not fits:
        raise InputError(
            f"output {removed.output}: without its ZipMap it does not hold what the maps say; "
            "convert the model without ZipMap"
        )


def refusal(model: Any, output: str, kind: str) -> str:
    """Return why an output of that kind cannot be served, and what to do about it."""
    producer = {name: node for node in model.graph.node for name in node.output}
    node = producer.get(output)
    if kind == "map" or (node is not None and node.op_type == "ZipMap"):
        cure = _CURES.get(model.producer_name, _CURE)
        return f"a {kind} of maps (ZipMap), which Triton cannot serve; {cure}"
    return (
        f"a {kind} of tensors, which Triton cannot serve: several classifiers in one file? Make "
        "one of them an output of its own (SequenceAt), or convert them one by one"
    )


def _readers(graph: Any, tensor: str) -> bool:
    for node in graph.node:
        if tensor in node.input:
            return True
        for inner in onnx_graph.subgraphs(node):
            if tensor in [entry.name for entry in inner.output] or _readers(inner, tensor):
                return True
    return False


def _keys(node: Any) -> tuple[int | str, ...]:
    for attribute in node.attribute:
        if attribute.name == "classlabels_int64s" and attribute.ints:
            return tuple(attribute.ints)
        if attribute.name == "classlabels_strings" and attribute.strings:
            return tuple(word.decode(errors="replace") for word in attribute.strings)
    return ()

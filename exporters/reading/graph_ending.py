"""How a graph ends: the activation that its scores come from, and how that is taken off."""

from dataclasses import dataclass
from typing import Any

from exporters.graph.onnx_graph import constants, names, opset, rename
from exporters.reading import written_softmax
from exporters.reading.written_softmax import WrittenSoftmax

#: The activations, by the operators that compute them; the QLinear ones work on 8 bits.
_ACTIVATIONS = {
    "Softmax": "Softmax",
    "QLinearSoftmax": "Softmax",
    "LogSoftmax": "LogSoftmax",
    "Sigmoid": "Sigmoid",
    "QLinearSigmoid": "Sigmoid",
}
#: What gives probabilities; those that ``protect`` takes off no graph among them.
_TO_PROBABILITIES = {*_ACTIVATIONS, "HardSigmoid", "Hardmax"} - {"LogSoftmax"}
#: What an exporter may put behind it without changing what it says.
_SAME = ("Identity", "Cast", "Dropout")
#: Rounds what it says, mostly to 8 bits.
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
#: Moves what it says; a Sigmoid looks at no axis, so that the shape may change behind it.
_SHAPES = ("Squeeze", "Unsqueeze", "Reshape", "Flatten")
#: Makes other numbers of it.
_CHANGING = (
    "Abs", "Add", "Clip", "Div", "Exp", "Log", "Max", "Mean", "Min", "Mul", "Neg", "Pow", "Round",
    "Sqrt", "Sub", "Sum",
)  # fmt: skip
#: Since this opset Softmax has an axis; before, it flattened all axes from its axis on.
_SOFTMAX_HAS_AXIS = 13
_DOMAINS = ("", "ai.onnx", "com.microsoft")


@dataclass(frozen=True)
class Ending:
    """The last activation of a graph's output, and what stands behind it."""

    op: str  #: "Softmax", "LogSoftmax" or "Sigmoid"; "TopK" where the highest are picked out
    logits: str = ""  #: the tensor that goes into it
    #: The axis of the output, from 0 on, that it is over; None: none, or several at once.
    axis: int | None = None
    rounded: bool = False  #: what it says is quantised
    changed: tuple[str, ...] = ()  #: operators that make other numbers of what it says

    @property
    def can_be_cut(self) -> bool:
        """Whether the logits can stand in the output's place."""
        return self.op in ("Softmax", "Sigmoid") and not self.rounded and not self.changed


def ending(model: Any, output: str, *, shape: tuple[int, ...]) -> Ending | None:
    """Return the activation that an output ends in, None where it ends in another way."""
    node, behind, written = _source(model, output)
    if node is None:
        return None
    if written or node.op_type in _ACTIVATIONS:
        return _ending(model, node, behind, shape, written)
    return Ending("TopK") if node.op_type == "TopK" else None


def probabilities_from(model: Any, tensor: str) -> str | None:
    """Return the operator that makes a tensor probabilities, None where none is seen to do so."""
    node, behind, written = _source(model, tensor)
    changed = {one.op_type for one in behind}.intersection(_CHANGING) - {"Clip", "Round"}
    op = "Softmax" if written else "" if node is None else str(node.op_type)
    return op if op in _TO_PROBABILITIES and not changed else None


def _source(model: Any, tensor: str) -> tuple[Any, list[Any], WrittenSoftmax | None]:
    """Return the node that makes what a tensor says, None for none, and the nodes behind it.

    Of a Softmax that is written out in several nodes, the last is returned, and what they say.
    """
    producer = {name: node for node in model.graph.node for name in node.output}
    known = constants(model)
    behind: list[Any] = []
    while (node := producer.get(tensor)) is not None and node.domain in _DOMAINS:
        written = written_softmax.read(node, producer, known)
        if written or node.op_type not in (
            *_SAME, *_ROUNDING, *_SHAPES, *_CHANGING, "Transpose"
        ):  # fmt: skip
            return node, behind, written
        given = [name for name in node.input if name not in known]
        if not given:
            break
        behind.insert(0, node)
        tensor = given[0]
    return None, behind, None


def _ending(
    model: Any,
    node: Any,
    behind: list[Any],
    shape: tuple[int, ...],
    written: WrittenSoftmax | None,
) -> Ending | None:
    kinds = [one.op_type for one in behind]
    op = "Softmax" if written else _ACTIVATIONS[node.op_type]
    moved = any(kind in _SHAPES for kind in kinds)
    if op != "Sigmoid" and moved:
        return None
    return Ending(
        op,
        written.logits if written else node.input[0],
        None if op == "Sigmoid" else _axis(model, node, behind, shape, written),
        rounded=node.op_type.startswith("QLinear") or any(kind in _ROUNDING for kind in kinds),
        changed=tuple(kind for kind in kinds if kind in _CHANGING),
    )


def _axis(
    model: Any,
    node: Any,
    behind: list[Any],
    shape: tuple[int, ...],
    written: WrittenSoftmax | None,
) -> int | None:
    """Return the axis of the output that a Softmax is over, None if it is over several."""
    if not shape:
        return None
    order = list(range(len(shape)))  # which axis of the Softmax each axis of the output is
    for one in reversed(behind):
        if one.op_type == "Transpose":
            order = [_permutation(one, len(shape))[axis] for axis in order]
    if written:
        return order.index(written.axis % len(shape))
    version = _attribute(node, "opset", opset(model))
    old = version < _SOFTMAX_HAS_AXIS
    axis = _attribute(node, "axis", 1 if old else -1) % len(shape)
    if old:
        axes = [one for one in range(axis, len(shape)) if shape[order.index(one)] != 1]
        if len(axes) > 1:
            return None
        axis = axes[0] if axes else axis
    return order.index(axis)


def _permutation(node: Any, rank: int) -> list[int]:
    for item in node.attribute:
        if item.name == "perm":
            return list(item.ints)
    return list(range(rank))[::-1]


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)


def ends(model: Any, output: str, shape: tuple[int, ...]) -> bool:
    """Return whether an output ends in a Sigmoid, or in a Softmax over its last axis.

    Over another axis it may be attention, and no scores.
    """
    end = ending(model, output, shape=shape)
    if end is None or end.op == "TopK":
        return False
    return end.op == "Sigmoid" or end.axis == len(shape) - 1


def quantised(model: Any) -> bool:
    """Return whether a graph computes in 8 bits somewhere, so that its scores are rounded."""
    return any(
        node.op_type in (*_ROUNDING, "DynamicQuantizeLinear") or node.op_type.startswith("QLinear")
        for node in model.graph.node
    )


def halved(model: Any) -> bool:
    """Return whether a graph computes in 16 bits somewhere."""
    from onnx import TensorProto

    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return any(one.data_type in half for one in model.graph.initializer) or any(
        node.op_type == "Cast" and _attribute(node, "to", 0) in half for node in model.graph.node
    )


def argmax_axes(model: Any, tensors: set[str], rank: int) -> set[int]:
    """Return the axes, from 0 on, over which the graph takes the highest of some tensors."""
    return {
        _attribute(node, "axis", 0) % rank
        for node in model.graph.node
        if node.op_type == "ArgMax" and node.input[0] in tensors
    }


def makes(model: Any, output: str) -> str:
    """Return the operator that makes an output, what passes it on left out; "" if none does."""
    producer = {name: node for node in model.graph.node for name in node.output}
    node = producer.get(output)
    while node is not None and node.op_type in (*_SAME, *_SHAPES):
        node = producer.get(node.input[0])
    return "" if node is None else str(node.op_type)


def cut(model: Any, output: str) -> None:
    """Make an output, in place, hold the logits that go into its last activation.

    Its name, element type and shape stay. Nodes that read it keep getting what it was.

    Args:
        model: the graph.
        output: whose ``ending`` can be cut.
    """
    from onnx import helper

    graph = model.graph
    taken = set(names(graph))
    prefix = f"{output}_uncut"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    rename(graph, output, prefix)
    activation, behind, written = _source(model, prefix)
    # What stood behind the activation stands once more behind the logits.
    tensor = written.logits if written else activation.input[0]
    for index, node in enumerate(behind or [helper.make_node("Identity", [""], [""])]):
        copy = type(node)()
        copy.CopyFrom(node)
        copy.name = f"{prefix}_{index}"
        copy.input[0] = tensor
        del copy.output[1:]  # a Dropout's mask
        tensor = copy.output[0] = f"{prefix}_{index}"
        graph.node.append(copy)
    graph.node[-1].output[0] = output

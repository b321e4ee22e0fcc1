"""A Softmax that an exporter wrote out, as JAX and old networks have it: Exp over its own sum."""

from dataclasses import dataclass
from typing import Any

#: What stands between the sum and the Div, so that they have one shape.
_BROADCASTING = ("Cast", "Expand", "Identity", "Reshape", "Tile", "Unsqueeze")


@dataclass(frozen=True)
class WrittenSoftmax:
    """What its nodes say."""

    logits: str  #: the tensor that goes into the Exp, before its largest is taken off
    axis: int  #: that is summed over, counted from either end


def read(node: Any, producer: dict[str, Any], constants: dict[str, Any]) -> WrittenSoftmax | None:
    """Return the Softmax that a node is the last of, None if it is the last of none."""
    if node.op_type != "Div":
        return None
    weight = producer.get(node.input[0])
    total = _source(node.input[1], producer)
    if weight is None or weight.op_type != "Exp" or total is None:
        return None
    if total.op_type != "ReduceSum" or total.input[0] != node.input[0]:
        return None
    axes = _axes(total, constants)
    return (
        WrittenSoftmax(_unshifted(weight.input[0], producer), axes[0]) if len(axes) == 1 else None
    )


def _source(tensor: str, producer: dict[str, Any]) -> Any:
    """Return the node that makes a tensor, what makes it as wide as another passed over."""
    node = producer.get(tensor)
    while node is not None and node.op_type in _BROADCASTING:
        node = producer.get(node.input[0])
    return node


def _unshifted(tensor: str, producer: dict[str, Any]) -> str:
    """Return the tensor from which its own largest was taken off, so that its top is not just 0."""
    low = producer.get(tensor)
    if low is None or low.op_type != "Sub":
        return tensor
    most = _source(low.input[1], producer)
    if most is not None and most.op_type == "Max":  # JAX bounds it by -inf
        found = [_source(name, producer) for name in most.input]
        most = next((one for one in found if one is not None and one.op_type == "ReduceMax"), None)
    if most is None or most.op_type != "ReduceMax" or most.input[0] != low.input[0]:
        return tensor
    return str(low.input[0])


def _axes(node: Any, constants: dict[str, Any]) -> list[int]:
    """Return the axes of a reduction: an attribute until opset 12, an input since."""
    from onnx import TensorProto, numpy_helper

    for item in node.attribute:
        if item.name == "axes":
            return list(item.ints)
    tensor = constants.get(node.input[1]) if len(node.input) > 1 else None
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return []
    return [int(axis) for axis in numpy_helper.to_array(tensor).reshape(-1)]

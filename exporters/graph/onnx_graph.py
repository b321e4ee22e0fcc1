"""An ONNX graph as a file of nodes: what it takes and gives.

Weights in external data files are never loaded: a graph is read, edited and written without
them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprocess.errors import InputError

#: ONNX's element types that Triton and NumPy both have, by Triton's name.
DATA_TYPES = {
    "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16",
    "DOUBLE": "TYPE_FP64",
    "BOOL": "TYPE_BOOL",
    "STRING": "TYPE_STRING",
    **{f"INT{bits}": f"TYPE_INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"TYPE_UINT{bits}" for bits in (8, 16, 32, 64)},
}
#: The types that scores may have.
FLOATS = ("TYPE_FP16", "TYPE_FP32", "TYPE_FP64")


@dataclass(frozen=True)
class Value:
    """One input or output of a graph, as the file declares it."""

    name: str
    data_type: str  #: Triton's name of it, such as TYPE_FP32; "" where Triton or NumPy has none
    shape: tuple[int | str, ...] | None  #: a symbolic size is its name or "", None: any rank
    kind: str  #: how ONNX calls it, for messages: FLOAT, sequence(map), ...


def load(path: Path) -> Any:
    """Return the ONNX ``ModelProto`` of a file, without its external data.

    Raises:
        InputError: no such file, no ONNX file, or a graph without nodes, inputs or outputs.
    """
    import onnx

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable ONNX file: {reason}") from None
    if not model.ir_version or not model.HasField("graph"):
        raise InputError(f"{path}: not a readable ONNX file: it holds no graph")
    for what, there in (
        ("nodes", model.graph.node),
        ("inputs", inputs(model)),
        ("outputs", model.graph.output),
    ):
        if not there:
            raise InputError(f"{path}: the graph has no {what}, so it is no classifier")
    return model


def inputs(model: Any) -> list[Value]:
    """Return what a caller must give; an initializer that is listed as an input is a default."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    defaults |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return [_value(entry) for entry in model.graph.input if entry.name not in defaults]


def outputs(model: Any) -> list[Value]:
    """Return what the graph gives, in its order."""
    return [_value(entry) for entry in model.graph.output]


def opset(model: Any) -> int:
    """Return the version of the ai.onnx operators, 0 where the graph uses none of them."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def keep_outputs(model: Any, names: list[str]) -> None:
    """Take every other output out of the graph, in place: what is not there cannot leak."""
    kept = [entry for entry in model.graph.output if entry.name in names]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def declare(entries: Any, values: Iterable[Value]) -> None:
    """Make inputs or outputs of a graph, in place, say the sizes of ``values``, by name."""
    said = {value.name: value for value in values}
    for entry in entries:
        value = said.get(entry.name)
        if value is None or value.shape is None or _value(entry).shape == value.shape:
            continue
        shape = entry.type.tensor_type.shape
        shape.Clear()
        entry.type.tensor_type.shape.SetInParent()
        for size in value.shape:
            dim = shape.dim.add()
            if isinstance(size, int):
                dim.dim_value = size
            elif size:
                dim.dim_param = size


def constants(model: Any) -> dict[str, Any]:
    """Return what a graph holds as numbers, by name: a ``TensorProto``, or None for other forms."""
    found = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = next(
                (item.t for item in node.attribute if item.name == "value"), None
            )
    return found


def strings(model: Any) -> list[str]:
    """Return the words that a graph knows: categories, keys and labels of its nodes."""
    found: set[str] = set()
    for node in model.graph.node:
        for attribute in node.attribute:
            found.update(word.decode(errors="replace") for word in attribute.strings)
    return sorted(found)[:1000]


def _value(entry: Any) -> Value:
    import onnx

    which = entry.type.WhichOneof("value")
    if which != "tensor_type":
        return Value(entry.name, "", None, (which or "unknown type").removesuffix("_type"))
    tensor = entry.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    shape: tuple[int | str, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param
            for dim in tensor.shape.dim
        )
    return Value(entry.name, DATA_TYPES.get(kind, ""), shape, kind)


def unserved(value: Value) -> str:
    """Return why an input or output cannot be served, and what to do about it."""
    if value.kind == "BFLOAT16":
        return (
            "BFLOAT16, which Triton has but NumPy has not, so that neither the defence nor the "
            "checks here can read it; put a Cast between it and the rest of the graph, so that it "
            "is FLOAT outside"
        )
    if value.kind in ("sequence", "map", "optional", "sparse_tensor"):
        return f"expected a tensor, for Triton serves no other, got {value.kind}"
    return (
        f"expected a tensor of a type that Triton and NumPy have, got {value.kind}; put a Cast "
        "between it and the rest of the graph"
    )


def subgraphs(node: Any) -> Iterator[Any]:
    """Yield the graphs in a node's attributes: the bodies of If, Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def names(graph: Any) -> Iterator[str]:
    for entry in (*graph.input, *graph.initializer):
        yield entry.name
    for node in graph.node:
        yield from (*node.input, *node.output)
        for inner in subgraphs(node):
            yield from names(inner)


def rename(graph: Any, old: str, new: str) -> None:
    """Rename a tensor wherever nodes write or read it, also from the bodies of If and Loop."""
    for node in graph.node:
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                if name == old:
                    tensors[index] = new
        for inner in subgraphs(node):
            for entry in inner.output:
                if entry.name == old:
                    entry.name = new
            rename(inner, old, new)

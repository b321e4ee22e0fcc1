"""What an ONNX classifier takes and gives, read from its graph."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprocess.errors import InputError

#: Tensor names of the graphs that this project exports itself.
INPUT_NAME = "image"
OUTPUT_NAME = "scores"


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph, without its batch dimension."""

    name: str
    data_type: str  #: Triton's name of it, such as TYPE_FP32
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """A classifier with a free batch dimension: one input, one output of K scores."""

    input: Tensor
    output: Tensor

    @property
    def classes(self) -> int:
        """The number of classes, K."""
        return self.output.dims[-1]


def of_image_classifier(input_shape: tuple[int, int, int], classes: int) -> Signature:
    """Return the signature of the graphs that this project exports itself."""
    return Signature(
        Tensor(INPUT_NAME, "TYPE_FP32", input_shape), Tensor(OUTPUT_NAME, "TYPE_FP32", (classes,))
    )


def read(path: Path) -> Signature:
    """Return the signature of the ONNX file at ``path``.

    Raises:
        InputError: no such file, no ONNX file, or not a graph of one FP32 input and one FP32
            output of shape (batch, K), both with a free batch dimension first.
    """
    import onnx

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX file: {error}") from None
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    found = {}
    for kind, values in (("input", inputs), ("output", list(graph.output))):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise InputError(f"{path}: expected one {kind}, got {names}")
        found[kind] = _tensor(values[0], f"{path}: {kind}")
    signature = Signature(found["input"], found["output"])
    if len(signature.output.dims) != 1:
        raise InputError(
            f"{path}: output {signature.output.name}: expected shape (batch, classes), "
            f"got {len(signature.output.dims) + 1} dimensions"
        )
    return signature


def _tensor(value: Any, where: str) -> Tensor:
    import onnx

    tensor = value.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise InputError(f"{where} {value.name}: expected FLOAT, got {kind}")
    batch, rest = tensor.shape.dim[:1], tensor.shape.dim[1:]
    if not batch or batch[0].HasField("dim_value"):
        raise InputError(f"{where} {value.name}: expected a free batch dimension first")
    if not all(dimension.dim_value > 0 for dimension in rest):
        raise InputError(f"{where} {value.name}: expected fixed sizes after the batch dimension")
    return Tensor(value.name, "TYPE_FP32", tuple(dimension.dim_value for dimension in rest))

"""What a classifier takes and gives, as Triton's config.pbtxt says it."""

from dataclasses import dataclass
from pathlib import Path

from exporters.graph import onnx_graph
from exporters.graph.onnx_graph import Value
from postprocess.errors import InputError

#: What the graphs that this project exports itself give.
OUTPUT_NAME = "scores"
_IDS = "TYPE_INT64"
#: Most rows in one request, and in one batch that Triton puts together.
MAX_BATCH_SIZE = 256


@dataclass(frozen=True)
class OnnxTensor:
    """One input or output of a model, without its batch dimension if the model has one."""

    name: str
    data_type: str  #: Triton's name of it, such as TYPE_FP32
    dims: tuple[int, ...]  #: -1 is a size that each request chooses
    #: The graph has only the batch dimension here: shape (batch,), dims (1,) for Triton.
    flat: bool = False
    label_filename: str = ""  #: the names of the classes, a file in the model's folder

    def shape(self, *, batched: bool) -> list[int]:
        """Return the shape that clients see; -1 is free."""
        return [-1, *self.dims] if batched else list(self.dims)


@dataclass(frozen=True)
class Signature:
    """A classifier: any inputs, its heads' scores, perhaps labels that follow from them."""

    inputs: tuple[OnnxTensor, ...]
    #: One tensor for each head: one axis is the K classes, all other axes are rows. Which one it
    #: is, say the parameters of the head's defence.
    scores: tuple[OnnxTensor, ...]
    labels: tuple[OnnxTensor, ...] = ()
    max_batch_size: int = MAX_BATCH_SIZE  #: 0: the graph has no free batch dimension

    @property
    def batched(self) -> bool:
        """Whether the first axis of every tensor is the batch."""
        return self.max_batch_size > 0


def of_classifier(input_shape: tuple[int, ...], classes: int) -> Signature:
    """Return the signature of the graphs that this project exports itself.

    Args:
        input_shape: (height, width, channels) of an ``image``, (F,) of ``features``, (-1,) of
            the ``ids`` of a text.
        classes: K.
    """
    name = "image" if len(input_shape) == 3 else "features"
    given = OnnxTensor(name, "TYPE_FP32", input_shape)
    return Signature(
        (OnnxTensor("ids", _IDS, input_shape) if input_shape == (-1,) else given,),
        (OnnxTensor(OUTPUT_NAME, "TYPE_FP32", (classes,)),),
    )


def read(path: Path) -> Signature:
    """Return the signature of an ONNX file that this project exported.

    Raises:
        InputError: no such file, no ONNX file, or not a graph of one input, FP32 or of ids, and
            one FP32 output of shape (batch, K), both with a free batch dimension first.
    """
    model = onnx_graph.load(path)
    found = []
    for kind, values in (
        ("input", onnx_graph.inputs(model)),
        ("output", onnx_graph.outputs(model)),
    ):
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            raise InputError(f"{path}: expected one {kind}, got {names}")
        (value,) = values
        where = f"{path}: {kind} {value.name}"
        of_ids = kind == "input" and value.data_type == _IDS
        if value.data_type != "TYPE_FP32" and not of_ids:
            raise InputError(f"{where}: expected FLOAT, got {value.kind}")
        if not has_free_batch(value):
            raise InputError(f"{where}: expected a free batch dimension first")
        tensor = tensor_of(value, batched=True)
        if min(tensor.dims) < 1 and not of_ids:
            raise InputError(f"{where}: expected fixed sizes after the batch dimension")
        found.append(tensor)
    given, scores = found
    if len(scores.dims) != 1 or scores.flat:
        raise InputError(
            f"{path}: output {scores.name}: expected shape (batch, classes), "
            f"got {len(scores.dims) + 1 - scores.flat} dimensions"
        )
    return Signature((given,), (scores,))


def has_free_batch(value: Value) -> bool:
    """Return whether the first dimension of a tensor is symbolic."""
    return bool(value.shape) and isinstance((value.shape or (0,))[0], str)


def tensor_of(value: Value, *, batched: bool) -> OnnxTensor:
    """Return Triton's description of an ONNX tensor of known rank.

    Args:
        value: its shape is not None, and not () unless it is refused before.
        batched: leave the first dimension out, as Triton does where max_batch_size > 0.
    """
    sizes = tuple(size if isinstance(size, int) else -1 for size in value.shape or ())
    if not batched:
        return OnnxTensor(value.name, value.data_type, sizes)
    return OnnxTensor(value.name, value.data_type, sizes[1:] or (1,), flat=len(sizes) == 1)

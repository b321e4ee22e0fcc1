"""The data files that an ONNX file keeps its weights in."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from exporters.graph.onnx_graph import subgraphs
from postprocess.errors import InputError


def files(model: Any, path: Path) -> list[str]:
    """Return the relative paths of the data files that hold the graph's weights.

    Raises:
        InputError: a path is absolute or leads out of the graph's folder, is the graph's own
            new name, or nothing is there.
    """
    import onnx

    found = set()
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = PurePosixPath(entries.get("location", ""))
        if location.is_absolute() or ".." in location.parts or not location.parts:
            raise InputError(
                f"{path}: external data {str(location)!r}: expected a path inside the ONNX "
                "file's own folder"
            )
        if str(location) in ("model.onnx", ".gitkeep"):
            raise InputError(
                f"{path}: external data {str(location)!r}: Triton's own name; save the ONNX "
                "file with another location"
            )
        if not (path.parent / location).is_file():
            raise InputError(f"{path}: external data {str(location)!r}: no such file")
        found.add(str(location))
    return sorted(found)


def _tensors(model: Any) -> Iterator[Any]:
    """Every constant of a model: initializers and attributes, of functions and bodies too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
        else:
            node = nodes.pop()
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
            graphs.extend(subgraphs(node))

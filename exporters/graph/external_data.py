"""The data files that an ONNX file keeps its weights in."""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from exporters.graph import onnx_graph
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


def digest(path: Path) -> str:
    """Return by what a classifier is known again, its weights too: ``sha256:`` and 64 digits.

    Raises:
        InputError: it is no ONNX file, or weights of it are not there.
    """
    return f"sha256:{digest_of(path.read_bytes(), path)}"


def digest_of(graph: bytes, path: Path) -> str:
    """Return the same of a graph, as 64 digits, whose weights lie beside the file at ``path``."""
    found = hashlib.sha256(graph)
    for location in files(onnx_graph.load(path), path):
        weights = hashlib.sha256()
        with (path.parent / location).open("rb") as file:
            while piece := file.read(2**20):  # Python 3.10 has no hashlib.file_digest
                weights.update(piece)
        found.update(weights.digest())
    return found.hexdigest()


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

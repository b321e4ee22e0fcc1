"""How many rows a graph takes at once: any number, as a free batch says, or only one."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exporters.graph import onnx_graph, onnx_run
from exporters.graph.onnx_run import Feed, OnnxSession, Source, one_line
from postprocess.errors import InputError

#: Numbers of rows that a graph with a free batch takes, all of them.
_TRIED = (1, 2, 3)


def only(runner: OnnxSession, source: Source, outputs: list[str]) -> int | None:
    """Return the one number of rows that a graph takes, None where it takes several.

    Args:
        runner: of the graph, whose inputs all declare a free first dimension.
        source: of its input.
        outputs: what it is asked for.

    Raises:
        InputError: it takes no number that was tried, or, with ``source.batched``, not every one.
    """
    takes: list[int] = []
    failed: dict[int, str] = {}
    for rows in dict.fromkeys((*_TRIED, source.first, *onnx_run.ROWS)):
        if rows not in _TRIED and takes:
            break
        try:
            runner(_feed(source, rows), outputs)
        except Exception as error:
            failed[rows] = one_line(error)
        else:
            takes.append(rows)
    if not failed:
        return None
    if len(takes) == 1:
        return takes[0]
    rows, reason = next(iter(failed.items()))
    if not takes:
        raise InputError(f"the graph fails: {reason}; {onnx_run.hint(source)}")
    if source.batched:
        raise InputError(
            f"the graph fails with {rows} in a batch, though not with every number of rows: "
            f"{reason}; give --max-batch-size 0"
        )
    return None


def refusal(rows: int, model: Any) -> str:
    """Return what to say of a graph that takes one number of rows under a free batch."""
    nodes = ", ".join(_baked(model, rows))
    why = f" ({nodes})" if nodes else ""
    return (
        f"takes a batch of {rows} only, though its first dimension is declared free: the batch "
        f"that it was exported with is baked into the graph{why}; give --max-batch-size 0, which "
        f"serves requests of {rows} {'row' if rows == 1 else 'rows'}, or export it anew with a "
        "free batch"
    )


def refuse_one_row(source: Source, path: Path) -> None:
    """Refuse a sample of one row, which does not show whether rows depend on each other.

    Raises:
        InputError: the sample has one row.
    """
    if source.sample is not None and all(len(array) == 1 for array in source.sample.values()):
        raise InputError(
            f"--sample {path}: expected at least 2 rows, to see that they do not depend on each "
            "other"
        )


def refuse_fewer_rows(source: Source, path: Path, rows: int) -> None:
    """Refuse a sample that does not fill one batch.

    Raises:
        InputError: the sample has fewer rows.
    """
    there = min(len(array) for array in (source.sample or {}).values())
    if there < rows:
        raise InputError(
            f"--sample {path}: expected at least {rows} rows, for the graph takes a batch of "
            f"{rows} only, got {there}"
        )


def _feed(source: Source, rows: int) -> Feed:
    if source.sample is not None:  # its rows again and again, where it has fewer
        return {name: array[np.arange(rows) % len(array)] for name, array in source.sample.items()}
    return next(replace(source, batched=True).feeds(rows))


def _baked(model: Any, rows: int) -> Iterator[str]:
    """Yield the names of nodes that reshape to a constant shape with that many rows."""
    from onnx import TensorProto, numpy_helper

    constants = onnx_graph.constants(model)
    for node in model.graph.node:
        if node.op_type in ("Reshape", "Expand"):
            tensor = constants.get(node.input[1])
            if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
                continue
            shape = numpy_helper.to_array(tensor).reshape(-1)
            if len(shape) and shape[0] == rows:
                yield f"{node.op_type} {node.name or node.output[0]}"

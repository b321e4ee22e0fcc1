"""Inputs made up from what a model says it takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.asking.endpoint import EndpointError

#: What is tried for a dimension, other than the batch, that a model leaves open.
OPEN_SIZES = (1, 8, 32, 224)


def closed(shape: Sequence[int], *, batched: bool, rows: int = 1, size: int = 1) -> list[int]:
    """Return the shape with its open dimensions set: a batch to rows, others to size."""
    batch, rest = shape[:batched], shape[batched:]
    return [rows] * len(batch) + [size if one < 0 else one for one in rest]


def filled(one: Any, shape: Sequence[int], fill: np.random.Generator | int) -> NDArray[Any]:
    """Return values for an input.

    Args:
        one: what Triton tells of it: ``name`` and ``datatype``; strings are of digits.
        shape: of the values.
        fill: one number for all; a generator draws floats in [0, 1), and 0 or 1 of all else.

    Raises:
        EndpointError: NumPy knows no such datatype.
    """
    from tritonclient.utils import triton_to_np_dtype

    found = triton_to_np_dtype(one.datatype)
    if found is None:
        raise EndpointError(f"input {one.name} is {one.datatype}")
    dtype = np.dtype(found)
    if isinstance(fill, int):
        values: NDArray[Any] = np.full(shape, fill)
    else:
        values = fill.random(shape) if dtype.kind == "f" else fill.integers(0, 2, shape)
    if dtype.kind == "O":
        return np.array([str(one).encode() for one in values.flat], dtype=object).reshape(shape)
    return values.astype(dtype)

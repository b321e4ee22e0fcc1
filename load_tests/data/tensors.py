"""Rows as the tensors that a model says it takes, or one line that says why they are none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.data.rows import InputRows, Rows
from postprocess.errors import InputError

#: The array of a query set that is no input, unless the model has one of that name.
FEATURES = "features"
#: What arrays of a kind of NumPy's are called, and the kinds that a tensor's kind may be made of.
_CALLED = {"f": "floats", "i": "whole numbers", "u": "whole numbers", "b": "booleans", "O": "text"}
_MADE_OF = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "O": "US"}


@dataclass(frozen=True)
class Taken:
    """One input of a model."""

    name: str
    datatype: str  #: as the model's server calls it, such as FP32
    dtype: np.dtype[Any]  #: of its values; object for strings
    shape: tuple[int, ...]  #: with the batch; -1 is free


def taken(inputs: Any, *, where: str) -> list[Taken]:
    """Return the inputs that Triton's metadata of a model tell of.

    Raises:
        InputError: NumPy has no type for one of them.
    """
    from tritonclient.utils import triton_to_np_dtype

    found = []
    for one in inputs:
        dtype = triton_to_np_dtype(one.datatype)
        if dtype is None:
            raise InputError(f"{where}: input {one.name} is {one.datatype}")
        found.append(Taken(one.name, one.datatype, np.dtype(dtype), tuple(one.shape)))
    return found


def arrays(inputs: Sequence[Taken], rows: Rows, *, where: str) -> dict[str, NDArray[Any]]:
    """Return the array of every input, by its name; strings are bytes in arrays of objects.

    Args:
        inputs: of the model.
        rows: to send. An array goes to the model's only input.
        where: what the error message calls the model.

    Raises:
        InputError: an input has no array or an array no input, of its kind and of its shape.
    """
    if not isinstance(rows, InputRows):
        if len(inputs) != 1 or inputs[0].dtype.kind != "f":
            got = ", ".join(f"{one.name} {one.datatype}" for one in inputs)
            raise InputError(
                f"{where}: expected one input of floats, got {got}; --query-set FILE.npz asks "
                "about such inputs, with an array for each"
            )
        return {inputs[0].name: _cast(inputs[0], arrange(rows, inputs[0].shape), where)}
    given = dict(rows.inputs)
    if any(one.name == FEATURES for one in inputs):
        given.setdefault(FEATURES, rows.features)
    given = _named(inputs, given, where)
    return {one.name: _cast(one, arrange(given[one.name], one.shape), where) for one in inputs}


def refuse_misfits(
    inputs: Sequence[Taken], rows: Rows, *, named: Sequence[str] = (), where: str
) -> None:
    """Refuse what ``arrays`` does, and rows of another shape than the model's.

    Args:
        inputs: of the model.
        rows: to send.
        named: what their inputs are called, where they are an array and it is known.
        where: what the error message calls the model.

    Raises:
        InputError: see above.
    """
    if named and not isinstance(rows, InputRows):
        _named(inputs, dict.fromkeys(named, rows), where)
    for one, values in zip(inputs, arrays(inputs, rows, where=where).values(), strict=True):
        if not fits(values.shape[1:], one.shape):
            raise InputError(
                f"{where}: input {one.name}: expected rows of shape {list(one.shape[1:])}, got "
                f"{list(values.shape[1:])}"
            )


def _named(
    inputs: Sequence[Taken], given: dict[str, NDArray[Any]], where: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays, which are an array for each input and no other."""
    wanted = {one.name: one.datatype for one in inputs}
    takes = ", ".join(f"{name} {datatype}" for name, datatype in wanted.items())
    for name in [name for name in wanted if name not in given]:
        raise InputError(f"{where}: the query set has no array for input {name}; it takes {takes}")
    for name in [name for name in given if name not in wanted]:
        raise InputError(
            f"{where}: has no input {name}, an array of the query set; it takes {takes}"
        )
    return given


def _cast(one: Taken, values: NDArray[Any], where: str) -> NDArray[Any]:
    kind = one.dtype.kind
    if values.dtype.kind not in _MADE_OF[kind]:
        raise InputError(
            f"{where}: input {one.name} is {one.datatype}: expected {_CALLED[kind]}, got "
            f"{values.dtype.name}"
        )
    if kind == "O":
        if values.dtype.kind == "U":
            values = np.char.encode(values, "utf-8")
        return values.astype(object)
    made = values.astype(one.dtype, copy=False)
    if kind in "iu" and not np.array_equal(made, values):
        raise InputError(
            f"{where}: input {one.name} is {one.datatype}, which does not hold values such as "
            f"{values[made != values].flat[0]}"
        )
    return made


def fits(row: Sequence[int], shape: Sequence[int]) -> bool:
    """Return whether a row is of a model's shape, whose first axis is the batch."""
    return len(row) == len(shape) - 1 and all(
        wanted in (-1, size) for wanted, size in zip(shape[1:], row, strict=True)
    )


def arrange(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return rows as the model takes them: as they are, flat, or images with channels first.

    What does not fit in any of these ways is the server's to refuse.
    """
    row = values.shape[1:]
    if fits(row, shape):
        return values
    if len(row) == 3 and fits((row[2], row[0], row[1]), shape):
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    size = int(np.prod(row))
    if fits((size,), shape):
        return values.reshape(len(values), -1)
    return values.reshape(len(values)) if size == 1 and fits((), shape) else values


def filled_input(name: str, datatype: str, values: NDArray[Any]) -> Any:
    """Return tritonclient's InferInput over gRPC, filled."""
    from tritonclient.grpc import InferInput

    made = InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values)
    return made

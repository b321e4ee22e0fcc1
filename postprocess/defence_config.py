"""The whole config.pbtxt of a defence, read: what runs at every load, and in every check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from postprocess import calibration
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Triton's name of the types that scores may have, and NumPy's.
DATA_TYPES: dict[str, np.dtype[Any]] = {
    "TYPE_FP16": np.dtype(np.float16),
    "TYPE_FP32": np.dtype(np.float32),
    "TYPE_FP64": np.dtype(np.float64),
}

#: What a config.pbtxt that names no tensors gets: FP32 scores of any number of classes.
INPUT_NAME, OUTPUT_NAME, MAX_BATCH_SIZE = "victim_scores", "scores", 256
ANY_SCORES = {"data_type": "TYPE_FP32", "dims": [-1]}


@dataclass(frozen=True)
class DefenceConfig:
    """What config.pbtxt says, understood."""

    parameters: Parameters
    input: str  #: name of the tensor of scores
    output: str  #: name of the tensor of protected probabilities
    data_type: np.dtype[Any]  #: of both
    classes: int  #: K, or -1 for any number
    class_axis: int = -1  #: of the classes, counted from the end of the tensor's axes
    table: Calibration | None = field(default=None, repr=False)  #: of calibrated answers


def read(config: Mapping[str, Any], *, directory: Path) -> DefenceConfig:
    """Return what a defence's config says.

    Args:
        config: Triton's ModelConfig as a dictionary, with the tensors in place.
        directory: the model's directory, where config.pbtxt stands.

    Raises:
        InputError: "path of config.pbtxt: what, expected, got".
    """
    where = str(directory / "config.pbtxt")
    strings = {
        key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()
    }
    parameters = Parameters.from_strings(strings, where=where)
    given = _only_tensor(config, "input", where)
    made = _only_tensor(config, "output", where)
    dims = [int(size) for size in given["dims"]]
    if given["data_type"] != made["data_type"]:
        raise InputError(
            f"{where}: expected the same data_type for input and output, "
            f"got {given['data_type']} and {made['data_type']}"
        )
    if dims != [int(size) for size in made["dims"]] or not dims:
        raise InputError(
            f"{where}: expected the same dims for input and output, at least one, "
            f"got {given['dims']} and {made['dims']}"
        )
    axis = class_axis(parameters, dims, batched=bool(config.get("max_batch_size")), where=where)
    if dims[axis] == 0:
        raise InputError(f"{where}: expected at least 1 class, got dims {given['dims']}")
    data_type = DATA_TYPES[given["data_type"]]
    table = read_table(parameters, directory=directory, where=where)
    if table is not None:
        refuse_other_table(table, parameters, dims[axis], data_type, where=where)
    return DefenceConfig(
        parameters, given["name"], made["name"], data_type, dims[axis], axis, table
    )


def read_table(parameters: Parameters, *, directory: Path, where: str) -> Calibration | None:
    """Return the table of calibrated answers that the parameters name, None where they name none.

    Raises:
        InputError: the file cannot be read, or holds no table.
    """
    if parameters.calibration is None:
        return None
    path = directory / parameters.calibration
    return calibration.read(path, where=f"{where}: parameter calibration")


def refuse_other_table(
    table: Calibration,
    parameters: Parameters,
    classes: int,
    data_type: np.dtype[Any],
    *,
    where: str,
) -> None:
    """Refuse a table of calibrated answers that is of another kind of scores.

    Raises:
        InputError: of another number of classes, or of rows where each score is a yes or no.
    """
    place, single = f"{where}: parameter calibration", parameters.multi_label or classes == 1
    if classes != table.classes:
        wanted = "a fixed number of" if classes < 0 else classes
        raise InputError(
            f"{place}: expected a table of {wanted} classes, as dims say, got {table.classes}; "
            "reverse-sigmoid calibrate makes one"
        )
    if single != table.single:
        wanted, got = "yes or no each", "one class of each row"
        wanted, got = (wanted, got) if single else (got, wanted)
        raise InputError(f"{place}: expected a table for {wanted}, got one for {got}")
    try:
        table.refuse_lost_top(data_type)
    except InputError as refusal:
        raise InputError(f"{place}: {refusal}") from None


def class_axis(parameters: Parameters, dims: list[int], *, batched: bool, where: str) -> int:
    """Return the axis of the classes, counted from the end: -1 is the last.

    Args:
        parameters: of the defence; their ``class_axis`` counts the batch dimension too.
        dims: of the tensor, as config.pbtxt has them: without the batch dimension.
        batched: there is one.
        where: what the error message calls the place of the dims.

    Raises:
        InputError: the tensor has no such axis, or it is the batch dimension.
    """
    rank = len(dims) + batched
    axis = parameters.class_axis if parameters.class_axis < 0 else parameters.class_axis - rank
    if not -len(dims) <= axis < 0:
        whole = f"[batch, {', '.join(map(str, dims))}]" if batched else str(dims)
        raise InputError(
            f"{where}: parameter class_axis: expected {int(batched)} to {rank - 1} or "
            f"{-len(dims)} to -1, an axis of the classes in {whole}, got {parameters.class_axis}"
        )
    return axis


def _only_tensor(config: Mapping[str, Any], kind: str, where: str) -> Mapping[str, Any]:
    tensors: list[Mapping[str, Any]] = config.get(kind, [])
    if len(tensors) != 1:
        raise InputError(f"{where}: {kind}: expected exactly one tensor, got {len(tensors)}")
    if "reshape" in tensors[0]:  # which would make other rows of the scores
        raise InputError(f"{where}: {kind}: expected no reshape, got {tensors[0]['reshape']}")
    if tensors[0]["data_type"] not in DATA_TYPES:
        raise InputError(
            f"{where}: {kind}: expected {' or '.join(DATA_TYPES)}, got {tensors[0]['data_type']}"
        )
    return tensors[0]

"""The whole config.pbtxt of a defence, read: what runs at every load, and in every check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from postprocess.errors import InputError
from postprocess.parameters import Parameters, read_key

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
    key: bytes = field(repr=False)  #: the secret in ``key_file``; empty without one
    input: str  #: name of the tensor of scores
    output: str  #: name of the tensor of protected probabilities
    data_type: np.dtype[Any]  #: of both
    classes: int  #: K, or -1 for any number


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
    key = b""
    if parameters.key_file is not None:
        key = read_key(parameters.key_file, directory=directory, where=where)
    given = _only_tensor(config, "input", where)
    made = _only_tensor(config, "output", where)
    dims = [int(size) for size in given["dims"]]
    if given["data_type"] != made["data_type"]:
        raise InputError(
            f"{where}: expected the same data_type for input and output, "
            f"got {given['data_type']} and {made['data_type']}"
        )
    if dims != [int(size) for size in made["dims"]] or not dims or dims[-1] == 0:
        raise InputError(
            f"{where}: expected the same dims for input and output, the last one the number of "
            f"classes, got {given['dims']} and {made['dims']}"
        )
    return DefenceConfig(
        parameters, key, given["name"], made["name"], DATA_TYPES[given["data_type"]], dims[-1]
    )


def _only_tensor(config: Mapping[str, Any], kind: str, where: str) -> Mapping[str, Any]:
    tensors: list[Mapping[str, Any]] = config.get(kind, [])
    if len(tensors) != 1:
        raise InputError(f"{where}: {kind}: expected exactly one tensor, got {len(tensors)}")
    if tensors[0]["data_type"] not in DATA_TYPES:
        raise InputError(
            f"{where}: {kind}: expected {' or '.join(DATA_TYPES)}, got {tensors[0]['data_type']}"
        )
    return tensors[0]

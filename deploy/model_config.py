"""A model's config.pbtxt, read by the grammar that Triton reads it by."""

from pathlib import Path
from typing import Any

from postprocess.errors import InputError
from postprocess.parameters import Parameters


def read(path: Path) -> Any:
    """Return the ``ModelConfig`` message that a config.pbtxt holds.

    Raises:
        InputError: "path: line: what is wrong", or the file cannot be read.
    """
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: {line}: expected UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        # Its text starts with "line:column : ", where it knows them.
        reason = str(error).partition(" : ")[2] if error.GetLine() else str(error)
        place = f"{error.GetLine()}: " if error.GetLine() else ""
        raise InputError(f"{path}: {place}{' '.join(reason.split())}") from None


def strings(config: Any) -> dict[str, str]:
    """Return the string parameters of a ``ModelConfig``, sorted by key."""
    return {key: config.parameters[key].string_value for key in sorted(config.parameters)}


def is_defence(config: Any) -> bool:
    """Say whether a loaded model is our defence: it has the parameters that only ours has."""
    if config.backend != "python":
        return False
    try:
        Parameters.from_strings(strings(config), where="")
    except InputError:
        return False
    return True


def in_words(parameters: dict[str, str]) -> str:
    """Return the parameters as a person reads them, ``beta 1.5, gamma 0.2``."""
    return ", ".join(f"{key} {value}" for key, value in parameters.items())

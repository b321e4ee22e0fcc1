"""A model's config.pbtxt, read by the grammar that Triton reads it by."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from exporters.repository.config_pbtxt import FUSED_MARK
from postprocess.defence_config import DATA_TYPES
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Triton's types of floats; a defence has none for the last.
_FLOATS = (*DATA_TYPES, "TYPE_BF16")


def read(path: Path) -> Any:
    """Return the ``ModelConfig`` message that a config.pbtxt holds.

    Raises:
        InputError: "path: line: what is wrong", or the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: {line}: expected UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, path)


def of_model(folder: Path) -> Any:
    """Return the ``ModelConfig`` of the model in a folder REPOSITORY/NAME.

    Raises:
        InputError: its config.pbtxt cannot be read, or there is no such model, but others.
    """
    path = folder / "config.pbtxt"
    if folder.is_file():
        inside = folder.name == path.name or folder.parent.name.isdigit()
        model = folder.parent.parent if folder.parent.name.isdigit() else folder.parent
        said = f"give {model}" if inside else "protect makes one of an ONNX file"
        raise InputError(f"{folder}: expected a model's folder REPOSITORY/NAME, got a file; {said}")
    if not path.exists() and not folder.exists():
        there = ", ".join(sorted(one.parent.name for one in folder.parent.glob("*/config.pbtxt")))
        raise InputError(
            f"{folder}: no such model; {folder.parent} holds {there or 'none, or is no repository'}"
        )
    return read(path)


def read_all(repository: Path) -> dict[str, Any]:
    """Return the ``ModelConfig`` of every model that has one which can be read, by its name."""
    configs = {}
    for path in sorted(repository.glob("*/config.pbtxt")):
        with suppress(InputError):  # check says so
            configs[path.parent.name] = read(path)
            configs[path.parent.name].name = path.parent.name
    return configs


def parse(text: str, path: Path) -> Any:
    """Return the ``ModelConfig`` message that a text holds; messages call it ``path``.

    Raises:
        InputError: "path: line: what is wrong".
    """
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        # Its text starts with "line:column : ", where it knows them.
        reason = str(error).partition(" : ")[2] if error.GetLine() else str(error)
        place = f"{error.GetLine()}: " if error.GetLine() else ""
        raise InputError(f"{path}: {place}{' '.join(reason.split())}") from None


def backend_of(config: Any) -> str:
    """Return a model's backend, which older configs call a platform: ``onnxruntime_onnx``."""
    return str(config.backend or config.platform.partition("_")[0])


def step_names(config: Any) -> list[str]:
    """Return the models that an ensemble runs, in the order of its steps; none of another."""
    return [step.model_name for step in config.ensemble_scheduling.step]


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


def may_be_defence(config: Any) -> bool:
    """Say whether it is a defence, be it one with parameters that are refused."""
    return config.backend == "python" and "scores" in config.parameters


def fused_output(config: Any) -> str | None:
    """Return the output that a defence in the model's own graph makes, None without one."""
    if backend_of(config) != "onnxruntime" or FUSED_MARK not in config.parameters:
        return None
    return str(config.parameters[FUSED_MARK].string_value)


def in_words(parameters: dict[str, str]) -> str:
    """Return the parameters as a person reads them, ``beta 1.5, gamma 0.2``."""
    return ", ".join(f"{key} {value}" for key, value in parameters.items())


def as_dict(config: Any) -> dict[str, Any]:
    """Return a ``ModelConfig`` as the dictionary that Triton hands to a Python model."""
    from google.protobuf.json_format import MessageToDict

    values: dict[str, Any] = MessageToDict(config, preserving_proto_field_name=True)
    return values


def data_type_name(tensor: Any) -> str:
    """Return Triton's name of a tensor's type, such as TYPE_FP32."""
    from tritonclient.grpc.model_config_pb2 import DataType

    return str(DataType.Name(tensor.data_type))


def holds_floats(tensor: Any) -> bool:
    """Say whether a tensor's numbers are such as scores are."""
    return data_type_name(tensor) in _FLOATS


def parameter_keys(text: str) -> list[str]:
    """Return the keys of a config.pbtxt's parameters, as often as they stand there.

    Of two parameters of one key the parsed message keeps only one, and Triton's own parser not
    the same one as Python's.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
    from tritonclient.grpc import model_config_pb2

    # The same grammar, with the map of parameters read as the list that it is on the wire.
    file = descriptor_pb2.FileDescriptorProto()
    model_config_pb2.DESCRIPTOR.CopyToProto(file)
    (message,) = [kind for kind in file.message_type if kind.name == "ModelConfig"]
    (entry,) = [kind for kind in message.nested_type if kind.name == "ParametersEntry"]
    entry.options.map_entry = False
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    listing = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    config: Any = text_format.Parse(text, listing())
    return [parameter.key for parameter in config.parameters]

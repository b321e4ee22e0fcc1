"""The defence as ONNX operators at the end of the classifier's own graph: the fused layout.

One model, no hop, and no raw classifier that anybody could reach. The numbers are those of
``postprocess``; they are computed in float64, where the closed forms need none of the care
that float32 asks for. What ONNX has no operators for, fresh noise, is refused.
"""

import json
from typing import Any

import postprocess
from exporters.fusing import defence_nodes
from exporters.graph import onnx_graph
from exporters.graph.onnx_graph import Value
from exporters.graph.onnx_nodes import Nodes
from postprocess import calibration, defence_config
from postprocess.calibration import Calibration
from postprocess.defence_config import DATA_TYPES
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Every node, tensor and initializer of the defence is named under it.
PREFIX = "reverse_sigmoid/"
#: The classifier's own scores, within the graph.
VICTIM_SCORES = f"{PREFIX}victim_scores"
#: The key of the model's metadata that holds the parameters.
METADATA = "reverse_sigmoid"
#: Defences that ONNX has operators for.
EXPRESSIBLE = ("reverse_sigmoid", "calibrated", "decoy")
#: Oldest operator set that has all the operators: TopK, ScatterElements, Round.
OLDEST_OPSET, NEW_OPSET, OLDEST_IR = 11, 17, 4


def fuse(model: Any, output: str, parameters: Parameters, table: Calibration | None = None) -> None:
    """Append the defence, in place, to the graph that makes ``output``.

    Args:
        model: ONNX ``ModelProto`` of a classifier; its output holds what ``parameters.scores``
            says, the classes on the last axis.
        output: name of the tensor of scores. It keeps its name, type and shape, and holds
            protected probabilities from now on.
        parameters: of the defence.
        table: of calibrated answers, where the parameters ask for such.

    A row of scores that cannot be protected, which the defence as a model of its own refuses
    with an error, is answered with -1 in all its entries: a graph cannot refuse one row, and NaN
    is no JSON.

    Raises:
        InputError: ONNX cannot express the parameters, or the graph cannot hold the defence.
    """
    refuse_inexpressible(parameters)
    refuse_defended(model)
    opset = onnx_graph.opset(model)
    if 0 < opset < OLDEST_OPSET:
        raise InputError(
            f"--layout fused: expected opset {OLDEST_OPSET} or newer, got {opset}; export the "
            "classifier anew, or give --layout ensemble"
        )
    if not opset:
        model.opset_import.add(domain="", version=NEW_OPSET)
    model.ir_version = max(model.ir_version, OLDEST_IR)
    onnx_graph.rename(model.graph, output, VICTIM_SCORES)
    _append(model, output, parameters, table)


def refuse_defended(model: Any) -> None:
    """Refuse a graph that holds a defence.

    Raises:
        InputError: it does.
    """
    if any(name.startswith(PREFIX) for name in onnx_graph.names(model.graph)):
        raise InputError(
            f"the graph holds a defence already: tensors under {PREFIX}; give the classifier's own "
            "file, or change the defence with reverse-sigmoid retune"
        )


def retune(model: Any, parameters: Parameters, table: Calibration | None = None) -> None:
    """Replace the defence of a fused graph, in place, by one with other parameters.

    Args:
        model: ONNX ``ModelProto`` that ``fuse`` has been through.
        parameters: the new ones. What the scores are cannot change.
        table: of calibrated answers; without one, that of the graph.

    Raises:
        InputError: there is no defence in the graph, or ONNX cannot express the parameters.
    """
    read_parameters(model, where="the graph")
    refuse_inexpressible(parameters)
    output, table = output_of(model), table or read_table(model)
    graph = model.graph
    nodes = [node for node in graph.node if not node.name.startswith(PREFIX)]
    initializers = [one for one in graph.initializer if not one.name.startswith(PREFIX)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
    _append(model, output, parameters, table)


def read_table(model: Any) -> Calibration | None:
    """Return the table of calibrated answers in a fused graph, None without one.

    Raises:
        InputError: it is malformed.
    """
    text = (_metadata(model) or {}).get("table")
    return None if text is None else calibration.parse(text)


def read_parameters(model: Any, *, where: str) -> Parameters:
    """Return the parameters of the defence in a fused graph.

    Raises:
        InputError: the graph says nothing about a defence, or something that is none.
    """
    return Parameters.from_strings(read_strings(model, where=where), where=where)


def read_strings(model: Any, *, where: str) -> dict[str, str]:
    """Return the parameters of the defence in a fused graph as config.pbtxt would hold them.

    Raises:
        InputError: the graph says nothing about a defence.
    """
    said = _metadata(model)
    if said is None:
        raise InputError(f"{where}: expected a fused defence, the graph holds none")
    strings: dict[str, str] = said["parameters"]
    return strings


def refuse_altered(model: Any) -> None:
    """Refuse a fused graph whose defence is not the one that its parameters make.

    What another version of this project wrote is taken as it is.

    Raises:
        InputError: there is no defence, or it was changed by other means than ``retune``.
    """
    parameters = read_parameters(model, where="the graph")
    if (_metadata(model) or {}).get("version") != postprocess.__version__:
        return
    again = type(model)()
    again.CopyFrom(model)
    retune(again, parameters)
    if _defence(again) != _defence(model):
        raise InputError(
            "the defence in the graph is not the one that its parameters make: it was changed by "
            "hand, or made by another build; reverse-sigmoid retune makes it anew, also with a "
            "parameter as it is"
        )


def _defence(model: Any) -> list[bytes]:
    graph = model.graph
    return [
        one.SerializeToString(deterministic=True)
        for one in (*graph.node, *graph.initializer)
        if one.name.startswith(PREFIX)
    ]


def output_of(model: Any) -> str:
    """Return the output of a fused graph that the defence makes.

    Raises:
        InputError: no output of the graph is made by the defence.
    """
    made = {name for node in model.graph.node if node.name.startswith(PREFIX)
            for name in node.output}  # fmt: skip
    for value in model.graph.output:
        if value.name in made:
            return str(value.name)
    raise InputError("no output of the graph is made by the defence")


def refuse_inexpressible(parameters: Parameters) -> None:
    """Refuse what ONNX has no operators for.

    Raises:
        InputError: the reason.
    """
    if parameters.defense not in EXPRESSIBLE:
        raise InputError(
            f"--layout fused: parameter defense: expected {', '.join(EXPRESSIBLE)}, got "
            f"{parameters.defense}; use --layout ensemble"
        )


def _append(model: Any, output: str, parameters: Parameters, table: Calibration | None) -> None:
    (value,) = [value for value in onnx_graph.outputs(model) if value.name == output]
    if parameters.calibration is None:
        table = None
    elif table is None:
        raise InputError("parameter calibration: expected its table, got none")
    else:
        _refuse_other_table(table, value, parameters)
    nodes = Nodes(model, PREFIX, opset=onnx_graph.opset(model))
    defence_nodes.append(nodes, VICTIM_SCORES, output, value, parameters, table=table)
    for entry in list(model.metadata_props):
        if entry.key == METADATA:
            model.metadata_props.remove(entry)
    said: dict[str, Any] = {
        "version": postprocess.__version__,
        "parameters": parameters.to_strings(),
    }
    if table is not None:
        said["table"] = table.text()
    model.metadata_props.add(key=METADATA, value=json.dumps(said))


def _refuse_other_table(table: Calibration, value: Value, parameters: Parameters) -> None:
    shape = value.shape or ("",)
    free = len(shape) == 1 and isinstance(shape[0], str)  # a batch of single scores
    size = 1 if free else shape[parameters.class_axis]
    defence_config.refuse_other_table(
        table,
        parameters,
        size if isinstance(size, int) else -1,
        DATA_TYPES[value.data_type],
        where=f"output {value.name}",
    )


def _metadata(model: Any) -> dict[str, Any] | None:
    for entry in model.metadata_props:
        if entry.key == METADATA:
            try:
                said = json.loads(entry.value)
                if all(isinstance(one, str) for one in said["parameters"].values()):
                    keys = ("version", "parameters", "table")
                    return {key: said.get(key) for key in keys}
            except (ValueError, TypeError, KeyError, AttributeError):
                pass
            raise InputError(f"metadata {METADATA}: expected what --layout fused writes")
    return None

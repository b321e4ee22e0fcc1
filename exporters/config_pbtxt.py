"""The three config.pbtxt files of a protected classifier, as text."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from exporters import defence_parameters
from exporters.onnx_signature import OnnxTensor, Signature
from postprocess.parameters import Parameters

#: The parameter that tells a fused model: its value is the output that the defence makes.
FUSED_MARK = "reverse_sigmoid_fused"

_PARAMETER = re.compile(
    r'^parameters \{ key: "(\w+)" value: \{ string_value: "(.*)" \} \}$', re.MULTILINE
)

#: Of the three models: ensemble, victim, defence.
Names = tuple[str, str, str]


def inner_scores(signature: Signature) -> OnnxTensor:
    """Return the tensor between victim and defence; its name is the ensemble's alone."""
    name = "victim_scores"
    taken = {tensor.name for tensor in (*signature.inputs, signature.scores, *signature.labels)}
    while name in taken:
        name += "_"
    return replace(signature.scores, name=name, flat=False)


def declaration(tensor: OnnxTensor, *, of_graph: bool = False) -> str:
    """Return one tensor's declaration; to the graph itself, a flat one is reshaped."""
    dims = ", ".join(str(size) for size in tensor.dims)
    reshape = " reshape: { shape: [ ] }" if tensor.flat and of_graph else ""
    name = _quoted(tensor.name)
    return f"{{ name: {name} data_type: {tensor.data_type} dims: [ {dims} ]{reshape} }}"


def _list(tensors: Iterable[OnnxTensor], *, of_graph: bool = False) -> str:
    found = [declaration(tensor, of_graph=of_graph) for tensor in tensors]
    if len(found) == 1:
        return f"[ {found[0]} ]"
    return "[\n  " + ",\n  ".join(found) + "\n]"


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _map(kind: str, outer: str, inner: str) -> str:
    return f"      {kind}_map {{ key: {_quoted(inner)} value: {_quoted(outer)} }}"


def _meaning(signature: Signature, parameters: Parameters) -> str:
    """Return what the answer of the ensemble is, as comments."""
    count = signature.classes
    if count == 1:
        says = (
            "# The Reverse Sigmoid probability of a yes, in [0, 1]: its side of 1/2 is the\n"
            "# classifier's own."
        )
    elif parameters.multi_label:
        labels = f"{count} labels" if count > 0 else "labels"
        says = (
            f"# Reverse Sigmoid probabilities of {labels}, each a yes or no of its own:\n"
            "# in [0, 1], on the classifier's side of 1/2. They do not sum to 1."
        )
    else:
        classes = f"{count} classes" if count > 0 else "classes of a request"
        says = f"# Reverse Sigmoid probabilities over the {classes}; each row sums to 1."
        if signature.class_axis != -1:
            says += f"\n# A row lies along axis {signature.class_axis}, counted with the batch."
    for label in signature.labels:
        says += f"\n# {label.name} is the classifier's own: it tells the top class, and no more."
    return says


def _pairs(signature: Signature, parameters: Parameters) -> str:
    """Return what a row is to the defence, as a comment, where it is not a row of the tensor."""
    if signature.classes != 1 and not parameters.multi_label:
        return ""
    each = "Each score" if parameters.multi_label else "The score"
    return (
        f"# {each} is a yes or no: what stands below about a row and its classes is about the\n"
        "# pair of probabilities (y, 1 - y). The answer is the first of the two.\n"
    )


def of_ensemble(
    names: Names, signature: Signature, parameters: Parameters, max_client_batch: int | None = None
) -> str:
    """Return the config of the public model; a request may have ``max_client_batch`` rows."""
    rows = signature.max_batch_size if max_client_batch is None else max_client_batch
    inner, scores = inner_scores(signature).name, signature.scores.name
    to_victim = "\n".join(_map("input", given.name, given.name) for given in signature.inputs)
    labels = "".join("\n" + _map("output", label.name, label.name) for label in signature.labels)
    return f"""\
# The public model: what clients call. Its answer is the defence's, the last step below.
name: "{names[0]}"
platform: "ensemble"
max_batch_size: {rows}
input {_list(signature.inputs)}
{_meaning(signature, parameters)}
output {_list((signature.scores, *signature.labels))}
ensemble_scheduling {{
  step [
    {{
      model_name: "{names[1]}"
      model_version: -1
{to_victim}
{_map("output", inner, scores)}{labels}
    }},
    {{
      model_name: "{names[2]}"
      model_version: -1
{_map("input", inner, inner)}
{_map("output", scores, scores)}
    }}
  ]
}}
"""


def of_fused(name: str, signature: Signature, parameters: Parameters) -> str:
    """Return the config of a classifier with the defence in its graph."""
    return f"""\
# The public model: the classifier with the defence in its own graph. No other model stands
# behind it, so there are no raw scores to reach. Its parameters are in 1/model.onnx:
#   reverse-sigmoid check REPOSITORY      shows them
#   reverse-sigmoid retune REPOSITORY/{name} --beta BETA --gamma GAMMA      changes them
name: "{name}"
backend: "onnxruntime"
max_batch_size: {signature.max_batch_size}
input {_list(signature.inputs, of_graph=True)}
{_meaning(signature, parameters)}
# A row of scores that is not finite is answered with -1 in all its entries: no answer.
output {_list((signature.scores, *signature.labels), of_graph=True)}

# Says which output the defence in the graph makes: serve watches the model, and a gateway lets
# clients reach it, because of this line.
parameters {{ key: "{FUSED_MARK}" value: {{ string_value: {_quoted(signature.scores.name)} }} }}

{_ONE_INSTANCE}{_batching(signature)}"""


def of_classifier(names: Names, signature: Signature) -> str:
    """Return the config of the victim."""
    return f"""\
# The victim: the classifier itself. Whoever can reach this name gets its raw scores, so let
# clients reach the ensemble "{names[0]}" only.
name: "{names[1]}"
backend: "onnxruntime"
max_batch_size: {signature.max_batch_size}
input {_list(signature.inputs, of_graph=True)}
output {_list((signature.scores, *signature.labels), of_graph=True)}
{_ONE_INSTANCE}{_batching(signature)}"""


def of_defence(names: Names, signature: Signature, parameters: Parameters) -> str:
    """Return the config of the defence."""
    return f"""\
# The defence: Reverse Sigmoid. Every parameter is a string; one that is unknown, malformed,
# missing or out of range stops this model from loading, and with it the ensemble "{names[0]}".
name: "{names[2]}"
backend: "python"
max_batch_size: {signature.max_batch_size}
input {_list([inner_scores(signature)])}
{_pairs(signature, parameters)}output {_list([signature.scores])}

{defence_parameters.text(parameters)}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{_batching(signature)}"""


#: Measured on 2 cores that the clients share, one run with both, one client, batch 1: p50 0.67
#: times that of two instances for the AllConv of CIFAR-10, 0.80 for digits; 32 clients: 1.23 and
#: 1.13 times the throughput. No kind: a GPU where there is one.
_ONE_INSTANCE = """\
# One instance runs each batch on all cores. Triton's own default for a CPU is two, which take
# them from each other: a request alone took 1.5 times as long.
instance_group [ { count: 1 } ]
"""

_BATCHING = """\
# Merges requests that wait, without delaying any: 32 clients of one row each got 1.2 times the
# rows per second by it in the defence alone, 1.4 times by it in both models.
dynamic_batching { }
"""


def _batching(signature: Signature) -> str:
    if not signature.batched:
        return "# No batch dimension: Triton runs requests one at a time.\n"
    return _BATCHING


def read_parameters(config: Path) -> Parameters:
    """Return the parameters of a defence's config.pbtxt that this project wrote."""
    strings = dict(_PARAMETER.findall(config.read_text(encoding="utf-8")))
    return Parameters.from_strings(strings, where=str(config))

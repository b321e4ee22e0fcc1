"""The config.pbtxt files of a protected classifier, as text: three, and one more for each head.

Where a function takes several defences' parameters, they are in the order of the signature's
scores.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from exporters.graph.onnx_signature import OnnxTensor, Signature
from exporters.repository import defence_parameters
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: The parameter that tells a fused model: its value is the output that the defence makes.
FUSED_MARK = "reverse_sigmoid_fused"

_PARAMETER = re.compile(
    r'^parameters \{ key: "(\w+)" value: \{ string_value: "(.*)" \} \}$', re.MULTILINE
)

#: Of the models: ensemble, victim, and each head's defence.
Names = Sequence[str]


def inner_scores(signature: Signature) -> list[OnnxTensor]:
    """Return the tensors between victim and defences; their names are the ensemble's alone."""
    taken = {tensor.name for tensor in (*signature.inputs, *signature.scores, *signature.labels)}
    found = []
    for scores in signature.scores:
        name = f"victim_{scores.name}" if len(signature.scores) > 1 else "victim_scores"
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(replace(scores, name=name, flat=False, label_filename=""))
    return found


def declaration(tensor: OnnxTensor, *, of_graph: bool = False) -> str:
    """Return one tensor's declaration; to the graph itself, a flat one is reshaped."""
    dims = ", ".join(str(size) for size in tensor.dims)
    reshape = " reshape: { shape: [ ] }" if tensor.flat and of_graph else ""
    name = _quoted(tensor.name)
    labels = f" label_filename: {_quoted(tensor.label_filename)}" if tensor.label_filename else ""
    return f"{{ name: {name} data_type: {tensor.data_type} dims: [ {dims} ]{reshape}{labels} }}"


def _list(tensors: Iterable[OnnxTensor], *, of_graph: bool = False) -> str:
    found = [declaration(tensor, of_graph=of_graph) for tensor in tensors]
    if len(found) == 1:
        return f"[ {found[0]} ]"
    return "[\n  " + ",\n  ".join(found) + "\n]"


def _quoted(name: str) -> str:
    if not name.isprintable():
        raise InputError(
            f"tensor {name!r}: expected a name without control characters, which config.pbtxt "
            "cannot hold; rename it in the model"
        )
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mapped(kind: str, outer: str, inner: str) -> str:
    """Return the line of a step that maps its ``inner`` input or output to an ensemble's tensor."""
    return f"      {kind}_map {{ key: {_quoted(inner)} value: {_quoted(outer)} }}"


def _meanings(signature: Signature, defences: Sequence[Parameters]) -> str:
    """Return what the answers of the ensemble are, as comments."""
    says = "\n".join(
        _meaning(signature, scores, parameters)
        for scores, parameters in zip(signature.scores, defences, strict=True)
    )
    for label in signature.labels:
        says += f"\n# {label.name} is the classifier's own: it tells the top class, and no more."
    return says


def _meaning(signature: Signature, scores: OnnxTensor, parameters: Parameters) -> str:
    count = _classes(signature, scores, parameters)
    which = f" {scores.name}:" if len(signature.scores) > 1 else ""
    if count == 1:
        return (
            f"#{which} The probability of a yes as the defence makes it, in [0, 1]: its side of 1/2"
            " is the\n# classifier's own."
        )
    if parameters.multi_label:
        labels = f"{count} labels" if count > 0 else "labels"
        return (
            f"#{which} Probabilities of {labels} as the defence makes them, each a yes or no of its"
            " own:\n# in [0, 1], on the classifier's side of 1/2. They do not sum to 1."
        )
    classes = f"{count} classes" if count > 0 else "classes of a request"
    says = (
        f"#{which} Probabilities over the {classes} as the defence makes them; each row sums to 1."
    )
    if parameters.class_axis != -1:
        says += f"\n# A row lies along axis {parameters.class_axis}, counted with the batch."
    return says


def _classes(signature: Signature, scores: OnnxTensor, parameters: Parameters) -> int:
    """Return the number of classes, K; -1 where each request has its own."""
    return scores.shape(batched=signature.batched)[parameters.class_axis]


def _pairs(signature: Signature, scores: OnnxTensor, parameters: Parameters) -> str:
    """Return what a row is to the defence, as a comment, where it is not a row of the tensor."""
    if _classes(signature, scores, parameters) != 1 and not parameters.multi_label:
        return ""
    each = "Each score" if parameters.multi_label else "The score"
    return (
        f"# {each} is a yes or no: what stands below about a row and its classes is about the\n"
        "# pair of probabilities (y, 1 - y). The answer is the first of the two.\n"
    )


def of_ensemble(
    names: Names,
    signature: Signature,
    defences: Sequence[Parameters],
    max_client_batch: int | None = None,
) -> str:
    """Return the config of the public model; a request may have ``max_client_batch`` rows."""
    rows = signature.max_batch_size if max_client_batch is None else max_client_batch
    public, victim, *behind = names
    answers = "Its answer is the defence's, the last step below."
    if len(behind) > 1:
        answers = "Its answers are the defences', the last steps below."
    heads = list(zip(behind, inner_scores(signature), signature.scores, strict=True))
    to_victim = "\n".join(mapped("input", given.name, given.name) for given in signature.inputs)
    from_victim = [mapped("output", inner.name, scores.name) for _, inner, scores in heads]
    from_victim += [mapped("output", label.name, label.name) for label in signature.labels]
    last = ",\n".join(
        step(
            defence,
            mapped("input", inner.name, inner.name),
            mapped("output", scores.name, scores.name),
        )
        for defence, inner, scores in heads
    )
    return f"""\
# The public model: what clients call. {answers}
name: "{public}"
platform: "ensemble"
max_batch_size: {rows}
input {_list(signature.inputs)}
{_meanings(signature, defences)}
output {_list((*signature.scores, *signature.labels))}
ensemble_scheduling {{
  step [
{step(victim, to_victim, *from_victim)},
{last}
  ]
}}
"""


def step(model: str, *maps: str) -> str:
    """Return a step of an ensemble, of its lines of maps."""
    lines = "\n".join(maps)
    return f"""\
    {{
      model_name: "{model}"
      model_version: -1
{lines}
    }}"""


def of_fused(name: str, signature: Signature, parameters: Parameters) -> str:
    """Return the config of a classifier of one head with the defence in its graph."""
    (scores,) = signature.scores
    return f"""\
# The public model: the classifier with the defence in its own graph. No other model stands
# behind it, so there are no raw scores to reach. Its parameters are in 1/model.onnx:
#   reverse-sigmoid check REPOSITORY      shows them
#   reverse-sigmoid retune REPOSITORY/{name} --beta BETA --gamma GAMMA      changes them
name: "{name}"
backend: "onnxruntime"
max_batch_size: {signature.max_batch_size}
input {_list(signature.inputs, of_graph=True)}
{_meanings(signature, [parameters])}
# A row of scores that is not finite is answered with -1 in all its entries: no answer.
output {_list((*signature.scores, *signature.labels), of_graph=True)}

# Says which output the defence in the graph makes: serve watches the model, and a gateway lets
# clients reach it, because of this line.
parameters {{ key: "{FUSED_MARK}" value: {{ string_value: {_quoted(scores.name)} }} }}

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
output {_list((*signature.scores, *signature.labels), of_graph=True)}
{_ONE_INSTANCE}{_batching(signature)}"""


def of_defences(
    names: Names, signature: Signature, defences: Sequence[Parameters]
) -> dict[str, str]:
    """Return the configs of the defences, by their names."""
    heads = zip(names[2:], inner_scores(signature), signature.scores, defences, strict=True)
    return {
        name: f"""\
# The defence. Every parameter is a string; one that is unknown, malformed, missing or out of
# range stops this model from loading, and with it the ensemble "{names[0]}".
name: "{name}"
backend: "python"
max_batch_size: {signature.max_batch_size}
input {_list([inner])}
{_pairs(signature, scores, parameters)}output {_list([replace(scores, label_filename="")])}

{defence_parameters.text(parameters)}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{_batching(signature)}"""
        for name, inner, scores, parameters in heads
    }


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

"""The three models of a protected classifier, as files that Triton reads.

An ensemble under the public name, the victim behind it, and the defence as the last step.
The commented config.pbtxt files are the operator's place to tune, so a file that exists is
kept as it is.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from exporters import defence_parameters
from exporters.atomic_file import write_text
from exporters.onnx_signature import Signature, Tensor
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: The defence that is shipped. Chosen by measuring, see the comments that stand in the
#: config.pbtxt it is written to.
SHIPPED = Parameters(beta=1.5, gamma=0.2, margin=0.01, scores="logits")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def classifier_name(name: str) -> str:
    """Return the victim's model name behind the public name."""
    return f"{name}_classifier"


def defence_name(name: str) -> str:
    """Return the defence's model name behind the public name."""
    return f"{name}_reverse_sigmoid"


def model_names(name: str) -> tuple[str, str, str]:
    """Return the names of the three models: ensemble, victim, defence."""
    return name, classifier_name(name), defence_name(name)


def onnx_path(repository: Path, name: str) -> Path:
    """Return where the victim's ONNX file stands."""
    return repository / classifier_name(name) / "1" / "model.onnx"


def files(
    name: str, signature: Signature, parameters: Parameters, *, self_contained: bool = False
) -> dict[str, str]:
    """Return every file of the three models but the ONNX file: relative path to text.

    Args:
        name: the public model name.
        signature: of the victim's graph.
        parameters: of the defence.
        self_contained: take the package ``postprocess`` from beside model.py, where the
            caller puts a copy, and not from where it is installed.

    Raises:
        InputError: the name is not one that Triton can serve.
    """
    refuse_name(name)
    classifier, defence = classifier_name(name), defence_name(name)
    return {
        f"{name}/config.pbtxt": _ensemble_config(name, signature, parameters),
        # Triton wants a version folder even of an ensemble, git keeps no empty one.
        f"{name}/1/.gitkeep": "",
        f"{classifier}/config.pbtxt": _classifier_config(name, signature),
        f"{classifier}/1/.gitkeep": "",
        f"{defence}/config.pbtxt": _defence_config(name, signature, parameters),
        f"{defence}/1/model.py": _MODEL_PY_SELF_CONTAINED if self_contained else _MODEL_PY,
    }


def refuse_name(name: str) -> None:
    """Refuse a model name that Triton cannot serve or that is no folder's name.

    Raises:
        InputError: the name is not one that Triton can serve.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "model name: expected letters, digits, '_', '-' and '.', the first a letter or a "
            f"digit, got {name!r}"
        )


def write(repository: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write the files that are not there yet and return the paths that were kept.

    Kept are only those that differ from what would have been written: an operator's edits.

    Raises:
        InputError: the folder cannot be written.
    """
    kept = []
    for relative, text in texts.items():
        path = repository / relative
        try:
            if not path.exists():
                write_text(path, text)
            elif path.read_text(encoding="utf-8") != text:
                kept.append(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return kept


def refuse_other_tensors(kept: list[Path], signature: Signature) -> None:
    """Refuse kept config files that declare other tensors than the classifier has.

    Raises:
        InputError: a file of ``kept`` does not fit the signature.
    """
    for path in kept:
        fits = [_tensor(tensor) for tensor in (*signature.inputs, signature.scores)]
        inner = _tensor(_inner_scores(signature))
        text = path.read_text(encoding="utf-8")
        if path.name == "config.pbtxt" and sum(tensor in text for tensor in (*fits, inner)) < 2:
            raise InputError(
                f"{path}: exists and declares other tensors than {' and '.join(fits)}; "
                "choose another --name, or remove it"
            )


def _inner_scores(signature: Signature) -> Tensor:
    """Return the tensor between victim and defence; its name is the ensemble's alone."""
    name = "victim_scores"
    taken = {tensor.name for tensor in (*signature.inputs, signature.scores, *signature.labels)}
    while name in taken:
        name += "_"
    return replace(signature.scores, name=name, flat=False)


def _tensor(tensor: Tensor, *, of_graph: bool = False) -> str:
    """Return one tensor's declaration; to the graph itself, a flat one is reshaped."""
    dims = ", ".join(str(size) for size in tensor.dims)
    reshape = " reshape: { shape: [ ] }" if tensor.flat and of_graph else ""
    name = _quoted(tensor.name)
    return f"{{ name: {name} data_type: {tensor.data_type} dims: [ {dims} ]{reshape} }}"


def _list(tensors: Iterable[Tensor], *, of_graph: bool = False) -> str:
    found = [_tensor(tensor, of_graph=of_graph) for tensor in tensors]
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
        classes = f"{count} classes" if count > 0 else "classes of the last axis"
        says = f"# Reverse Sigmoid probabilities over the {classes}; each row sums to 1."
    for label in signature.labels:
        says += f"\n# {label.name} is the classifier's own: it tells the top class, and no more."
    return says


def _ensemble_config(name: str, signature: Signature, parameters: Parameters) -> str:
    inner, scores = _inner_scores(signature).name, signature.scores.name
    to_victim = "\n".join(_map("input", given.name, given.name) for given in signature.inputs)
    labels = "".join("\n" + _map("output", label.name, label.name) for label in signature.labels)
    return f"""\
# The public model: what clients call. Its answer is the defence's, the last step below.
name: "{name}"
platform: "ensemble"
max_batch_size: {signature.max_batch_size}
input {_list(signature.inputs)}
{_meaning(signature, parameters)}
output {_list((signature.scores, *signature.labels))}
ensemble_scheduling {{
  step [
    {{
      model_name: "{classifier_name(name)}"
      model_version: -1
{to_victim}
{_map("output", inner, scores)}{labels}
    }},
    {{
      model_name: "{defence_name(name)}"
      model_version: -1
{_map("input", inner, inner)}
{_map("output", scores, scores)}
    }}
  ]
}}
"""


def _classifier_config(name: str, signature: Signature) -> str:
    return f"""\
# The victim: the classifier itself. Whoever can reach this name gets its raw scores, so let
# clients reach the ensemble "{name}" only.
name: "{classifier_name(name)}"
backend: "onnxruntime"
max_batch_size: {signature.max_batch_size}
input {_list(signature.inputs, of_graph=True)}
output {_list((signature.scores, *signature.labels), of_graph=True)}
{_batching(signature)}"""


def _defence_config(name: str, signature: Signature, parameters: Parameters) -> str:
    return f"""\
# The defence: Reverse Sigmoid. Every parameter is a string; one that is unknown, malformed,
# missing or out of range stops this model from loading, and with it the ensemble "{name}".
name: "{defence_name(name)}"
backend: "python"
max_batch_size: {signature.max_batch_size}
input {_list([_inner_scores(signature)])}
output {_list([signature.scores])}

{defence_parameters.text(parameters)}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{_batching(signature)}"""


def _batching(signature: Signature) -> str:
    if not signature.batched:
        return "# No batch dimension: Triton runs requests one at a time.\n"
    return "# Merges requests that wait, without delaying any.\ndynamic_batching { }\n"


_MODEL_PY = '''\
"""The defence as a Triton model; all of it is in the installed package ``postprocess``."""

from postprocess.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

_MODEL_PY_SELF_CONTAINED = '''\
"""The defence as a Triton model; all of it is in the folder ``postprocess`` beside this file."""

import sys
from pathlib import Path

# Triton's stub looks among the installed packages before it looks here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from postprocess.triton_model import TritonPythonModel  # noqa: E402

__all__ = ["TritonPythonModel"]
'''

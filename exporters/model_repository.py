"""The three models of a protected classifier, as files that Triton reads.

An ensemble under the public name, the victim behind it, and the defence as the last step.
The commented config.pbtxt files are the operator's place to tune, so a file that exists is
kept as it is.
"""

import re
from collections.abc import Mapping
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

#: Most rows in one request, and in one batch that Triton puts together.
MAX_BATCH_SIZE = 256


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


def files(name: str, signature: Signature, parameters: Parameters) -> dict[str, str]:
    """Return every file of the three models but the ONNX file: relative path to text.

    Args:
        name: the public model name.
        signature: of the victim's graph.
        parameters: of the defence.

    Raises:
        InputError: the name is not one that Triton can serve.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "model name: expected letters, digits, '_', '-' and '.', the first a letter or a "
            f"digit, got {name!r}"
        )
    classifier, defence = classifier_name(name), defence_name(name)
    return {
        f"{name}/config.pbtxt": _ensemble_config(name, signature),
        # Triton wants a version folder even of an ensemble, git keeps no empty one.
        f"{name}/1/.gitkeep": "",
        f"{classifier}/config.pbtxt": _classifier_config(name, signature),
        f"{classifier}/1/.gitkeep": "",
        f"{defence}/config.pbtxt": _defence_config(name, signature, parameters),
        f"{defence}/1/model.py": _MODEL_PY,
    }


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
    scores = replace(signature.output, name="victim_scores")
    for path in kept:
        fits = [_tensor(tensor) for tensor in (signature.input, signature.output, scores)]
        text = path.read_text(encoding="utf-8")
        if path.name == "config.pbtxt" and sum(tensor in text for tensor in fits) < 2:
            raise InputError(
                f"{path}: exists and declares other tensors than {fits[0]} and {fits[1]}; "
                "choose another --name, or remove it"
            )


def _tensor(tensor: Tensor) -> str:
    dims = ", ".join(str(size) for size in tensor.dims)
    return f'{{ name: "{tensor.name}" data_type: {tensor.data_type} dims: [ {dims} ] }}'


def _ensemble_config(name: str, signature: Signature) -> str:
    given, scores = signature.input.name, signature.output.name
    return f"""\
# The public model: what clients call. Its answer is the defence's, the last step below.
name: "{name}"
platform: "ensemble"
max_batch_size: {MAX_BATCH_SIZE}
input [ {_tensor(signature.input)} ]
# Reverse Sigmoid probabilities over the {signature.classes} classes; each row sums to 1.
output [ {_tensor(signature.output)} ]
ensemble_scheduling {{
  step [
    {{
      model_name: "{classifier_name(name)}"
      model_version: -1
      input_map {{ key: "{given}" value: "{given}" }}
      output_map {{ key: "{scores}" value: "victim_scores" }}
    }},
    {{
      model_name: "{defence_name(name)}"
      model_version: -1
      input_map {{ key: "victim_scores" value: "victim_scores" }}
      output_map {{ key: "{scores}" value: "{scores}" }}
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
max_batch_size: {MAX_BATCH_SIZE}
input [ {_tensor(signature.input)} ]
output [ {_tensor(signature.output)} ]
# Merges requests that wait, without delaying any.
dynamic_batching {{ }}
"""


def _defence_config(name: str, signature: Signature, parameters: Parameters) -> str:
    scores = Tensor("victim_scores", signature.output.data_type, signature.output.dims)
    return f"""\
# The defence: Reverse Sigmoid. Every parameter is a string; one that is unknown, malformed,
# missing or out of range stops this model from loading, and with it the ensemble "{name}".
name: "{defence_name(name)}"
backend: "python"
max_batch_size: {MAX_BATCH_SIZE}
input [ {_tensor(scores)} ]
output [ {_tensor(signature.output)} ]

{defence_parameters.text(parameters)}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
# Merges requests that wait, without delaying any.
dynamic_batching {{ }}
"""


_MODEL_PY = '''\
"""The defence as a Triton model; all of it is in the installed package ``postprocess``."""

from postprocess.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''

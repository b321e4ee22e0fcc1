"""The models of a protected classifier, as files that Triton reads.

An ensemble under the public name, the victim behind it, and as the last steps a defence for each
head, which is one as a rule: three models.
The commented config.pbtxt files are the operator's place to tune, so a file that exists is
kept as it is.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporters.files.atomic_file import write_text
from exporters.graph.onnx_signature import Signature
from exporters.repository import config_pbtxt
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: The defence that is shipped. Chosen by measuring, see the comments that stand in the
#: config.pbtxt it is written to.
SHIPPED = Parameters(beta=1.5, gamma=0.2, margin=0.01, scores="logits")

#: What Triton serves, a folder may be called, and the gateway tells apart; and the same in words.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
NAME_IN_WORDS = "1 to 100 letters, digits, '_', '-' and '.', the first a letter, a digit or '_'"


def classifier_name(name: str) -> str:
    """Return the victim's model name behind the public name."""
    return f"{name}_classifier"


def defence_name(name: str, output: str = "") -> str:
    """Return the defence's model name behind the public name; of several, of one output."""
    servable = re.sub(r"[^A-Za-z0-9_.-]+", "_", output)
    return f"{name}_{servable}_reverse_sigmoid" if output else f"{name}_reverse_sigmoid"


def model_names(name: str, outputs: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names of the models: ensemble, victim, and a defence for each head.

    Args:
        name: the public model name.
        outputs: the heads' outputs. Of a single one the defence does not say it.

    Raises:
        InputError: the defences of two outputs would get the same name.
    """
    if len(outputs) < 2:
        return name, classifier_name(name), defence_name(name)
    defences = [defence_name(name, output) for output in outputs]
    for output, defence in zip(outputs, defences, strict=True):
        first = outputs[defences.index(defence)]
        if first != output:
            raise InputError(
                f"outputs {first} and {output}: the defences of both would be called {defence}; "
                "rename one in the graph, or protect each by itself under another --name"
            )
    return name, classifier_name(name), *defences


def onnx_path(repository: Path, name: str) -> Path:
    """Return where the victim's ONNX file stands."""
    return repository / classifier_name(name) / "1" / "model.onnx"


def files(
    name: str,
    signature: Signature,
    *defences: Parameters,
    self_contained: bool = False,
    max_client_batch: int | None = None,
) -> dict[str, str]:
    """Return every file of the models but the ONNX file: relative path to text.

    Args:
        name: the public model name.
        signature: of the victim's graph.
        defences: the parameters of each head's, in the order of the signature's scores.
        self_contained: take the package ``postprocess`` from beside model.py, where the
            caller puts a copy, and not from where it is installed.
        max_client_batch: most rows of a client's request, as many as the victim takes by
            default. With 1, who counts requests counts queries; Triton still merges them.

    Raises:
        InputError: the name is not one that Triton can serve, two defences would have the same,
            or ``max_client_batch`` is more than the victim takes.
    """
    refuse_name(name)
    most = signature.max_batch_size
    if max_client_batch is not None and not 1 <= max_client_batch <= most:
        raise InputError(
            f"--max-client-batch: expected 1 to {most}, got {max_client_batch}"
            if most
            else "--max-client-batch: the model has no batch dimension that Triton could limit"
        )
    names = model_names(name, [scores.name for scores in signature.scores])
    classifier = names[1]
    texts = {
        f"{name}/config.pbtxt": config_pbtxt.of_ensemble(
            names, signature, defences, max_client_batch
        ),
        # Triton wants a version folder even of an ensemble, git keeps no empty one.
        f"{name}/1/.gitkeep": "",
        f"{classifier}/config.pbtxt": config_pbtxt.of_classifier(names, signature),
        f"{classifier}/1/.gitkeep": "",
    }
    for defence, text in config_pbtxt.of_defences(names, signature, defences).items():
        texts[f"{defence}/config.pbtxt"] = text
        texts[f"{defence}/1/model.py"] = _MODEL_PY_SELF_CONTAINED if self_contained else _MODEL_PY
    return texts


def fused_onnx_path(repository: Path, name: str) -> Path:
    """Return where the ONNX file of a fused model stands."""
    return repository / name / "1" / "model.onnx"


def fused_files(name: str, signature: Signature, parameters: Parameters) -> dict[str, str]:
    """Return every file of a fused model but the ONNX file: relative path to text."""
    return {f"{name}/config.pbtxt": config_pbtxt.of_fused(name, signature, parameters)}


def refuse_name(name: str, *, where: str = "--name") -> None:
    """Refuse a public model name that Triton or the gateway cannot serve, or that is no folder's.

    Raises:
        InputError: it is none; the message proposes one that is.
    """
    if not NAME.fullmatch(name):
        near = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:99]
        proposed = f"; for example {near}" if near else ""
        raise InputError(
            f"{where}: expected a model name of {NAME_IN_WORDS}, got {name!r}{proposed}"
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
        tensors = (*signature.inputs, *signature.scores, *config_pbtxt.inner_scores(signature))
        *fits, inner = [config_pbtxt.declaration(tensor) for tensor in tensors]
        text = path.read_text(encoding="utf-8")
        if path.name == "config.pbtxt" and sum(tensor in text for tensor in (*fits, inner)) < 2:
            raise InputError(
                f"{path}: exists and declares other tensors than {' and '.join(fits)}; "
                "choose another --name, or remove it"
            )


_IMPORT = """\
import postprocess

if getattr(postprocess, "PROJECT", "") != "triton-reverse-sigmoid":
    raise ImportError(
        "expected the postprocess of triton-reverse-sigmoid, and what stands at "
        f"{getattr(postprocess, '__file__', None) or list(postprocess.__path__)} shadows it; "
        "rename that, or copy the package beside this file: protect --self-contained"
    )

from postprocess.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
"""

_MODEL_PY = f'''\
"""The defence as a Triton model; all of it is in the installed package ``postprocess``."""

{_IMPORT}'''

_MODEL_PY_SELF_CONTAINED = f'''\
"""The defence as a Triton model; all of it is in the folder ``postprocess`` beside this file."""

import sys
from pathlib import Path

# Triton's stub looks among the installed packages before it looks here.
sys.path.insert(0, str(Path(__file__).resolve().parent))

{_IMPORT}'''

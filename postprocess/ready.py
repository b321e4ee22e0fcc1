"""Whether a protected model answers as it should: ``python -m postprocess.ready MODEL``.

A health check for containers: Triton goes on saying READY when the process of a model is dead.
Asked is the question that stands beside the model (``postprocess.question``), found in
``--repository``, or else one made up; the answer must look like a protected one. Of an ensemble,
whose parameters the server tells, the victim is asked too, the answer is computed here, and the
ensemble has to give it. Needs NumPy alone.
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.calibration import Calibration
from postprocess.defence_config import DATA_TYPES, read_table
from postprocess.errors import ReverseSigmoidError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import (
    DTYPES,
    LikeRawError,
    Question,
    QuestionTensor,
    WrongAnswerError,
    is_flat,
    path_in,
    read,
)

#: Header of Triton's restricted APIs, and the variable that names the file of its value.
KEY_HEADER, KEY_FILE = "triton-key", "TRITON_KEY_FILE"
#: The variable that names the model repository, as the Dockerfile sets it.
REPOSITORY = "MODEL_REPOSITORY"
#: The parameter of a fused model: which output the defence in its graph makes.
FUSED_MARK = "reverse_sigmoid_fused"
#: How far the ensemble may be from what is computed here: the victim's last digits may differ.
TOLERANCE = 1e-3
#: What made-up questions are filled with.
FILLS = (0, 1)
#: Where Triton's binary protocol says how long the JSON before the tensors is.
_LENGTH = "Inference-Header-Content-Length"


class NotReadyError(ReverseSigmoidError):
    """The model does not answer, or not as it should."""


class Triton:
    """Triton's HTTP endpoint on this host."""

    def __init__(self, url: str, key: str | None, timeout_s: float) -> None:
        self._url, self._timeout_s = url.rstrip("/"), timeout_s
        self._headers = {} if key is None else {KEY_HEADER: key}
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def ask(self, path: str) -> Any:
        """Return the JSON that a path answers.

        Raises:
            NotReadyError: it answers with an error, or not in time.
        """
        return self._parsed(path, *self._send(path, None, {}))

    def infer(self, model: str, inputs: Sequence[QuestionTensor], output: str) -> NDArray[Any]:
        """Return one output of a model, in its own type."""
        data, headers = body_of(inputs, output=output)
        path = f"{model}/infer"
        body, length = self._send(path, data, headers)
        answer = self._parsed(path, body, length)
        (tensor,) = answer["outputs"]
        values = np.frombuffer(body[length:], DTYPES[tensor["datatype"]])
        return values.reshape(tensor["shape"])

    def _send(self, path: str, data: bytes | None, headers: dict[str, str]) -> tuple[bytes, int]:
        """Return what is answered, and how much of it is JSON."""
        request = urllib.request.Request(  # noqa: S310
            f"{self._url}/v2/models/{path}", data=data, headers=self._headers | headers
        )
        try:
            with self._open(request, timeout=self._timeout_s) as response:
                body: bytes = response.read()
                return body, int(response.headers.get(_LENGTH) or len(body))
        except urllib.error.HTTPError as error:
            raise NotReadyError(f"{path}: {error}{_reason(error)}") from None
        except (OSError, ValueError) as error:
            raise NotReadyError(f"{path}: {error}") from None

    @staticmethod
    def _parsed(path: str, body: bytes, length: int) -> Any:
        try:
            return json.loads(body[:length])
        except ValueError as error:
            raise NotReadyError(f"{path}: {error}") from None


def body_of(
    inputs: Sequence[QuestionTensor], *, output: str | None
) -> tuple[bytes, dict[str, str]]:
    """Return a request for inference in Triton's binary protocol: its body and its headers.

    Args:
        inputs: of one request.
        output: the one that is wanted; None is all of them.
    """
    parts = [one.encoded() for one in inputs]
    asked: dict[str, Any] = {
        "inputs": [
            {
                "name": one.name,
                "datatype": one.datatype,
                "shape": list(one.values.shape),
                "parameters": {"binary_data_size": len(part)},
            }
            for one, part in zip(inputs, parts, strict=True)
        ]
    }
    if output is None:
        asked["parameters"] = {"binary_data_output": True}
    else:
        asked["outputs"] = [{"name": output, "parameters": {"binary_data": True}}]
    head = json.dumps(asked).encode()
    headers = {_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return b"".join([head, *parts]), headers


@dataclass(frozen=True)
class _Defence:
    """What a model's configuration says about the defence of one output."""

    output: str
    parameters: Parameters | None  #: of an ensemble's; those of a fused one stand in its graph
    victim: str = ""  #: "" where it cannot be asked
    victim_output: str = ""
    given: Mapping[str, str] | None = None  #: the victim's inputs to the model's
    model: str = ""  #: the defence's own name, of an ensemble's


def check(
    triton: Triton, model: str, kept: Sequence[Question] = (), *, repository: Path | None = None
) -> None:
    """Raise unless the model gives answers that defences have made, in each of its outputs.

    Args:
        triton: is asked.
        model: the public one, of either layout.
        kept: the questions that stand beside it.
        repository: where tables of calibrated answers stand, if they can be read.

    Raises:
        NotReadyError: it does not.
    """
    defences = _defences(triton, model)
    asked = {one.looks.output: one for one in kept}
    for output in asked.keys() - {defence.output for defence in defences}:
        raise NotReadyError(f"{model}: no defence makes output {output}, as one did")
    for defence in defences:
        where = model if len(defences) == 1 else f"{model}, output {defence.output}"
        try:
            table = _table(repository, defence)
            _check(triton, model, defence, asked.get(defence.output), where, table=table)
        except WrongAnswerError as error:
            raise NotReadyError(f"{where}: {error}") from None


def _table(repository: Path | None, defence: _Defence) -> Calibration | None:
    """Return the table that a defence answers by, as far as it can be read from here."""
    if repository is None or defence.parameters is None or not defence.model:
        return None
    folder = repository / defence.model
    return read_table(defence.parameters, directory=folder, where=str(folder))


def _check(
    triton: Triton,
    model: str,
    defence: _Defence,
    kept: Question | None,
    where: str,
    *,
    table: Calibration | None,
) -> None:
    """Raise unless one output is what its defence has made; ``where`` is in messages."""
    off = defence.parameters is not None and defence.parameters.defense == "none"
    if off and (kept is None or kept.defence.defense != "none"):
        raise NotReadyError(f"{where}: its configuration says defense none, so nothing protects it")
    like_raw: LikeRawError | None = None
    for inputs, answer in _answers(triton, model, defence, kept):
        raw = _raw(triton, defence, inputs)
        if raw is None or defence.parameters is None:
            break
        axis = -1 if kept is None else kept.looks.axis
        try:
            compare(answer, raw, defence.parameters, axis=axis, table=table)
            break
        except LikeRawError as error:
            like_raw = error  # where it is right, another question tells
    else:
        raise like_raw or NotReadyError(f"{where}: has no inputs")
    if kept is None:
        if not (np.isfinite(answer).all() and answer.min() >= 0 and answer.max() <= 1):
            raise NotReadyError(f"{where}: answered with what is no row of probabilities")
        return
    # What was computed from the victim's own scores holds for a victim that is another now too.
    by_table = defence.parameters is not None and defence.parameters.calibration is not None
    computed = raw is not None and (table is not None if by_table else repeats(kept.defence))
    known = not computed and defence.parameters in (None, kept.defence)
    kept.looks.judge(answer, bounds=known)
    again = None if kept.looks.repeats else triton.infer(model, inputs, defence.output)
    if again is not None and np.array_equal(answer, again):
        raise NotReadyError(f"{where}: answered alike twice, though its defence draws at random")


def _raw(
    triton: Triton, defence: _Defence, inputs: Sequence[QuestionTensor]
) -> NDArray[Any] | None:
    """Return the victim's own scores, None where it cannot be asked."""
    if defence.given is None:
        return None
    given = {one.name: one for one in inputs}
    inner = [replace(given[of], name=name) for name, of in defence.given.items()]
    return triton.infer(defence.victim, inner, defence.victim_output)


def _answers(
    triton: Triton, model: str, defence: _Defence, kept: Question | None
) -> Iterator[tuple[Sequence[QuestionTensor], NDArray[Any]]]:
    """Yield questions that the model takes, the kept one or some made up, and their answers."""
    if kept is not None:
        yield kept.inputs, triton.infer(model, kept.inputs, defence.output)
        return
    tensors = triton.ask(model)["inputs"]
    refused: list[NotReadyError] = []
    for fill in FILLS:
        inputs = [_row(one, fill) for one in tensors]
        try:
            answer = triton.infer(model, inputs, defence.output)
        except NotReadyError as error:
            refused.append(error)
            continue
        yield inputs, answer
    if len(refused) == len(FILLS):
        raise refused[0]


def _defences(triton: Triton, model: str) -> list[_Defence]:
    """Return what the configuration that Triton serves says about each output's defence."""
    config = triton.ask(f"{model}/config")
    fused = _fused(config)
    if fused:
        return [_Defence(fused, None)]
    steps = config.get("ensemble_scheduling", {}).get("step", [])
    floats = {one["name"] for one in config["output"] if one["data_type"] in DATA_TYPES}
    found = [
        _defence(triton, model, config, step, output)
        for step in steps
        for output in sorted(floats.intersection(step["output_map"].values()))
    ]
    if not found:
        raise NotReadyError(f"{model}: is no protected model, neither ensemble nor fused defence")
    return found


def _defence(
    triton: Triton, model: str, config: Mapping[str, Any], last: Mapping[str, Any], output: str
) -> _Defence:
    """Return what the configuration of the step that makes an output says about its defence."""
    said = triton.ask(f"{last['model_name']}/config")
    if last["output_map"].get(_fused(said)) == output:
        return _Defence(output, None)
    strings = {name: one["string_value"] for name, one in said.get("parameters", {}).items()}
    parameters = Parameters.from_strings(
        strings,
        where=f"{model}: the step {last['model_name']}, which makes output {output}, is no defence",
    )
    (read_by_it,) = last["input_map"].values()
    clients = {one["name"] for one in config["input"]}
    for step in config["ensemble_scheduling"]["step"]:
        for made, tensor in step["output_map"].items():
            if tensor == read_by_it and set(step["input_map"].values()) <= clients:
                given = step["input_map"]
                victim = step["model_name"]
                return _Defence(output, parameters, victim, made, given, last["model_name"])
    return _Defence(output, parameters, model=last["model_name"])


def _fused(config: Mapping[str, Any]) -> str:
    said = config.get("parameters", {}).get(FUSED_MARK, {})
    return str(said.get("string_value", ""))


def compare(
    answer: NDArray[Any],
    raw: NDArray[Any],
    parameters: Parameters,
    *,
    axis: int = -1,
    table: Calibration | None = None,
) -> None:
    """Raise unless an answer is what the parameters make of the victim's scores.

    A defence that answers at random, or by a table that is not at hand, must only not give them
    as they are; of a table of more than two classes, its rows must be flat beside.

    Args:
        answer: of the protected model.
        raw: the victim's scores for the same question, classes last unless the shapes are equal.
        parameters: in force.
        axis: of the classes in the answer.
        table: of calibrated answers.

    Raises:
        LikeRawError: it is near the victim's own scores, which a right one may be by chance.
        WrongAnswerError: it is not.
    """
    if answer.shape == raw.shape:
        raw = np.moveaxis(raw, axis, -1)
    answer = np.moveaxis(answer, axis, -1)
    if answer.shape != raw.shape or not np.isfinite(answer).all():
        raise WrongAnswerError(f"answered with shape {answer.shape}, expected {raw.shape}")
    rows, scores = (one.reshape(-1, one.shape[-1]) for one in (answer, raw))
    if parameters.calibration is not None and rows.shape[1] > 2 and not parameters.multi_label:
        # On confident rows its numbers are near a raw answer's, whose rest is seldom flat too.
        if not all(map(is_flat, rows)) or (rows.argmax(axis=1) != scores.argmax(axis=1)).any():
            raise WrongAnswerError("answered with what is no calibrated row", raw=True)
        if table is None and not all(map(is_flat, scores)):
            return
    if table is None and (parameters.calibration is not None or not repeats(parameters)):
        if np.abs(rows - scores).max() <= TOLERANCE:
            raise LikeRawError
        return
    expected = Postprocessor(parameters, table=table)(np.ascontiguousarray(scores))
    step = 0.0 if parameters.decimals is None else 10.0**-parameters.decimals
    near = 1e-2 if scores.dtype == np.float16 else TOLERANCE
    if not np.abs(rows.astype(np.float64) - expected).max() <= near + step:
        raise WrongAnswerError("answered otherwise than its own configuration asks for")


def repeats(parameters: Parameters) -> bool:
    """Return whether the same scores get the same answer here as there, without a table."""
    return parameters.repeats and parameters.calibration is None


def _row(tensor: Mapping[str, Any], fill: int) -> QuestionTensor:
    shape = [max(1, int(size)) for size in tensor["shape"]]
    if tensor["datatype"] == "BYTES":
        return QuestionTensor(tensor["name"], "BYTES", np.full(shape, b"1" * fill, object))
    return QuestionTensor(
        tensor["name"], tensor["datatype"], np.full(shape, fill, DTYPES[tensor["datatype"]])
    )


def _reason(error: urllib.error.HTTPError) -> str:
    """Return what Triton says beside the status, such as what a defence refuses."""
    try:
        said = json.loads(error.read())["error"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f": {' '.join(str(said).split())}"


def main() -> int:
    """Return 0 if every model named is ready, 1 with a line on stderr if one is not."""
    parser = argparse.ArgumentParser(prog="python -m postprocess.ready")
    parser.add_argument("model", nargs="+", help="public name of a protected model")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="Triton's HTTP endpoint")
    parser.add_argument("--timeout-seconds", type=float, default=5, help="of each request")
    parser.add_argument(
        "--repository",
        type=Path,
        default=os.environ.get(REPOSITORY) or None,
        help=f"model repository, for the questions kept in it (default: ${REPOSITORY}, or else "
        "questions are made up)",
    )
    arguments = parser.parse_args()
    key, repository = os.environ.get(KEY_FILE), arguments.repository
    try:
        secret = Path(key).read_text().strip() if key else None
        triton = Triton(arguments.url, secret, arguments.timeout_seconds)
        for model in arguments.model:
            kept = [] if repository is None else read(path_in(repository, model))
            check(triton, model, kept, repository=repository)
    except (ReverseSigmoidError, OSError, LookupError, TypeError, ValueError) as error:
        said = str(error) if isinstance(error, ReverseSigmoidError) else repr(error)
        print(f"not ready: {said}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

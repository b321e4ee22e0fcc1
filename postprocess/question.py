"""A question that a protected model was seen to answer, and what a right answer looks like.

``protect`` and ``export`` keep it as ``question.json`` in the public model's folder; ``serve``
and ``python -m postprocess.ready`` ask it. No raw score stands in it, and nothing that tells one:
the bounds are those of the protected answer, rounded outwards.

| key | meaning |
| --- | --- |
| ``format`` | 1 |
| ``inputs`` | each with ``name``, ``datatype``, ``shape`` as clients send them, and ``data``: numbers or strings; or ``packed``: the bytes that Triton reads, zlib in base64 |
| ``parameters`` | of the defence that was seen to answer, as config.pbtxt holds them |
| ``answer`` | of the output ``output``: its ``shape``; the ``axis`` of the classes; whether rows ``sum_to_1``; whether the same question ``repeats`` its answer; and of one ``row`` the class ``top``, ``least`` and ``most`` of whose score no raw answer lies between, null where that cannot be told, and ``flat``, whether all other classes have one score, which they have in no raw answer |

A model of several heads has a question for each, which asks for that head's output alone:
``format`` is 2, and ``questions`` holds what stands in this table.
"""  # noqa: E501

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprocess.arrays import Float64
from postprocess.errors import InputError, ReverseSigmoidError
from postprocess.parameters import Parameters

FILE, FORMAT, SEVERAL = "question.json", 1, 2
#: Entries that are written as a person reads them; more are packed.
READABLE = 1024
#: Triton's datatypes, except BYTES, as NumPy's.
DTYPES = {
    **{f"FP{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype("bool"),
}
#: How far rounding to float16 may carry a score, and half of what it may add to a row.
ROUNDING = 1e-2
_MEND = "write it anew with reverse-sigmoid protect --force, or remove it"


class WrongAnswerError(ReverseSigmoidError):
    """An answer that does not look right; ``raw``: like one that no defence has touched."""

    def __init__(self, text: str, *, raw: bool = False) -> None:
        super().__init__(text)
        self.raw = raw


class LikeRawError(WrongAnswerError):
    """An answer that the victim's own scores may be too, and that may be right all the same."""

    def __init__(self) -> None:
        super().__init__("answered with the victim's own scores", raw=True)


@dataclass(frozen=True)
class QuestionTensor:
    """One input, as clients send it."""

    name: str
    datatype: str  #: Triton's name of it, such as FP32; BYTES for strings
    values: NDArray[Any]  #: of BYTES an array of ``bytes`` objects

    def encoded(self) -> bytes:
        """Return the tensor as Triton's binary protocol has it."""
        if self.datatype != "BYTES":
            return np.ascontiguousarray(self.values).tobytes()
        return b"".join(len(one).to_bytes(4, "little") + one for one in self.values.flat)


@dataclass(frozen=True)
class Looks:
    """What a right answer looks like."""

    output: str
    shape: tuple[int, ...]
    axis: int = -1  #: of the classes; all others are rows
    sum_to_1: bool = True
    repeats: bool = True  #: the defence answers the same question alike
    row: int = 0
    top: int | None = None  #: a class of that row, by default the one with the highest score
    least: float | None = None
    most: float | None = None
    flat: bool = False  #: all but one class of that row have one score, as no raw answer has it

    @property
    def tells_raw(self) -> bool:
        """Whether a raw answer is seen to be one."""
        return self.least is not None or self.flat or not self.repeats

    def judge(self, answer: NDArray[Any], *, bounds: bool = True) -> None:
        """Raise unless an answer looks right.

        Args:
            answer: of the model, any float type.
            bounds: whether the defence has the parameters that the bounds were seen with.

        Raises:
            WrongAnswerError: it does not.
        """
        if answer.shape != self.shape:
            raise WrongAnswerError(f"answered with shape {answer.shape}, expected {self.shape}")
        rows = as_rows(answer, self.axis)
        if not np.isfinite(rows).all():
            raise WrongAnswerError("answered with numbers that are not finite")
        if rows.min() < -ROUNDING or rows.max() > 1 + ROUNDING:
            raise WrongAnswerError("answered with what is no protected row: scores outside [0, 1]",
                                   raw=True)  # fmt: skip
        if self.sum_to_1 and (np.abs(rows.sum(axis=1) - 1) > 2 * ROUNDING).any():
            raise WrongAnswerError("answered with rows that do not sum to 1", raw=True)
        if not bounds or self.top is None:
            return
        row = rows[self.row]
        least, most = self.least or 0.0, 2.0 if self.most is None else self.most
        if not least <= row[self.top] <= most:
            raise WrongAnswerError(
                f"answered otherwise than its defence does: the score of class {self.top} is not "
                f"from {least:g} to {most:g}, as it was when it was protected",
                raw=True,
            )
        if self.flat and not is_flat(row):
            raise WrongAnswerError(
                f"answered otherwise than its defence does: all classes but {self.top} had one "
                "score then",
                raw=True,
            )
        if self.sum_to_1 and self.repeats and row[self.top] < row.max():
            raise WrongAnswerError(f"answered with another top class than {self.top}")


@dataclass(frozen=True)
class Question:
    """A question, the parameters it was answered with, and how."""

    inputs: tuple[QuestionTensor, ...]
    parameters: Mapping[str, str]
    looks: Looks

    @property
    def defence(self) -> Parameters:
        """The parameters that the bounds hold for."""
        return Parameters.from_strings(self.parameters, where=FILE)

    def unbound(self) -> "Question":
        """Return the question without the bounds, for a defence that is another now."""
        return replace(self, looks=replace(self.looks, top=None, least=None, most=None))

    def text(self) -> str:
        """Return the file."""
        answer = {**vars(self.looks), "shape": list(self.looks.shape)}
        said = {
            "format": FORMAT,
            "about": "asked by health checks; see the docstring of postprocess/question.py",
            "parameters": dict(self.parameters),
            "answer": answer,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in said.items()]
        inputs = ",\n".join(f"    {json.dumps(_written(one))}" for one in self.inputs)
        return "{\n" + ",\n".join([*lines, f'  "inputs": [\n{inputs}\n  ]']) + "\n}\n"


def text_of(questions: Sequence[Question]) -> str:
    """Return the file of a model's questions, one for each head."""
    if len(questions) == 1:
        return questions[0].text()
    bodies = ",\n".join(one.text().rstrip("\n") for one in questions)
    return f'{{\n"format": {SEVERAL},\n"questions": [\n{bodies}\n]\n}}\n'


def as_rows(scores: NDArray[Any], axis: int) -> Float64:
    """Return scores of any shape as rows of K, shape (rows, K), in float64."""
    moved = np.moveaxis(np.asarray(scores, np.float64), axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def is_flat(row: NDArray[Any]) -> bool:
    """Return whether all classes of a row but the highest have one score, to the last digit."""
    rest = np.delete(row, row.argmax())
    return bool((rest == rest[0]).all())


def readings(scores: Float64, axis: int) -> list[Float64]:
    """Return what an unprotected answer may look like: the scores, their softmax, their sigmoid."""
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    sigmoid = 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
    return [scores, powers / powers.sum(axis=axis, keepdims=True), sigmoid]


def path_in(repository: Path, model: str) -> Path:
    """Return where a public model's question stands."""
    return repository / model / FILE


def read(path: Path) -> list[Question]:
    """Return the questions of a file; none if there is no file: older repositories have none.

    Raises:
        InputError: the file cannot be read, or is damaged.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged: {error}; {_MEND}") from None
    try:
        several = said["format"] == SEVERAL and "questions" in said
        questions = [_question(one) for one in (said["questions"] if several else [said])]
        outputs = [one.looks.output for one in questions]
        if not outputs or len(set(outputs)) < len(outputs):
            raise InputError(f"questions: expected one for each output, got {outputs}")
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error, InputError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: damaged: {reason}; {_MEND}") from None
    return questions


def _question(said: Mapping[str, Any]) -> Question:
    if said["format"] != FORMAT:
        raise InputError(f"expected format {FORMAT}, got {said['format']!r}")
    answer = said["answer"]
    looks = Looks(**{**answer, "shape": tuple(int(size) for size in answer["shape"])})
    _refuse_nonsense(looks)
    question = Question(tuple(map(_read, said["inputs"])), dict(said["parameters"]), looks)
    _ = question.defence
    return question


def _refuse_nonsense(looks: Looks) -> None:
    if not looks.shape or min(looks.shape) < 1:
        raise InputError(f"answer: expected a shape, got {looks.shape}")
    classes = looks.shape[looks.axis]
    rows = int(np.prod(looks.shape)) // classes
    if not 0 <= looks.row < rows or not (looks.top is None or 0 <= looks.top < classes):
        raise InputError(f"answer: no row {looks.row} and class {looks.top} in {looks.shape}")
    bounds = [bound for bound in (looks.least, looks.most) if bound is not None]
    if len(bounds) == 1 or (bounds and not bounds[0] <= bounds[1]):
        raise InputError(f"answer: expected least and most, got {looks.least} and {looks.most}")


def _written(tensor: QuestionTensor) -> dict[str, Any]:
    said = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.values.shape)}
    data = _data(tensor) if tensor.values.size <= READABLE else None
    if data is None:
        packed = base64.b64encode(zlib.compress(tensor.encoded(), 9)).decode()
        return said | {"packed": packed}
    return said | {"data": data}


def _data(tensor: QuestionTensor) -> list[Any] | None:
    """Return the entries as JSON has them, None if it has not."""
    flat = tensor.values.reshape(-1)
    if tensor.datatype == "BYTES":
        try:
            return [one.decode() for one in flat]
        except UnicodeDecodeError:
            return None
    if flat.dtype.kind != "f":
        return list(flat.tolist())
    # The shortest decimal that is read back as the same number of its type.
    return [float(str(one)) for one in flat] if np.isfinite(flat).all() else None


def _read(said: Mapping[str, Any]) -> QuestionTensor:
    name, datatype, shape = str(said["name"]), said["datatype"], [int(n) for n in said["shape"]]
    if datatype != "BYTES" and datatype not in DTYPES:
        raise InputError(f"input {name}: unknown datatype {datatype!r}")
    values: NDArray[Any]
    if "packed" in said:
        raw = zlib.decompress(base64.b64decode(said["packed"], validate=True))
        values = _strings(raw) if datatype == "BYTES" else np.frombuffer(raw, DTYPES[datatype])
    elif datatype == "BYTES":
        values = np.array([str(one).encode() for one in said["data"]], object)
    else:
        values = np.array(said["data"], DTYPES[datatype])
    if values.size != np.prod(shape):
        raise InputError(f"input {name}: expected {shape}, got {values.size} entries")
    return QuestionTensor(name, datatype, values.reshape(shape))


def _strings(raw: bytes) -> NDArray[Any]:
    found, start = [], 0
    while start < len(raw):
        end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
        if end > len(raw):
            raise InputError("strings that end too soon")
        found.append(raw[start + 4 : end])
        start = end
    return np.array([*found, None], object)[:-1]

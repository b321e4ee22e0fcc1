"""Running an ONNX graph on random input, or on the rows of a sample file."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporters.graph import onnx_graph, triton_releases
from exporters.graph.onnx_graph import Value
from postprocess.arrays import Array
from postprocess.errors import InputError

#: One call of a graph: input name to array.
Feed = dict[str, Array]
#: What runs a graph: inputs and the names of outputs to these.
GraphRunner = Callable[[Feed, list[str]], dict[str, Array]]

#: What a symbolic dimension other than the batch is tried with, and integers are drawn below:
#: a graph may want an image of some size, or ids of a small vocabulary.
SIZES = (8, 32, 64, 224, 1, 3, 128, 2, 512)
VOCABULARIES = (1000, 100, 10, 2)
#: What a first axis is tried with: a batch of any number of rows takes the first.
ROWS = (2, 1, 3, 4, 8, 16, 32, 64, 128, 256)
#: Seconds after which no other sizes are tried.
TRIED_SECONDS = 60.0
#: Scales of random floats; None is uniform in [0, 1], as images are.
SCALES = (None, 1.0, 10.0, 0.1, 100.0)
#: Most rows and most input elements of one call, so that activations stay small.
MAX_ROWS = 256
MAX_ELEMENTS = 2**19
#: Most input elements of the first call, in which sizes are tried.
TRIED_ELEMENTS = 2**24
#: What onnxruntime says where the machine has no such locale, and what to do.
_NO_LOCALE = "Failed to construct locale"
_A_LOCALE = (
    "install that locale here and where Triton runs, or export with one that every Linux has "
    "(skl2onnx: options={'STEP__locale': 'C.UTF-8'}, STEP the name of the vectorizer's step)"
)
_STRINGS = ("", "a", "yes", "no", "0", "1", "the quick brown fox")


class OnnxSession:
    """An ONNX file in onnxruntime, on the CPU."""

    def __init__(self, path: Path, *, graph: bytes | None = None) -> None:
        """Load the graph at ``path``, or another, which was made of it and lies beside its data.

        Raises:
            InputError: onnxruntime cannot load it.
        """
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent)
        )
        # Threads wait busily within a run, but not after it for the next: to run a small graph now
        # and then took ten times the CPU.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                graph or str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            model = onnx_graph.load(path)
            advice = f"; {triton_releases.SAFE}" if triton_releases.is_newer(model) else ""
            advice += f"; {_A_LOCALE}" if _NO_LOCALE in str(error) else ""
            raise InputError(
                f"{path}: onnxruntime {onnxruntime.__version__} cannot load it "
                f"(IR version {model.ir_version}, opset {onnx_graph.opset(model)}): "
                f"{one_line(error)}{advice}"
            ) from None

    def __call__(self, feed: Feed, outputs: list[str]) -> dict[str, Array]:
        """Return the named outputs of one call; whatever onnxruntime raises comes through."""
        return dict(zip(outputs, self._session.run(outputs, feed), strict=True))

    @property
    def inputs(self) -> list[Any]:
        """What onnxruntime tells of the inputs: name, type and shape of each."""
        return list(self._session.get_inputs())


@dataclass(frozen=True)
class Source:
    """Where input comes from: random numbers of a kind that the graph takes, or a sample."""

    values: tuple[Value, ...]
    batched: bool
    size: int = SIZES[0]  #: of symbolic dimensions
    first: int = ROWS[0]  #: of a first dimension that is symbolic and no batch
    vocabulary: int = VOCABULARIES[0]  #: integers are drawn below it
    strings: tuple[str, ...] = _STRINGS
    sample: Feed | None = None

    def feeds(self, rows: int) -> Iterator[Feed]:
        """Yield the same inputs every time: without end, or once through the sample.

        Args:
            rows: most rows of one call, where the batch dimension is free.
        """
        if self.sample is not None:
            yield from self._slices(self.sample, rows)
            return
        rng = np.random.default_rng(0)
        for turn in itertools.count():
            yield {value.name: self._draw(value, rng, rows, turn) for value in self.values}

    def rows_at_once(self) -> int:
        """Return how many rows one call may have, for the memory's sake."""
        if self.sample is not None:
            row = sum(array[:1].size for array in self.sample.values())
        else:
            row = self.elements(1)
        return max(1, min(MAX_ROWS, MAX_ELEMENTS // max(1, row)))

    def elements(self, rows: int) -> int:
        """Return how many elements one random call of so many rows has."""
        return sum(int(np.prod(self._shape(value, rows))) for value in self.values)

    def _slices(self, sample: Feed, rows: int) -> Iterator[Feed]:
        if self.batched:
            steps = dict.fromkeys(sample, rows)
        else:
            first = {value.name: (value.shape or ("",))[0] for value in self.values}
            steps = {name: size for name, size in first.items() if isinstance(size, int)}
            if len(steps) < len(first):  # rows may depend on each other
                yield sample
                return
        turns = min(-(-len(array) // steps[name]) for name, array in sample.items())
        if not self.batched:
            turns = min(len(array) // steps[name] for name, array in sample.items())
        for turn in range(turns):
            yield {
                name: array[turn * steps[name] : (turn + 1) * steps[name]]
                for name, array in sample.items()
            }

    def _shape(self, value: Value, rows: int) -> tuple[int, ...]:
        first = rows if self.batched else self.first
        # A size that has the name of a first one is as large, wherever it stands.
        alike = {one.shape[0] for one in self.values if one.shape} - {""}
        return tuple(
            first
            if isinstance(size, str) and (index == 0 or size in alike)
            else self.size
            if isinstance(size, str)
            else size
            for index, size in enumerate(value.shape or ())
        )

    def _draw(self, value: Value, rng: np.random.Generator, rows: int, turn: int) -> Array:
        shape, kind = self._shape(value, rows), value.data_type.removeprefix("TYPE_")
        if kind == "STRING":
            return rng.choice(np.array(self.strings, dtype=object), shape)
        if kind == "BOOL":
            return rng.random(shape) < 0.5
        if not kind.startswith("FP"):
            dtype = np.dtype(kind.lower())
            return rng.integers(0, min(self.vocabulary, np.iinfo(dtype).max + 1), shape).astype(
                dtype
            )
        # Each row of a batch has a scale of its own, and so has each call.
        scales = [SCALES[(turn + row) % len(SCALES)] for row in range(shape[0] if shape else 1)]
        normal, uniform = rng.normal(size=shape), rng.random(shape)
        factor = np.array([scale or 0.0 for scale in scales])
        if kind == "FP16":  # of larger logits it keeps too few digits to compare by
            factor = np.minimum(factor, 1.0)
        factor = factor.reshape(-1, *[1] * (len(shape) - 1)) if shape else factor[0]
        drawn: Array = np.where(factor > 0, normal * factor, uniform)
        return drawn.astype({"FP16": "f2", "FP32": "f4", "FP64": "f8"}[kind])


def random_source(
    runner: GraphRunner, values: list[Value], outputs: list[str], batched: bool, words: list[str]
) -> Source:
    """Return random input that the graph runs on.

    Args:
        runner: of the graph.
        values: its inputs.
        outputs: what it is asked for.
        batched: the first dimension of every input is the batch.
        words: strings that the graph knows, drawn beside strings that it does not.

    Raises:
        InputError: it runs on none; the message holds onnxruntime's first reason.
    """
    free = any(isinstance(size, str) for value in values for size in (value.shape or ())[1:])
    whole = any("INT" in value.data_type for value in values)
    first_free = any(isinstance((value.shape or (0,))[0], str) for value in values)
    reason: Exception | None = None
    end = time.monotonic() + TRIED_SECONDS
    for first, vocabulary, size in itertools.product(
        ROWS if first_free else ROWS[:1],
        VOCABULARIES if whole else VOCABULARIES[:1],
        SIZES if free else SIZES[:1],
    ):
        source = Source(
            tuple(values), batched, size, first, vocabulary, (*sorted(words), *_STRINGS)
        )
        if reason is not None and (
            source.elements(first) > TRIED_ELEMENTS or time.monotonic() > end
        ):
            continue
        try:
            runner(next(source.feeds(first)), outputs)
        except Exception as error:
            reason = reason or error
        else:
            return source
    raise InputError(
        f"the graph does not run on random input: {one_line(reason)}; "
        "give real rows with --sample FILE.npz"
    )


def read_sample(path: Path, values: list[Value], batched: bool) -> Source:
    """Return the rows of an .npz file: one array for each input, by its name.

    What a query set has beside them is left out.

    Raises:
        InputError: no such file, or an array is missing, too many, or not of its input's type,
            rank or sizes.
    """
    if not path.is_file():  # a pipe would be waited for
        raise InputError(f"--sample {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            sample = {name: file[name] for name in file.files}
    except Exception as error:
        raise InputError(f"--sample {path}: not a readable .npz file: {one_line(error)}") from None
    names = [value.name for value in values]
    for of_a_query_set in {"labels", "features"} - {*names}:  # which serves as a sample too
        sample.pop(of_a_query_set, None)
    if sorted(sample) != sorted(names):
        raise InputError(
            f"--sample {path}: expected the arrays {', '.join(names)}, "
            f"got {', '.join(sample) or 'none'}"
        )
    for value in values:
        array = sample[value.name]
        kind = value.data_type.removeprefix("TYPE_")
        if kind == "STRING" and array.dtype.kind == "U":
            array = sample[value.name] = array.astype(object)
        expected = {"STRING": "O", "BOOL": "bool"}.get(kind, kind.lower().replace("fp", "float"))
        wanted = value.shape or ()
        fits = array.dtype == np.dtype(expected) and array.ndim == len(wanted) and array.size > 0
        for axis, (size, there) in enumerate(zip(wanted, array.shape, strict=False)):
            if isinstance(size, int) and (there % size if axis == 0 and size else there != size):
                fits = False
        if not fits:
            raise InputError(
                f"--sample {path}: array {value.name}: expected {kind} of shape "
                f"({', '.join(str(size or '?') for size in wanted)}), "
                f"got {array.dtype} {array.shape}"
            )
    counts = {len(array) for array in sample.values()}
    if batched and len(counts) > 1:
        raise InputError(
            f"--sample {path}: expected the same number of rows in every array, got "
            f"{', '.join(map(str, sorted(counts)))}"
        )
    return Source(tuple(values), batched, sample=sample)


def hint(source: Source) -> str:
    """Return what to do about input that the graph does not take."""
    if source.sample is None:
        return "it was given random input: give real rows with --sample FILE.npz"
    return "it was given the rows of --sample"


def one_line(error: object) -> str:
    """Return an error's text without line breaks, at most 300 characters of it."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:297]}..."

"""The transfer set on disk, written while an attack runs: one row per answered query.

``transfer_set.csv``, for ``pandas.read_csv``, in the order in which the answers came:

| column | holds |
| --- | --- |
| ``query`` | number of the query, from 0: the order in which the attack asked |
| ``input`` | ``pool:17``, the adversary's row 17, or ``made:3``, row 3 of the next file |
| ``sent_at`` | when the request that held it was sent, seconds since 1970, UTC |
| ``latency_ms`` | how long that request took, retries included, milliseconds |
| ``top1`` | the class with the highest score, from 0 |
| ``score_0`` ... | the endpoint's answer as probabilities, a column per class |

``made_inputs.f32`` holds the images, or features, that the attack made itself, float32,
little-endian, one after the other: ``numpy.memmap(path, "<f4").reshape(-1, height, width,
channels)``.

``requests.log`` says what was sent before it is: a batch that stands there and is in none of the
other two was paid for and its answer lost, as when the attacking process is killed. It is not
sent again.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.files.atomic_file import naming
from exporters.training.datasets import Images
from load_tests.asking.endpoint import Answers
from load_tests.data.rows import InputRows, Rows, features
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError

NAME = "transfer_set.csv"
_FIXED = ("query", "input", "sent_at", "latency_ms", "top1")


class TransferSetFile:
    """A transfer set that grows, in a folder of its own; what it holds already is kept."""

    def __init__(self, folder: Path, pool: Rows) -> None:
        """Read what an interrupted attack left; half a row at the end of a file is cut off.

        Args:
            folder: of the three files; made when there is something to write.
            pool: the adversary's rows.

        Raises:
            InputError: the files cannot be read, or are no transfer set of this pool.
        """
        self._folder, self._pool = folder, pool
        self._shape = features(pool).shape[1:]
        self._input: dict[int, str] = {}
        self._scores: dict[int, Answers] = {}
        self._unanswered: set[int] = set()
        try:
            self._read_rows()
            self._read_requests()
            self._made = self._count_made()
            self._refuse_lost_rows()
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}") from None

    @property
    def lost(self) -> int:
        """How many queries were sent and their answers lost."""
        return len(self._unanswered)

    @property
    def spent(self) -> int:
        """How many queries were paid for: answered, or sent and their answers lost."""
        return len(self._scores) + self.lost

    def open_ones(self, numbers: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return those of the queries that are neither answered nor lost."""
        return np.array(
            [n for n in numbers if n not in self._scores and n not in self._unanswered], np.intp
        )

    def made(self, images: Images) -> list[str]:
        """Return how lines refer to rows that the attack made, after storing them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "made_inputs.f32"
        with naming(path), path.open("ab") as file:
            file.write(np.ascontiguousarray(images, "<f4").tobytes())
        first, self._made = self._made, self._made + len(images)
        return [f"made:{index}" for index in range(first, self._made)]

    def sent(self, numbers: Sequence[int]) -> None:
        """Note that a request for these queries is about to be sent."""
        self._note("sent", numbers)

    def failed(self, numbers: Sequence[int]) -> None:
        """Note that it was answered with an error, so that it has not been paid for."""
        self._note("failed", numbers)

    def append(
        self,
        numbers: Sequence[int],
        inputs: Sequence[str],
        scores: Answers,
        sent_at: float,
        latency_ms: float,
    ) -> None:
        """Write one answered request, a row per query."""
        path = self._folder / NAME
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not self._scores:
            writer.writerow([*_FIXED, *(f"score_{k}" for k in range(scores.shape[1]))])
        for number, name, row in zip(numbers, inputs, scores, strict=True):
            writer.writerow(
                [
                    *(number, name, f"{sent_at:.6f}", f"{latency_ms:.3f}", int(row.argmax())),
                    *(str(score) for score in row),
                ]
            )
            self._input[number], self._scores[number] = name, row
        with naming(path), path.open("a", encoding="ascii", newline="") as file:
            file.write(text.getvalue())

    def read(self, numbers: NDArray[np.intp] | None = None) -> TransferSet:
        """Return what was answered of these queries, or of all, in the order of their numbers."""
        wanted = sorted(self._scores) if numbers is None else [int(number) for number in numbers]
        wanted = [number for number in wanted if number in self._scores]
        if not wanted:
            return TransferSet(self._pool[:0], np.empty((0, 0), "f4"))
        rows = self._rows([self._input[number] for number in wanted])
        return TransferSet(rows, np.stack([self._scores[number] for number in wanted]))

    def _rows(self, names: Sequence[str]) -> Rows:
        if isinstance(self._pool, InputRows):  # of which none can be made
            return self._pool[np.array([int(name.partition(":")[2]) for name in names])]
        return np.stack([self._array(self._pool, name) for name in names])

    def _array(self, pool: Images, name: str) -> Images:
        kind, _, index = name.partition(":")
        if kind == "pool":
            return np.asarray(pool[int(index)])
        size = int(np.prod(self._shape))
        stored = np.memmap(self._folder / "made_inputs.f32", "<f4", mode="r")
        return np.array(stored[int(index) * size :][:size]).reshape(self._shape)

    def _read_rows(self) -> None:
        path = self._folder / NAME
        _cut(path, _whole_lines(path))
        if not path.is_file() or not path.stat().st_size:
            return
        with path.open(encoding="ascii", errors="replace", newline="") as file:
            rows = csv.reader(file)
            head = next(rows)
            if tuple(head[: len(_FIXED)]) != _FIXED:
                raise InputError(f"{path}: is no transfer set: its first columns are {head[:5]}")
            for line, row in enumerate(rows, 2):
                try:
                    number, name = int(row[0]), row[1]
                    self._scores[number] = np.array(row[len(_FIXED) :], np.float32)
                    kind, _, index = name.partition(":")
                    known = kind in ("pool", "made") and index.isdecimal()
                    if not known or len(row) != len(head):
                        raise ValueError
                    if not np.isfinite(self._scores[number]).all():
                        raise InputError(f"{path}: line {line}: expected finite scores")
                    if kind == "pool" and int(index) >= len(self._pool):
                        raise InputError(
                            f"{path}: line {line}: {name}, but the adversary has "
                            f"{len(self._pool)} rows: another data set or split?"
                        )
                except InputError:
                    raise
                except (ValueError, IndexError):
                    raise InputError(f"{path}: line {line} is no row of a transfer set") from None
                self._input[number] = name

    def _read_requests(self) -> None:
        path = self._folder / "requests.log"
        _cut(path, _whole_lines(path))
        lines = path.read_text("ascii", "replace").splitlines() if path.is_file() else []
        for at, line in enumerate(lines, 1):
            what, *numbers = line.split() or [""]
            if what not in ("sent", "failed") or not all(map(str.isdecimal, numbers)):
                raise InputError(f"{path}: line {at} is no line of what was sent")
            change = set(map(int, numbers))
            self._unanswered = (
                self._unanswered | change if what == "sent" else self._unanswered - change
            )
        self._unanswered -= self._scores.keys()

    def _count_made(self) -> int:
        path = self._folder / "made_inputs.f32"
        bytes_each = int(np.prod(self._shape)) * 4
        _cut(path, path.stat().st_size // bytes_each * bytes_each if path.is_file() else 0)
        return path.stat().st_size // bytes_each if path.is_file() else 0

    def _refuse_lost_rows(self) -> None:
        """Refuse answers about rows that their file does not hold."""
        made = (int(name[5:]) for name in self._input.values() if name.startswith("made:"))
        if (last := max(made, default=-1)) >= self._made:
            raise InputError(
                f"{self._folder}: {NAME} has an answer to made:{last}, but made_inputs.f32 holds "
                f"{self._made} rows"
            )

    def _note(self, what: str, numbers: Sequence[int]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "requests.log"
        with naming(path), path.open("a", encoding="ascii") as file:
            file.write(" ".join([what, *map(str, numbers)]) + "\n")


def _whole_lines(path: Path) -> int:
    """Return how many bytes of a file are whole lines."""
    return path.read_bytes().rfind(b"\n") + 1 if path.is_file() else 0


def _cut(path: Path, size: int) -> None:
    """Cut off what a killed process left half written."""
    if path.is_file() and path.stat().st_size > size:
        with path.open("rb+") as file:
            file.truncate(size)

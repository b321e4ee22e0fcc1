"""A query set: rows for a model of any inputs, in an .npz file.

| array | holds |
| --- | --- |
| any other name | an input of the model, by its name, n rows: numbers, booleans or text |
| ``features`` | what a thief learns from: its own view of the same rows, floats, (n, ...) |
| ``labels`` | the true classes, whole numbers from 0, (n,); to calibrate, of K yes or no outputs 1 and 0, (n, K), and of a model that answers for T positions of a row (n, T), below 0 where a position, such as padding, has none |

Text is an array of Unicode or bytes, never of Python objects. The last two may be missing:
without labels nothing is said of accuracy, and a single input of floats is its own features.
"""  # noqa: E501

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from exporters.training.datasets import Images, Labels
from load_tests.data.rows import InputRows, Rows, features
from load_tests.data.tensors import FEATURES
from postprocess.errors import InputError

LABELS = "labels"
#: Kinds of NumPy's that a tensor of Triton's can hold.
_KINDS = "biufUS"


@dataclass(frozen=True)
class QuerySet:
    """What a file holds."""

    rows: Rows
    labels: Labels | None
    #: Input name to the kind of its values. Rows that are an array do not say what it is called.
    inputs: dict[str, str]

    def __getitem__(self, chosen: NDArray[np.intp]) -> "QuerySet":
        labels = None if self.labels is None else self.labels[chosen]
        return QuerySet(self.rows[chosen], labels, self.inputs)


def absolute(path: str) -> str:
    """Return where a file is from wherever else it is looked for, empty where none was named."""
    return str(Path(path).resolve()) if path else ""


def read(path: Path, *, to_learn: bool = True) -> QuerySet:
    """Return the query set of a file.

    Args:
        path: of the file.
        to_learn: whether there must be something to learn from, and labels are classes.

    Raises:
        InputError: it cannot be read, or is none.
    """
    arrays = _arrays(path)
    labels = arrays.pop(LABELS, None)
    if labels is not None:
        _refuse_other_labels(path, labels, to_learn=to_learn)
    inputs = {name: values for name, values in arrays.items() if name != FEATURES} or arrays
    if not inputs:
        raise InputError(f"{path}: expected an array for each input of the model, by its name")
    _refuse_odd(path, arrays, labels)
    rows: Rows
    if FEATURES in arrays and inputs is not arrays:
        rows = InputRows(inputs, _learnt(path, FEATURES, arrays[FEATURES]))
    elif not to_learn:
        rows = InputRows(inputs, np.zeros((len(next(iter(inputs.values()))), 0), np.float32))
    else:
        (name, values), *others = inputs.items()
        if others or values.dtype.kind != "f":
            got = ", ".join(f"{name} {values.dtype}" for name, values in inputs.items())
            raise InputError(
                f"{path}: inputs {got} are no features to learn from: add an array {FEATURES}, the "
                "thief's own view of the same rows, floats of shape (n, ...)"
            )
        rows = _learnt(path, name, values)
    kinds = {name: values.dtype.kind for name, values in inputs.items()}
    return QuerySet(rows, None if labels is None else labels.astype(np.int64), kinds)


def _refuse_other_labels(path: Path, labels: NDArray[Any], *, to_learn: bool) -> None:
    kinds, wanted = ("iu", "(n,)") if to_learn else ("iub", "(n,), (n, K) or (n, T)")
    fits = labels.dtype.kind in kinds and (
        labels.min(initial=0) >= 0 if labels.ndim == 1 else labels.ndim > 1 and not to_learn
    )
    if not fits:
        raise InputError(
            f"{path}: {LABELS}: expected the true classes, whole numbers from 0, shape {wanted}, "
            f"got {labels.dtype} {labels.shape}"
        )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = ""
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {}
            for name in stored.files:
                found[name] = stored[name]
            return found
    except (OSError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: expected an .npz file of arrays: {error}") from None
    except ValueError as error:
        what = "expected an .npz file of arrays"
        if name:
            what = f"{name}: expected numbers, or text as an array of str or bytes"
        raise InputError(f"{path}: {what}: {error}") from None


def _refuse_odd(path: Path, arrays: dict[str, NDArray[Any]], labels: Labels | None) -> None:
    """Refuse arrays that are no tensors, or not of the same rows."""
    first, count = "", 0
    for name, values in (arrays | ({} if labels is None else {LABELS: labels})).items():
        if values.dtype.kind not in _KINDS or not values.ndim or not values.size:
            raise InputError(
                f"{path}: {name}: expected numbers, booleans or text, at least one row, got "
                f"{values.dtype} {values.shape}"
            )
        if not first:
            first, count = name, len(values)
        elif len(values) != count:
            raise InputError(
                f"{path}: {name}: expected {count} rows, as {first} has, got {len(values)}"
            )


def _learnt(path: Path, name: str, values: NDArray[Any]) -> Images:
    if values.dtype.kind != "f" or values.ndim < 2 or not np.isfinite(values).all():
        raise InputError(
            f"{path}: {name}: expected features, finite floats of shape (n, ...), got "
            f"{values.dtype} {values.shape}"
        )
    made: Images = values.astype(np.float32)
    if not np.isfinite(made).all():
        raise InputError(f"{path}: {name}: holds numbers beyond float32")
    return made


def refuse_unlike(ours: QuerySet, theirs: QuerySet, *, where: str) -> None:
    """Refuse a test set whose rows are of another kind than those of the query set.

    Raises:
        InputError: an input or the features are missing or of another kind or length.
    """
    shapes = [features(one.rows).shape[1:] for one in (ours, theirs)]
    if ours.inputs != theirs.inputs or shapes[0] != shapes[1]:
        ours_, theirs_ = (
            f"{', '.join(one.inputs)} with features {shape}"
            for one, shape in zip((ours, theirs), shapes, strict=True)
        )
        raise InputError(f"{where}: expected the query set's arrays, {ours_}, got {theirs_}")

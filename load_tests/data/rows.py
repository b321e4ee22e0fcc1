"""Rows to ask a model about: what it is sent, and what a thief learns of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporters.training.datasets import Images


@dataclass(frozen=True)
class InputRows:
    """Rows whose inputs are not what a thief learns from; sliced and indexed as an array is."""

    inputs: Mapping[str, NDArray[Any]]  #: by the model's names, n rows each
    features: Images  #: the thief's own view of the same rows, shape (n, ...)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, chosen: slice | NDArray[np.intp]) -> "InputRows":
        inputs = {name: values[chosen] for name, values in self.inputs.items()}
        return InputRows(inputs, self.features[chosen])


#: An array is its own features: it goes to the model's only input, which is of floats.
Rows: TypeAlias = Images | InputRows


def features(rows: Rows) -> Images:
    """Return what a thief learns from, shape (n, ...)."""
    return rows.features if isinstance(rows, InputRows) else rows


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """Return all rows of several parts of one pool, at least one, one after the other."""
    learnt = np.concatenate([features(part) for part in parts])
    if not isinstance(parts[0], InputRows):
        return learnt
    inputs = [part.inputs for part in parts if isinstance(part, InputRows)]
    return InputRows(
        {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}, learnt
    )

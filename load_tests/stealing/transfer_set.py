"""What an adversary has after an attack: rows that were asked about, and the answers to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.training.datasets import Images
from load_tests.asking.endpoint import Answers
from load_tests.data.rows import Rows, features, joined_rows
from postprocess.errors import InputError


@dataclass(frozen=True)
class TransferSet:
    """One row per query that was answered, in the order they were asked in.

    Raises:
        InputError: not a row of scores for each of the rows, or not finite.
    """

    rows: Rows  #: one for each query
    scores: Answers  #: what the endpoint answered, shape (queries, K), rows sum to 1

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or len(self.scores) != len(self.rows):
            raise InputError(
                f"transfer set: expected scores for each of {len(self.rows)} rows, "
                f"got shape {self.scores.shape}"
            )
        for what, values in (("rows", self.features), ("scores", self.scores)):
            if not np.isfinite(values).all():
                raise InputError(f"transfer set: {what}: expected finite numbers")

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def features(self) -> Images:
        """What is learnt from, such as the images themselves; shape (queries, ...)."""
        return features(self.rows)

    def first(self, queries: int) -> "TransferSet":
        """Return what the adversary had after that many queries."""
        return TransferSet(self.rows[:queries], self.scores[:queries])


def joined(parts: Sequence[TransferSet]) -> TransferSet:
    """Return all of several transfer sets, at least one, one after the other."""
    return TransferSet(
        joined_rows([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


@dataclass(frozen=True)
class Queries:
    """Rows that an attack wants to ask about next."""

    rows: Rows
    #: Where each comes from: its index in the adversary's pool. None: made by the attack.
    pool_index: NDArray[np.intp] | None = None

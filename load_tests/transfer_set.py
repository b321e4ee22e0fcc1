"""What an adversary has after an attack: inputs, and the answers to them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.datasets import Images
from load_tests.endpoint import Scores


@dataclass(frozen=True)
class TransferSet:
    """One row per query that was answered, in the order they were asked in."""

    images: Images  #: shape (queries, height, width, channels), in [0, 1]
    scores: Scores  #: what the endpoint answered, shape (queries, K), rows sum to 1

    def __len__(self) -> int:
        return len(self.scores)

    def first(self, queries: int) -> "TransferSet":
        """Return what the adversary had after that many queries."""
        return TransferSet(self.images[:queries], self.scores[:queries])

    def joined(self, more: "TransferSet") -> "TransferSet":
        """Return both, one after the other."""
        return TransferSet(
            np.concatenate([self.images, more.images]), np.concatenate([self.scores, more.scores])
        )


@dataclass(frozen=True)
class Queries:
    """Images that an attack wants to ask about next."""

    images: Images  #: shape (n, height, width, channels), in [0, 1]
    #: Where each comes from: its index in the adversary's pool. None: made by the attack.
    pool_index: NDArray[np.intp] | None = None

"""What an adversary has after an attack: inputs, and the answers to them."""

from dataclasses import dataclass

from exporters.datasets import Images
from load_tests.endpoint import Scores


@dataclass(frozen=True)
class TransferSet:
    """One row per query."""

    images: Images  #: shape (queries, height, width, channels), in [0, 1]
    scores: Scores  #: what the endpoint answered, shape (queries, K), rows sum to 1

"""What an adversary's training is made of, by name.

| name | trains |
| --- | --- |
| ``self_training`` | again, on what the first substitute is sure of too |
| ``consistency`` | on, so that disturbed rows are answered as the rows themselves (FixMatch) |
| ``self_distillation`` | again, on the first substitute's answers and the endpoint's |
"""

from collections.abc import Callable
from typing import Any

from exporters.registry import Registry
from exporters.training.datasets import Images
from load_tests.stealing.learning.consistency import consistency
from load_tests.stealing.learning.self_distillation import self_distillation
from load_tests.stealing.learning.self_training import self_training
from load_tests.stealing.substitute import Recipe
from load_tests.stealing.transfer_set import TransferSet

#: Returns a substitute, of a transfer set, how to train, the features of rows that the adversary
#: has without answers, and ``train_substitute`` as it is told of the last training.
Learner = Callable[[TransferSet, Recipe, Images, Callable[..., Any]], Any]

LEARNERS: Registry[Learner] = Registry(
    "--learn",
    {
        "self_training": self_training,
        "consistency": consistency,
        "self_distillation": self_distillation,
    },
)

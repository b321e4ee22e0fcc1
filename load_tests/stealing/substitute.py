"""The adversary's substitute: a network trained to answer as the endpoint did."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.training.train import Progress, Watch, fresh, one_hot, train
from load_tests.stealing.losses import LOSSES
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError
from postprocess.parameters import Parameters


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an adversary trains; the transfer set aside, it decides the substitute."""

    steps: int = 600  #: training batches of 64
    seed: int = 0  #: of the initial weights, the shuffles and the augmentation
    flips: bool = False  #: whether mirrored images keep their class
    architecture: str = "simple"  #: see ``exporters.training.architectures``
    loss: str = "cross_entropy"  #: see ``losses``
    #: Learn the answers' top-1 classes and throw the probabilities away, which no defence that
    #: keeps the top-1 class can prevent (section 4.4).
    labels_only: bool = False
    #: What the adversary takes the defence to be; for loss ``same_layer``.
    defence: Parameters | None = None

    def with_steps(self, steps: int) -> "Recipe":
        """Return the same for another number of steps."""
        return replace(self, steps=steps)

    def on_labels(self, *, seed: int) -> "Recipe":
        """Return the recipe of a thief who keeps only the labels."""
        return replace(self, loss="cross_entropy", labels_only=True, defence=None, seed=seed)


def train_substitute(
    transfer_set: TransferSet,
    recipe: Recipe,
    *,
    model: Any = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Any:
    """Return a Keras model from features to logits, trained on a transfer set.

    Args:
        transfer_set: the endpoint's answers.
        recipe: how to train.
        model: to go on with, of that architecture; a fresh one without.
        progress, watch: see ``exporters.training.train.train``.

    Raises:
        InputError: the transfer set is empty, the recipe names what is unknown, or the training
            diverged.

    A fresh one that was trained so before, of the same answers, is not trained again.
    """
    if not len(transfer_set):
        raise InputError("transfer set: expected at least one answered query, got none")
    loss = LOSSES[recipe.loss].make(recipe.defence)
    classes = transfer_set.scores.shape[1]
    shape = transfer_set.features.shape[1:]
    made, trainer = fresh(recipe.architecture, shape, classes, seed=recipe.seed, loss=loss)
    targets = transfer_set.scores
    if recipe.labels_only:
        targets = one_hot(targets.argmax(axis=1), classes)
    key = None
    if model is None and watch is None and recipe.loss == Recipe.loss:
        key = recipe, _digest(transfer_set.features, targets)
        if key in _trained:
            _trained.move_to_end(key)
            made.set_weights(_trained[key])
            if progress is not None:
                progress(recipe.steps, recipe.steps)
            return made
    model = model or made
    train(
        model,
        transfer_set.features,
        targets,
        steps=recipe.steps,
        seed=recipe.seed,
        flips=recipe.flips,
        trainer=trainer,
        progress=progress,
        watch=watch,
    )
    if key is not None:
        _keep(key, model.get_weights())
    return model


#: Weights of substitutes, of the loss that other ways to learn begin with too; the newest, so many
#: bytes of them.
_trained: OrderedDict[tuple[Recipe, str], list[NDArray[Any]]] = OrderedDict()
MOST_BYTES = 2**27


def _keep(key: tuple[Recipe, str], weights: list[NDArray[Any]]) -> None:
    _trained[key] = weights
    while sum(each.nbytes for kept in _trained.values() for each in kept) > MOST_BYTES:
        _trained.popitem(last=False)


def _digest(*arrays: NDArray[Any]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()

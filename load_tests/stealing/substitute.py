"""The adversary's substitute: a network trained to answer as the endpoint did."""

from dataclasses import dataclass, replace
from typing import Any

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
    """
    if not len(transfer_set):
        raise InputError("transfer set: expected at least one answered query, got none")
    loss = LOSSES[recipe.loss].make(recipe.defence)
    classes = transfer_set.scores.shape[1]
    shape = transfer_set.features.shape[1:]
    made, trainer = fresh(recipe.architecture, shape, classes, seed=recipe.seed, loss=loss)
    model = model or made
    targets = transfer_set.scores
    if recipe.labels_only:
        targets = one_hot(targets.argmax(axis=1), classes)
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
    return model

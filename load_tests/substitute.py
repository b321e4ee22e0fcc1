"""The adversary's substitute: a network trained to answer as the endpoint did."""

from typing import Any

from exporters import architectures
from exporters.train import Progress, one_hot, train
from load_tests.transfer_set import TransferSet


def train_substitute(
    transfer_set: TransferSet,
    *,
    steps: int,
    seed: int,
    flips: bool,
    labels_only: bool = False,
    architecture: str = "simple",
    progress: Progress | None = None,
) -> Any:
    """Return a Keras model from images to logits, trained on a transfer set.

    Args:
        transfer_set: the endpoint's answers.
        steps: training batches of 64.
        seed: of the initial weights, the shuffles and the augmentation.
        flips: whether mirrored images keep their class.
        labels_only: learn the answers' top-1 classes and throw the probabilities away,
            which no defence that keeps the top-1 class can prevent (section 4.4).
        architecture: the substitute's, see ``exporters.architectures``.
        progress: called after every step.
    """
    import keras

    keras.utils.set_random_seed(seed)
    classes = transfer_set.scores.shape[1]
    _, height, width, channels = transfer_set.images.shape
    model = architectures.find(architecture)((height, width, channels), classes)
    targets = transfer_set.scores
    if labels_only:
        targets = one_hot(targets.argmax(axis=1), classes)
    train(
        model, transfer_set.images, targets, steps=steps, seed=seed, flips=flips, progress=progress
    )
    return model

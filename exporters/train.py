"""Training, the same for a victim and for an adversary's substitute."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters import architectures
from exporters.datasets import Dataset, HoldOff, Images
from postprocess.errors import InputError

#: Called after every step with (steps done, steps in all).
Progress = Callable[[int, int], None]

#: Images move by up to this share of their side (paper, section 4: "shift/flip"; no numbers).
SHIFT_SHARE = 0.125
#: Images of a training batch (paper, section 4).
BATCH = 64
#: Steps from one look at a network's weights to the next; the loss is seen at every step.
LOOK_AT_WEIGHTS = 100


def train_victim(
    dataset: Dataset,
    held_off: HoldOff,
    architecture: str,
    *,
    steps: int,
    seed: int,
    progress: Progress | None = None,
) -> Any:
    """Return a Keras model from images to logits, trained on what a hold-off leaves to the victim.

    Args:
        dataset: to learn.
        held_off: its training set, split.
        architecture: one of ``architectures.ARCHITECTURES``.
        steps: training batches of 64.
        seed: of the initial weights, the shuffles and the augmentation.
        progress: called after every step.

    Raises:
        InputError: an unknown architecture, or see ``train``.
    """
    import keras

    keras.utils.set_random_seed(seed)
    model = architectures.build(architecture, dataset.input_shape, dataset.classes)
    train(
        model,
        held_off.victim_images,
        one_hot(held_off.victim_labels, dataset.classes),
        steps=steps,
        seed=seed,
        flips=dataset.flips,
        progress=progress,
    )
    return model


def train(
    model: Any,
    images: Images,
    targets: NDArray[np.float32],
    *,
    steps: int,
    seed: int,
    flips: bool,
    batch_size: int = BATCH,
    loss: Callable[[Any, Any], Any] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train a model in place by its architecture's optimizer; returns nothing.

    Args:
        model: a Keras model from images to logits, shape (batch, K).
        images: shape (n, height, width, channels), in [0, 1], or features, shape (n, F).
        targets: shape (n, K), rows sum to 1: one-hot labels, or a victim's answers.
        steps: batches to train on. They are drawn epoch by epoch, each a new shuffle.
        seed: of the shuffles and the augmentation. The initial weights are the caller's.
        flips: whether to mirror half of the images too.
        loss: a function of (targets, logits); without one, cross-entropy.
        progress: called after every step.

    The rate is halved for the last quarter of the steps; the paper names no schedule.

    Raises:
        InputError: there is nothing to learn from, images or targets are not finite, or the
            training diverged.
    """
    import keras

    _refuse_unfit(model, images, targets)
    optimizer = architectures.optimizer(model)
    learning_rate = float(optimizer.learning_rate)
    loss = loss or keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    rng = np.random.default_rng(seed)
    order = np.empty(0, np.intp)
    for step in range(steps):
        if step == steps * 3 // 4:
            optimizer.learning_rate = learning_rate / 2
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(images))])
        batch, order = order[:batch_size], order[batch_size:]
        value = model.train_on_batch(augment(images[batch], rng, flips=flips), targets[batch])
        if not np.isfinite(value):
            raise InputError(f"{model.name}: training diverged at step {step + 1}: loss {value}")
        if (step + 1) % LOOK_AT_WEIGHTS == 0 or step + 1 == steps:
            refuse_diverged(model, step + 1)
        if progress is not None:
            progress(step + 1, steps)


def _refuse_unfit(model: Any, images: Images, targets: NDArray[np.float32]) -> None:
    """Refuse what no network can learn from, and what would go through one unseen.

    A layer may make numbers of NaN: the pooling of some processors' libraries does.
    """
    classes = model.output_shape[-1]
    if not len(images) or targets.shape != (len(images), classes):
        raise InputError(
            f"{model.name}: expected at least one image and a row of {classes} for each to learn "
            f"from, got {len(images)} images and targets {targets.shape}"
        )
    for what, values in (("images", images), ("targets", targets)):
        if not np.isfinite(values).all():
            raise InputError(f"{model.name}: the {what} to learn from are not all finite numbers")


def refuse_diverged(model: Any, step: int) -> None:
    """Refuse a network with weights that are no finite numbers; its loss does not always tell.

    Raises:
        InputError: one of them is none.
    """
    import keras

    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            raise InputError(
                f"{model.name}: training diverged by step {step}: {weight.path} is not finite"
            )


def predict(model: Any, images: Images, *, batch_size: int = 256) -> NDArray[np.float32]:
    """Return a model's logits for any number of images, shape (n, K).

    Raises:
        InputError: they are not all finite.
    """
    import keras

    starts = range(0, len(images), batch_size)
    batches = [model(images[start : start + batch_size], training=False) for start in starts]
    logits: NDArray[np.float32] = np.concatenate(
        [keras.ops.convert_to_numpy(batch) for batch in batches]
    )
    if not np.isfinite(logits).all():
        raise InputError(f"{model.name}: answered with scores that are not finite numbers")
    return logits


def augment(images: Images, rng: np.random.Generator, *, flips: bool) -> Images:
    """Return the images, each shifted at random (edges filled with 0) and perhaps mirrored.

    Args:
        images: shape (n, height, width, channels).
        flips: mirror left to right with probability 1/2.

    Features, and images of one row, which hold some, stay where they are.
    """
    if images.ndim != 4 or images.shape[1] == 1:
        return images
    count, height, width, _ = images.shape
    reach = max(1, int(height * SHIFT_SHARE)), max(1, int(width * SHIFT_SHARE))
    padded = np.pad(images, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)))
    top = rng.integers(0, 2 * reach[0] + 1, count)
    left = rng.integers(0, 2 * reach[1] + 1, count)
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    shifted: Images = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None]]
    if flips:
        mirrored = rng.random(count) < 0.5
        shifted[mirrored] = shifted[mirrored, :, ::-1]
    return shifted


def one_hot(labels: NDArray[np.integer[Any]], classes: int) -> NDArray[np.float32]:
    """Return labels as probabilities of 0 and 1, shape (n, classes)."""
    rows: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[labels]
    return rows

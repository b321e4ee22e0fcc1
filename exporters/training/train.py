"""Training, the same for a victim and for an adversary's substitute."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.training import architectures
from exporters.training.datasets import Dataset, HoldOff, Images
from exporters.training.trainer import LossFunction, Trainer, kept
from postprocess.errors import InputError

#: Called after every step with (steps done, steps in all).
Progress = Callable[[int, int], None]

#: Images move by up to this share of their side (paper, section 4: "shift/flip"; no numbers).
SHIFT_SHARE = 0.125
#: Of images whose channels come first.
MOST_CHANNELS = 4
#: Images of a training batch (paper, section 4).
BATCH = 64
#: Rows that are answered at a time.
PREDICTED_ROWS = 256
#: Steps from one look at a network's weights to the next; the loss is seen at every step.
LOOK_AT_WEIGHTS = 100
#: How long steps are taken in one call: until then nobody hears of them, and no signal is heard.
UNHEARD_S = 0.5

Targets = NDArray[np.float32]


@dataclass(frozen=True)
class Watch:
    """Somebody who looks at a network while it is trained."""

    at: frozenset[int]  #: after so many steps
    look: Callable[[Any, int], None]  #: called with (the model as it is then, steps done)


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
    model, trainer = fresh(architecture, dataset.input_shape, dataset.classes, seed=seed)
    train(
        model,
        held_off.victim_images,
        one_hot(held_off.victim_labels, dataset.classes),
        steps=steps,
        seed=seed,
        flips=dataset.flips,
        trainer=trainer,
        progress=progress,
    )
    return model


def fresh(
    architecture: str,
    shape: architectures.Shape,
    classes: int,
    *,
    seed: int,
    loss: LossFunction | None = None,
) -> tuple[Any, Trainer]:
    """Return a network with the initial weights of a seed, and the trainer of its kind.

    Args:
        architecture: one of ``architectures.ARCHITECTURES``.
        shape: of its inputs.
        classes: K.
        seed: of the initial weights.
        loss: a function of (targets, logits); without one, cross-entropy.

    Raises:
        InputError: an unknown architecture, or one for other inputs.
    """
    import keras

    trainer = kept(architecture, shape, classes, loss or cross_entropy)
    keras.utils.set_random_seed(seed)
    return architectures.build(architecture, shape, classes), trainer


def train(
    model: Any,
    images: Images,
    targets: Targets,
    *,
    steps: int,
    seed: int,
    flips: bool,
    batch_size: int = BATCH,
    loss: LossFunction | None = None,
    trainer: Trainer | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> None:
    """Train a model in place by its architecture's optimizer; returns nothing.

    Args:
        model: a Keras model from images to logits, shape (batch, K).
        images: shape (n, height, width, channels), in [0, 1], or features, shape (n, F).
        targets: shape (n, K), rows sum to 1: one-hot labels, or a victim's answers.
        steps: batches to train on. They are drawn epoch by epoch, each a new shuffle.
        seed: of the shuffles and the augmentation. The initial weights are the caller's.
        flips: whether to mirror half of the images too.
        batch_size: images of a batch.
        loss: a function of (targets, logits); without one, cross-entropy.
        trainer: of the model's kind, with a loss and an optimizer of its own, see ``fresh``;
            without one, the model's own.
        progress: called for every step, some time after it.
        watch: somebody who looks at the model meanwhile.

    The rate is halved for the last quarter of the steps; the paper names no schedule.

    Raises:
        InputError: there is nothing to learn from, images or targets are not finite, or the
            training diverged.
    """
    _refuse_unfit(model, images, targets)
    if trainer is None:
        trainer = Trainer(model, architectures.optimizer(model), loss or cross_entropy)
    trainer.begin(model)
    watched = frozenset() if watch is None else watch.at
    batches = _batches(images, targets, np.random.default_rng(seed), batch_size, flips=flips)
    stops = {*range(LOOK_AT_WEIGHTS, steps, LOOK_AT_WEIGHTS), *watched, steps}
    for done, value in enumerate(_losses(trainer, batches, steps, stops), start=1):
        if not np.isfinite(value):
            raise InputError(f"{model.name}: training diverged at step {done}: loss {value}")
        if done % LOOK_AT_WEIGHTS == 0 or done == steps:
            refuse_diverged(trainer.model, done)
        if watch is not None and done in watched:
            trainer.give(model)
            watch.look(model, done)
        if progress is not None:
            progress(done, steps)
    trainer.give(model)


def _losses(
    trainer: Trainer, batches: Iterator[tuple[Images, Targets]], steps: int, stops: set[int]
) -> Iterator[float]:
    """Yield the loss of each step; at a stop, the trainer has gone no further."""
    slower = steps * 3 // 4
    done, count = 0, 1
    while done < steps:
        until = min(done + count, *(stop for stop in (*stops, slower) if stop > done))
        start = time.monotonic()
        some = zip(*islice(batches, until - done), strict=True)
        rate = trainer.rate / 2 if done >= slower else trainer.rate
        yield from trainer.advance(*(np.stack(each) for each in some), rate=rate)
        count = max(1, count // 2 if time.monotonic() - start > UNHEARD_S else count * 2)
        done = until


def cross_entropy(targets: Any, logits: Any) -> Any:
    """Return the cross-entropy of logits for each row, shape (batch,)."""
    from keras import ops

    return ops.categorical_crossentropy(targets, logits, from_logits=True)


def _batches(
    images: Images, targets: Targets, rng: np.random.Generator, size: int, *, flips: bool
) -> Iterator[tuple[Images, Targets]]:
    """Yield batch after batch without end, epoch by epoch in a new order."""
    order = np.empty(0, np.intp)
    while True:
        while len(order) < size:
            order = np.concatenate([order, rng.permutation(len(images))])
        batch, order = order[:size], order[size:]
        yield augment(images[batch], rng, flips=flips), targets[batch]


def _refuse_unfit(model: Any, images: Images, targets: Targets) -> None:
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


def predict(model: Any, images: Images) -> NDArray[np.float32]:
    """Return a model's logits for any number of images, shape (n, K).

    Raises:
        InputError: they are not all finite.
    """
    import keras

    starts = range(0, len(images), PREDICTED_ROWS)
    batches = [model(images[at : at + PREDICTED_ROWS], training=False) for at in starts]
    logits: NDArray[np.float32] = np.concatenate(
        [keras.ops.convert_to_numpy(batch) for batch in batches]
    )
    if not np.isfinite(logits).all():
        raise InputError(f"{model.name}: answered with scores that are not finite numbers")
    return logits


def augment(images: Images, rng: np.random.Generator, *, flips: bool) -> Images:
    """Return the images, each shifted at random (edges filled with 0) and perhaps mirrored.

    Args:
        images: shape (n, height, width, channels), or (n, channels, height, width) with at most
            ``MOST_CHANNELS`` of them and larger sides.
        flips: mirror left to right with probability 1/2.

    Features, and images of one row, which hold some, stay where they are.
    """
    if images.ndim == 4 and images.shape[1] <= MOST_CHANNELS < min(images.shape[2:]):
        last = augment(images.transpose(0, 2, 3, 1), rng, flips=flips)
        return np.ascontiguousarray(last.transpose(0, 3, 1, 2))
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

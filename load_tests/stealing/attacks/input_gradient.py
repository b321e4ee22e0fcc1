"""The gradient of the loss with respect to the input, on any backend of Keras."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.training.datasets import Images

BATCH = 256


def input_gradient(model: Any, images: Images, classes: NDArray[np.intp]) -> Images:
    """Return d loss / d pixel for each image, of the shape of the images.

    The loss is the cross-entropy of the model against the given classes.

    Args:
        model: a Keras model from images to logits.
        images: shape (n, height, width, channels).
        classes: what the model should have said, for each image, shape (n,).
    """
    import keras

    of_backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [of_backend(model, images[i : i + BATCH], classes[i : i + BATCH]) for i in starts]
    )


def _loss(model: Any, images: Any, classes: NDArray[np.intp]) -> Any:
    from keras import ops

    logits = model(images, training=False)
    return ops.sum(ops.sparse_categorical_crossentropy(classes, logits, from_logits=True))


def _tensorflow(model: Any, images: Images, classes: NDArray[np.intp]) -> Images:
    import tensorflow as tf

    given = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = _loss(model, given, classes)
    gradient: Images = tape.gradient(loss, given).numpy()
    return gradient


def _jax(model: Any, images: Images, classes: NDArray[np.intp]) -> Images:
    import jax

    return np.asarray(jax.grad(lambda given: _loss(model, given, classes))(images))


def _torch(model: Any, images: Images, classes: NDArray[np.intp]) -> Images:
    from keras import ops

    given = ops.convert_to_tensor(images).requires_grad_()
    _loss(model, given, classes).backward()
    gradient: Images = given.grad.cpu().numpy()
    return gradient

"""Training steps, many in one call, compiled once for all networks of a kind.

To trace a network and its optimizer takes up to a second, and Keras takes two milliseconds to begin
a step: more than the arithmetic of a small network. So what has been compiled is kept, weights go
in and out, and TensorFlow goes through many steps by itself. JAX begins a step before the last has
ended, and PyTorch takes them one by one.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.training import architectures

#: Of (targets, logits): one number, or one for each row, whose mean counts.
LossFunction = Callable[[Any, Any], Any]
Losses = NDArray[np.float32]


class Trainer:
    """One network, in whose place others of its kind are trained, one after the other."""

    def __init__(self, model: Any, optimizer: Any, loss: LossFunction) -> None:
        """Take a Keras model, an optimizer of its own, and what to train for."""
        import keras

        self.model, self._optimizer = model, optimizer
        optimizer.build(model.trainable_variables)
        self._fresh = [keras.ops.convert_to_numpy(each) for each in optimizer.variables]
        self.rate = float(optimizer.learning_rate)
        make = _ADVANCES.get(keras.backend.backend(), _one_by_one)
        self._advance = make(model, optimizer, loss)

    def begin(self, model: Any) -> None:
        """Take a network's weights; nothing is left of whatever was trained before."""
        _assign(self._optimizer.variables, self._fresh)
        if model is not self.model:
            _assign(self.model.weights, model.weights)

    def give(self, model: Any) -> None:
        """Give a network the weights as they are now."""
        if model is not self.model:
            _assign(model.weights, self.model.weights)

    def advance(self, inputs: NDArray[Any], targets: NDArray[Any], *, rate: float) -> Losses:
        """Train on batches, one step for each, and return the loss before each step.

        Args:
            inputs: shape (steps, batch, ...).
            targets: shape (steps, batch, K).
            rate: of learning.
        """
        self._optimizer.learning_rate = rate
        losses: Losses = np.asarray(self._advance(inputs, targets))
        return losses


@lru_cache(maxsize=4)
def kept(
    architecture: str, shape: architectures.Shape, classes: int, loss: LossFunction
) -> Trainer:
    """Return the one place for networks of an architecture that are trained for the same.

    The loss is known again as the same function. Draws of Keras's global generator are spent: seed
    it after.
    """
    model = architectures.build(architecture, shape, classes)
    return Trainer(model, architectures.optimizer(model), loss)


def _assign(variables: Iterable[Any], values: Iterable[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _on_tensorflow(model: Any, optimizer: Any, loss: LossFunction) -> Callable[..., Any]:
    """Return a function that takes any number of steps, traced once."""
    import tensorflow as tf

    (given,), (made,) = model.inputs, model.outputs
    signature = [
        tf.TensorSpec((None, *given.shape), given.dtype),
        tf.TensorSpec((None, *made.shape), made.dtype),
    ]

    def advance(inputs: Any, targets: Any) -> Any:
        count = tf.shape(inputs)[0]

        def step(at: Any, losses: Any) -> Any:
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(targets[at], model(inputs[at], training=True)))
            weights = model.trainable_variables
            optimizer.apply(tape.gradient(value, weights), weights)
            return at + 1, losses.write(at, value)

        start = tf.constant(0), tf.TensorArray(tf.float32, count)
        _, losses = tf.while_loop(lambda at, _: at < count, step, start, parallel_iterations=1)
        return losses.stack()

    return tf.function(advance, input_signature=signature, autograph=False)  # type: ignore[no-any-return]


def _on_jax(model: Any, optimizer: Any, loss: LossFunction) -> Callable[..., Any]:
    """Return the same for JAX: one compiled step, begun again before the last has ended.

    A loop inside would be compiled too, but on processors JAX's convolutions crawl in loops.
    """
    import jax
    from jax import numpy as jnp

    def value(trainable: Any, others: Any, inputs: Any, targets: Any) -> Any:
        logits, others = model.stateless_call(trainable, others, inputs, training=True)
        return jnp.mean(loss(targets, logits)), others

    def step(state: Any, inputs: Any, targets: Any) -> Any:
        trainable, others, kept = state
        (found, others), gradients = jax.value_and_grad(value, has_aux=True)(
            trainable, others, inputs, targets
        )
        trainable, kept = optimizer.stateless_apply(kept, gradients, trainable)
        return (trainable, others, kept), found

    compiled = jax.jit(step)
    variables = model.trainable_variables, model.non_trainable_variables, optimizer.variables

    def advance(inputs: Any, targets: Any) -> Any:
        state: Any = tuple([one.value for one in each] for each in variables)
        losses = []
        for batch in zip(inputs, targets, strict=True):
            state, found = compiled(state, *batch)
            losses.append(found)
        for each, values in zip(variables, state, strict=True):
            _assign(each, values)
        return jax.device_get(losses)

    return advance


def _one_by_one(model: Any, optimizer: Any, loss: LossFunction) -> Callable[..., Any]:
    model.compile(optimizer=optimizer, loss=loss)
    return lambda *batches: [model.train_on_batch(*batch) for batch in zip(*batches, strict=True)]


_ADVANCES = {"tensorflow": _on_tensorflow, "jax": _on_jax}

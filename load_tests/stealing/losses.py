"""What a substitute is trained to match: losses of (answers, the substitute's logits).

| name | matches |
| --- | --- |
| ``cross_entropy`` | the answers as they are, the naive thief |
| ``mse`` | the answers, by their squared differences (Table 4) |
| ``logits`` | the logarithms of the answers, up to a constant for each row |
| ``same_layer`` | the answers, by the substitute's own behind a copy of the defence (Table 4) |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from load_tests.stealing import defence_layer
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Of (answers, logits), both of shape (batch, K).
LossFunction = Callable[[Any, Any], Any]
#: Answers are at least this before a logarithm: what float32 tells from 0 beside 1.
EPSILON = 1e-7


@dataclass(frozen=True)
class Loss:
    """One way to learn from answers."""

    #: Returns the loss, given what the adversary takes the defence to be.
    make: Callable[[Parameters | None], LossFunction]
    #: Whether it copies the defence, and so learns from protected answers alone.
    behind_defence: bool = False


def find(name: str) -> Loss:
    """Return a loss by name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in LOSSES:
        raise InputError(f"--loss: expected {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name]


def _cross_entropy(answers: Any, logits: Any) -> Any:
    from keras import ops

    return ops.categorical_crossentropy(answers, logits, from_logits=True)


def _mse(answers: Any, logits: Any) -> Any:
    from keras import ops

    return ops.mean(ops.square(ops.softmax(logits) - answers), axis=-1)


def _logits(answers: Any, logits: Any) -> Any:
    from keras import ops

    wanted = ops.log(ops.maximum(answers, EPSILON))
    wanted -= ops.mean(wanted, axis=-1, keepdims=True)
    given = logits - ops.mean(logits, axis=-1, keepdims=True)
    return ops.mean(ops.square(given - wanted), axis=-1)


def _same_layer(defence: Parameters | None) -> LossFunction:
    if defence is None or defence.defense != "reverse_sigmoid":
        raise InputError("--loss same_layer: expected the beta and gamma of Reverse Sigmoid")

    def loss(answers: Any, logits: Any) -> Any:
        from keras import ops

        protected = defence_layer.protect(ops.softmax(logits), defence)
        return -ops.sum(answers * ops.log(ops.maximum(protected, EPSILON)), axis=-1)

    return loss


LOSSES = {
    "cross_entropy": Loss(lambda _: _cross_entropy),
    "mse": Loss(lambda _: _mse),
    "logits": Loss(lambda _: _logits),
    "same_layer": Loss(_same_layer, behind_defence=True),
}

"""What a substitute is trained to match: losses of (answers, the substitute's logits).

| name | matches |
| --- | --- |
| ``cross_entropy`` | the answers as they are, the naive thief |
| ``mse`` | the answers, by their squared differences (Table 4) |
| ``logits`` | the logarithms of the answers, up to a constant for each row |
| ``same_layer`` | the answers, by the substitute's own behind a copy of the defence (Table 4) |
| ``smoothed`` | labels, a tenth of each spread over all classes (Szegedy et al., 2016) |
| ``tempered`` | labels, at twice the temperature |
| ``spread`` | labels, as logits with one lead for all rows, by their squared differences |

The last three are controls: what a way of training is worth that has nothing but labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from exporters.registry import Registry
from exporters.training.train import cross_entropy
from exporters.training.trainer import LossFunction
from load_tests.stealing import defence_layer
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Answers are at least this before a logarithm: what float32 tells from 0 beside 1.
EPSILON = 1e-7
SMOOTHING = 0.1
TEMPERATURE = 2.0
#: Of the label's logit over the others', in ``spread``: a probability of .98 of ten classes.
LEAD = 6.0


@dataclass(frozen=True)
class Loss:
    """One way to learn from answers."""

    #: Returns the loss, given what the adversary takes the defence to be.
    make: Callable[[Parameters | None], LossFunction]
    #: Whether it copies the defence, and so learns from protected answers alone.
    behind_defence: bool = False
    of_labels: bool = False  #: whether it is for labels alone


def _mse(answers: Any, logits: Any) -> Any:
    from keras import ops

    return ops.mean(ops.square(ops.softmax(logits) - answers), axis=-1)


def _logits(answers: Any, logits: Any) -> Any:
    from keras import ops

    wanted = ops.log(ops.maximum(answers, EPSILON))
    wanted -= ops.mean(wanted, axis=-1, keepdims=True)
    given = logits - ops.mean(logits, axis=-1, keepdims=True)
    return ops.mean(ops.square(given - wanted), axis=-1)


def _smoothed(labels: Any, logits: Any) -> Any:
    return cross_entropy((1 - SMOOTHING) * labels + SMOOTHING / labels.shape[-1], logits)


def _tempered(labels: Any, logits: Any) -> Any:
    return cross_entropy(labels, logits / TEMPERATURE)


def _spread(labels: Any, logits: Any) -> Any:
    from keras import ops

    return _logits(ops.softmax(LEAD * labels), logits)


@cache  # known again, it is compiled once
def _same_layer(defence: Parameters | None) -> LossFunction:
    if defence is None or defence.defense != "reverse_sigmoid":
        raise InputError("--loss same_layer: expected the beta and gamma of Reverse Sigmoid")

    def loss(answers: Any, logits: Any) -> Any:
        from keras import ops

        protected = defence_layer.protect(ops.softmax(logits), defence)
        return -ops.sum(answers * ops.log(ops.maximum(protected, EPSILON)), axis=-1)

    return loss


LOSSES = Registry(
    "--loss",
    {
        "cross_entropy": Loss(lambda _: cross_entropy),
        "mse": Loss(lambda _: _mse),
        "logits": Loss(lambda _: _logits),
        "same_layer": Loss(_same_layer, behind_defence=True),
        "smoothed": Loss(lambda _: _smoothed, of_labels=True),
        "tempered": Loss(lambda _: _tempered, of_labels=True),
        "spread": Loss(lambda _: _spread, of_labels=True),
    },
)

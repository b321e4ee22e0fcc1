"""Inversion by regression (section 4.4): learn the way back from pairs of answers.

A pair is a protected answer and the victim's own probabilities for the same input. Whoever has
real ones knows more than an outsider can; an outsider makes pairs from a model of their own,
the shadow, and a copy of the defence.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from exporters.training.train import BATCH, cross_entropy, train
from exporters.training.trainer import Trainer
from load_tests.asking.endpoint import Answers

Inverse = Callable[[Answers], Answers]

#: Hidden units of the MLP for each class (section 4.4: "5 x K neurons").
UNITS_PER_CLASS = 5
EPOCHS = 100


def linear(answers: Answers, probabilities: Answers) -> Inverse:
    """Return a least-squares map, with a constant, from answers to probabilities.

    Its results are clipped at 0 and normalised, as in the paper.

    Args:
        answers: protected, shape (n, K).
        probabilities: the victim's, shape (n, K).
    """
    weights, *_ = np.linalg.lstsq(_with_one(answers), probabilities.astype(np.float64), rcond=None)

    def inverse(protected: Answers) -> Answers:
        return _normalised(_with_one(protected) @ weights)

    return inverse


def mlp(answers: Answers, probabilities: Answers, *, seed: int) -> Inverse:
    """Return a network with one hidden layer of 5 x K units, from answers to probabilities.

    Its inputs are standardised: protected answers differ in their third decimal only. The paper
    names neither loss nor optimizer: cross-entropy and Adam here.

    Args:
        answers: protected, shape (n, K).
        probabilities: the victim's, shape (n, K).
        seed: of the initial weights and the shuffles.
    """
    import keras

    classes = answers.shape[1]
    trainer = _trainer(classes)
    keras.utils.set_random_seed(seed)
    model = _network(classes)
    mean, deviation = answers.mean(axis=0), answers.std(axis=0) + 1e-9
    epochs = max(1, min(EPOCHS, 300_000 // len(answers)))
    train(
        model,
        (answers - mean) / deviation,
        probabilities,
        steps=epochs * -(-len(answers) // BATCH),
        seed=seed,
        flips=False,
        trainer=trainer,
    )

    def inverse(protected: Answers) -> Answers:
        logits = keras.ops.convert_to_numpy(model((protected - mean) / deviation, training=False))
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return _normalised(weights)

    return inverse


def _network(classes: int) -> Any:
    import keras

    hidden = keras.layers.Dense(UNITS_PER_CLASS * classes, activation="relu")
    layers = [keras.Input((classes,)), hidden, keras.layers.Dense(classes)]
    return keras.Sequential(layers, name="inverse")


@lru_cache(maxsize=1)
def _trainer(classes: int) -> Trainer:
    import keras

    return Trainer(_network(classes), keras.optimizers.Adam(3e-3), cross_entropy)


def crosswise(
    fit: Callable[[Answers, Answers], Inverse], answers: Answers, probabilities: Answers
) -> Answers:
    """Return what an inverse recovers of answers that it was not fitted on, shape (n, K).

    Each half is recovered by the inverse of the other half's pairs.
    """
    recovered = np.empty_like(probabilities)
    for half in (0, 1):
        inverse = fit(answers[1 - half :: 2], probabilities[1 - half :: 2])
        recovered[half::2] = inverse(answers[half::2])
    return recovered


def _with_one(answers: Answers) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.concatenate([answers.astype(np.float64), np.ones((len(answers), 1))], axis=1)


def _normalised(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Answers:
    clipped = np.maximum(values, 0) + 1e-9
    rows: Answers = (clipped / clipped.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows

"""What `protect` is tested on behind a real server: files, requests to them, what is found."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import victims


def floats(name, *shape, dtype=np.float32):
    return lambda rng, rows: {name: rng.normal(size=(rows, *shape)).astype(dtype)}


def pixels(name, *shape, dtype=np.float32):
    return lambda rng, rows: {name: rng.random((rows, *shape)).astype(dtype)}


def tokens(rng, rows):
    return {"input_ids": rng.integers(0, 50, (rows, 3 + rows % 5))}


def any_classes(rng, rows):
    return {"x": rng.normal(size=(rows, 2 + rows % 7)).astype(np.float32)}


def words(rng, rows):
    columns = [rng.choice(np.array(kind, dtype=object), rows) for kind in
               (victims.COLOURS, victims.SIZES)]  # fmt: skip
    return {"words": np.stack(columns, axis=1)}


def two_inputs(rng, rows):
    return {**floats("image", 3, 4)(rng, rows), **floats("more", 5)(rng, rows)}


def byte_inputs(rng, rows):
    pixels = rng.integers(0, 256, (rows, 5)).astype(np.uint8)
    return {"pixels": pixels, "inverted": rng.random((rows, 3)) < 0.5}


#: Said of networks that were never trained, whose raw answers are flat too.
UNSURE = (
    "on no row tried does a protected answer differ enough from a raw one for health checks to "
    "tell them apart; give confident rows with --sample"
)


@dataclass(frozen=True)
class Case:
    make: Callable  # path -> None
    draw: Callable  # (rng, rows) -> feed
    cut: str | None
    classes: int
    kind: str = "logits"
    labels: tuple = ()
    batched: bool = True
    multi_label: bool = False
    asked: dict = field(default_factory=dict)
    warned: list = field(default_factory=list)  # how its warnings begin


def softmax():
    from torch import nn

    return nn.Softmax(-1)


def sigmoid():
    from torch import nn

    return nn.Sigmoid()


def logistic_regression(path):
    from sklearn.linear_model import LogisticRegression

    victims.sklearn_file(path, LogisticRegression(max_iter=200))


def random_forest(path):
    from sklearn.ensemble import RandomForestClassifier

    victims.sklearn_file(path, RandomForestClassifier(10, random_state=0))


def mlp(path, **options):
    from sklearn.neural_network import MLPClassifier

    victims.sklearn_file(path, MLPClassifier((32,), max_iter=60, random_state=0), **options)


def mlp_float64(path):
    from skl2onnx.common.data_types import DoubleTensorType

    mlp(path, kind=DoubleTensorType)


def dense(*last, **options):
    return lambda path: victims.torch_dense_file(path, *(one() for one in last), **options)


FEATURES = floats("features", 16)
CASES = {
    "keras_logits": Case(
        lambda path: victims.keras_file(path, softmax=False), pixels("image", 8, 8, 1), None, 10
    ),
    "keras_softmax": Case(
        lambda path: victims.keras_file(path, softmax=True), pixels("image", 8, 8, 1), "Softmax", 10
    ),
    "torch_logits": Case(dense(), FEATURES, None, 7),
    "torch_external_data": Case(dense(softmax, external=True), FEATURES, "Softmax", 7),
    "torch_two_inputs": Case(victims.torch_two_inputs_file, two_inputs, "Softmax", 6),
    "torch_uncut": Case(
        dense(softmax), FEATURES, None, 7, "probabilities", asked={"scores": "probabilities"}
    ),
    "texts": Case(
        lambda path: victims.torch_tokens_file(path, tagger=False), tokens, "Softmax", 5
    ),
    "tagger": Case(
        lambda path: victims.torch_tokens_file(path, tagger=True), tokens, "Softmax", 5
    ),
    "binary": Case(dense(sigmoid, classes=1), FEATURES, "Sigmoid", 1),
    "multi_label": Case(dense(sigmoid, classes=5), FEATURES, "Sigmoid", 5, multi_label=True),
    "float16": Case(
        dense(softmax, half=True), floats("features", 16, dtype=np.float16), None, 7,
        "probabilities", warned=["left as probabilities", UNSURE],
    ),
    "float64": Case(
        dense(softmax, double=True), floats("features", 16, dtype=np.float64), "Softmax", 7
    ),
    "one_row": Case(dense(softmax, free=False), FEATURES, "Softmax", 7, batched=False),
    "free_but_unbatched": Case(
        dense(softmax), FEATURES, "Softmax", 7, batched=False, asked={"max_batch_size": 0}
    ),
    "logistic_regression": Case(
        logistic_regression, pixels("X", 64), None, 10, "probabilities", ("label",)
    ),
    "random_forest": Case(random_forest, pixels("X", 64), None, 10, "probabilities", ("label",)),
    "mlp": Case(mlp, pixels("X", 64), "Softmax", 10, labels=("label",)),
    "mlp_float64": Case(
        mlp_float64, pixels("X", 64, dtype=np.float64), "Softmax", 10, labels=("label",)
    ),
    "strings": Case(
        victims.sklearn_strings_file, words, None, 3, "probabilities", ("label",),
        asked={"sample": words},
    ),
    "flat": Case(victims.flat_file, floats("age"), "Sigmoid", 1, asked={"self_contained": True}),
    "no_batch": Case(
        lambda path: victims.linear_file(path, ("Softmax", {"axis": -1}), batch=None),
        lambda rng, rows: {"x": rng.normal(size=6).astype(np.float32)}, "Softmax", 4, batched=False,
    ),
    "any_classes": Case(victims.any_classes_file, any_classes, "Softmax", -1),
    "bytes": Case(victims.bytes_file, byte_inputs, "Softmax", 3),
}  # fmt: skip

"""Classifiers as their users have them: ONNX files from the real exporters."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED

SEED = 0
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SOFTMAX, SIGMOID = ("Softmax", {"axis": -1}), ("Sigmoid", {})


def rng():
    return np.random.default_rng(SEED)


# Keras through tf2onnx


def keras_file(path, *, softmax):
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(SEED)
    layers = [
        keras.Input((8, 8, 1), name="image"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, kernel_initializer="glorot_normal", name="dense"),
    ]
    if softmax:
        layers.append(keras.layers.Softmax(name="probabilities"))
    model = keras.Sequential(layers)
    signature = [tf.TensorSpec((None, 8, 8, 1), tf.float32, name="image")]
    function = tf.function(model, input_signature=signature)
    tf2onnx.convert.from_function(
        function, input_signature=signature, opset=17, output_path=str(path)
    )


# PyTorch through torch.onnx


def torch_file(path, module, arguments, names, dynamic, *, outputs=("scores",), external=False):
    import logging

    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.onnx.export(
        module.eval(),
        tuple(arguments),
        str(path),
        input_names=list(names),
        output_names=list(outputs),
        dynamic_shapes=dynamic,
        external_data=external,
        verbose=False,
        dynamo=True,
    )


def torch_network(*layers):
    import torch

    torch.manual_seed(SEED)
    return torch.nn.Sequential(*layers)


def dense(features, classes, *last):
    from torch import nn

    return torch_network(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, classes), *last)


def torch_dense_file(path, *last, classes=7, double=False, half=False, free=True, external=False):
    import torch

    kind = torch.float64 if double else torch.float16 if half else torch.float32
    module = dense(16, classes, *last).to(kind)
    rows = 3 if free else 1
    dynamic = {"input": {0: torch.export.Dim("batch")}} if free else None
    torch_file(
        path, module, [torch.randn(rows, 16, dtype=kind)], ["features"],
        dynamic and tuple(dynamic.values()), external=external,
    )  # fmt: skip


def torch_two_inputs_file(path):
    import torch

    class TwoInputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(SEED)
            self.image, self.more = torch.nn.Linear(12, 6), torch.nn.Linear(5, 6)

        def forward(self, image, more):
            return torch.softmax(self.image(image.flatten(1)) + self.more(more), -1)

    batch = torch.export.Dim("batch")
    torch_file(
        path, TwoInputs(), [torch.randn(3, 3, 4), torch.randn(3, 5)], ["image", "more"],
        ({0: batch}, {0: batch}),
    )  # fmt: skip


def torch_tokens_file(path, *, tagger):
    """Token ids of any length; one answer for each text, or with ``tagger`` for each token."""
    import torch

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(SEED)
            self.embedding = torch.nn.Embedding(50, 16)
            self.query = torch.nn.Linear(16, 16)
            self.head = torch.nn.Linear(16, 5)

        def forward(self, input_ids):
            x = self.embedding(input_ids)
            attention = torch.softmax(self.query(x) @ x.transpose(1, 2) / 4, -1)
            x = x + attention @ x
            if not tagger:
                x = x.mean(1)
            return torch.softmax(3 * self.head(x), -1)

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=512)
    torch_file(
        path, Tokens(), [torch.randint(0, 50, (3, 6))], ["input_ids"], ({0: batch, 1: length},)
    )


# scikit-learn through skl2onnx


def sklearn_file(path, model, *, zipmap=False, kind=None):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    model.fit((images / 16)[:600], labels[:600])
    onnx_model = to_onnx(
        model,
        initial_types=[("X", (kind or FloatTensorType)([None, 64]))],
        options={id(model): {"zipmap": zipmap}},
        target_opset=17,
    )
    path.write_bytes(onnx_model.SerializeToString())


COLOURS, SIZES = ("red", "green", "blue"), ("small", "large")


def sklearn_strings_file(path):
    """Two columns of strings in; scores and a label that is a string out."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = np.array([(colour, size) for colour in COLOURS for size in SIZES] * 3, dtype=object)
    labels = np.array(
        [{"red": "stop", "green": "go", "blue": "wait"}[colour] for colour, _ in rows]
    )
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    model.fit(rows, labels)
    onnx_model = to_onnx(
        model,
        initial_types=[("words", StringTensorType([None, 2]))],
        options={id(model): {"zipmap": False}},
        target_opset=17,
    )
    path.write_bytes(onnx_model.SerializeToString())


# By hand


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def graph_file(path, nodes, inputs, outputs, weights=None, *, opset=17, ir=8, types=None):
    """Write a graph; inputs and outputs are (name, ONNX type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def passing(shape, dtype=np.float32, opset=17):
    """A graph whose scores are its input."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [node("Identity", ["x"], ["scores"])],
        "classifier",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("scores", kind, shape)],
    )
    opsets = [helper.make_opsetid("", opset)] if opset else [helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def linear_file(
    path, *activation, features=6, classes=4, batch="N", kind=FLOAT, more=(),
    more_outputs=(), opset=17, output="scores",
):  # fmt: skip
    """x @ W, then activations by name, each with its attributes; ``more`` nodes may follow."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [node("MatMul", ["x", "W"], ["h0"])]
    for index, (op, attributes) in enumerate(activation):
        nodes.append(node(op, [f"h{index}"], [f"h{index + 1}"], **attributes))
    nodes[-1].output[0] = output
    weights = {"W": rng().normal(size=(features, classes)).astype(dtype)}
    return graph_file(
        path,
        [*nodes, *more],
        [("x", kind, (batch, features) if batch else (features,))],
        [(output, kind, (batch, classes) if batch else (classes,)), *more_outputs],
        weights,
        opset=opset,
    )


def flat_file(path):
    """Input of shape (batch,), one probability for each row, of shape (batch,) too."""
    return graph_file(
        path,
        [
            node("Mul", ["age", "factor"], ["logit"]),
            node("Sigmoid", ["logit"], ["risk"]),
        ],
        [("age", FLOAT, ("N",))],
        [("risk", FLOAT, ("N",))],
        {"factor": np.array([0.7], np.float32)},
    )


def any_classes_file(path):
    """As many scores as there are inputs, in every request other ones."""
    return graph_file(
        path,
        [node("Neg", ["x"], ["h"]), node("Softmax", ["h"], ["scores"])],
        [("x", FLOAT, ("N", "K"))],
        [("scores", FLOAT, ("N", "K"))],
    )


def bytes_file(path):
    """uint8 pixels and bool flags in; the output has the name of an ensemble's inner tensor."""
    return graph_file(
        path,
        [
            node("Cast", ["pixels"], ["float_pixels"], to=FLOAT),
            node("MatMul", ["float_pixels", "W"], ["plain"]),
            node("Cast", ["inverted"], ["float_inverted"], to=FLOAT),
            node("Sub", ["plain", "float_inverted"], ["shifted"]),
            node("Softmax", ["shifted"], ["soft"]),
            node("Identity", ["soft"], ["victim_scores"]),
        ],
        [("pixels", TensorProto.UINT8, ("N", 5)), ("inverted", TensorProto.BOOL, ("N", 3))],
        [("victim_scores", FLOAT, ("N", 3))],
        {"W": rng().normal(size=(5, 3)).astype(np.float32) / 50},
    )


# Protecting them


def protected(tmp_path, path, **asked):
    return protect(path, tmp_path / "models", SHIPPED, ProtectOptions(**asked))


def retrain(file, *, seed):
    """Give a model other weights, in a file beside it, and no other graph."""
    model = onnx.load(file)
    (weights,) = [one for one in model.graph.initializer if len(one.dims) == 2]
    other = np.random.default_rng(seed).normal(size=tuple(weights.dims)).astype(np.float32)
    (file.parent / "weights.bin").write_bytes(other.tobytes())
    if weights.data_location != onnx.TensorProto.EXTERNAL:
        weights.ClearField("raw_data")
        weights.ClearField("float_data")
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="weights.bin")
        file.write_bytes(model.SerializeToString())

"""Classifiers that a file tells badly: odd axes, 8 bits, wrong declarations, ZipMap."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from victims import FLOAT, INT64, graph_file, node

HALF = TensorProto.FLOAT16
K, HEIGHT, WIDTH = 5, 3, 7


def segmentation_file(path, *ending, sizes=(HEIGHT, WIDTH), kind=FLOAT):
    """A 1 x 1 convolution: classes on axis 1, as nets that label each pixel have them."""
    weights = np.random.default_rng(0).normal(size=(K, 2, 1, 1)).astype(np.float32)
    nodes = [node("Conv", ["x", "w"], ["logits"]), *ending]
    if not ending:
        nodes[-1].output[0] = "scores"
    return graph_file(
        path,
        nodes,
        [("x", kind, ("N", 2, *sizes))],
        [("scores", kind, ("N", K, *sizes))],
        {"w": weights},
    )


FEATURES = 16


def int8_file(path, classes, *, activation="Softmax", sharp=2.0, operators="QDQ"):
    """x @ W, an activation, and its probabilities rounded to steps of 1/255."""
    if operators == "QDQ":
        nodes = [
            node(activation, ["logits"], ["soft"]),
            node("QuantizeLinear", ["soft", "scale", "zero"], ["eight"]),
            node("DequantizeLinear", ["eight", "scale", "zero"], ["scores"]),
        ]
    else:
        nodes = [
            node("QuantizeLinear", ["logits", "wide", "middle"], ["given"]),
            node(
                f"QLinear{activation}",
                ["given", "wide", "middle", "scale", "zero"],
                ["eight"],
                domain="com.microsoft",
                **({"axis": -1, "opset": 13} if activation == "Softmax" else {}),
            ),
            node("DequantizeLinear", ["eight", "scale", "zero"], ["scores"]),
        ]
    rng = np.random.default_rng(classes)
    path = graph_file(
        path,
        [node("MatMul", ["x", "W"], ["logits"]), *nodes],
        [("x", FLOAT, ("N", FEATURES))],
        [("scores", FLOAT, ("N", classes))],
        {
            "W": (rng.normal(size=(FEATURES, classes)) / 4 * sharp).astype(np.float32),
            "scale": np.array(1 / 255, np.float32),
            "zero": np.array(0, np.uint8),
            "wide": np.array(0.1, np.float32),
            "middle": np.array(128, np.uint8),
        },
    )
    if operators != "QDQ":
        model = onnx.load(str(path))
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        onnx.save(model, str(path))
    return path


def two_classes_file(path, *, softmax, scores=("N", 1), label=("N",), kind=FLOAT, classes=2):
    """Two classes, whatever the file says of them, and the top one's number."""
    weights = np.random.default_rng(0).normal(size=(6, classes))
    dtype = np.float16 if kind == HALF else np.float32
    nodes = [node("MatMul", ["x", "W"], ["h"])]
    nodes.append(node("Softmax" if softmax else "Neg", ["h"], ["scores"]))
    nodes.append(node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    return graph_file(
        path,
        nodes,
        [("x", kind, ("N", 6))],
        [("scores", kind, scores), ("label", INT64, label)],
        {"W": weights.astype(dtype)},
    )


def baked_file(path, batch, *, features=12):
    """Declares a free batch and reshapes to the one that it was traced with."""
    return graph_file(
        path,
        [
            node("Reshape", ["x", "shape"], ["flat"], name="/head/Reshape"),
            node("MatMul", ["flat", "W"], ["h"]),
            node("Softmax", ["h"], ["scores"]),
        ],
        [("x", FLOAT, ("batch", 3, 2, 2))],
        [("scores", FLOAT, ("batch", 4))],
        {
            "shape": np.array([batch, features]),
            "W": np.random.default_rng(0).normal(size=(features, 4)).astype(np.float32),
        },
    )


COLUMNS = 6


def zipmap_file(path, *, producer, keys=(3, 5, 8), more=(), more_outputs=(), shared=False):
    """A classifier that ends in ZipMap, as converters write it, with the label beside."""
    words = isinstance(keys[0], str)
    attributes = {"classlabels_strings" if words else "classlabels_int64s": list(keys)}
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "W"], ["h"]),
            node("Softmax", ["h"], ["tensor"]),
            node("ArgMax", ["tensor"], ["label"], axis=1, keepdims=0),
            node("ZipMap", ["tensor"], ["probabilities"], domain="ai.onnx.ml", **attributes),
            *more,
        ],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, ("N", COLUMNS))],
        [
            helper.make_tensor_value_info("label", INT64, ("N",)),
            maps("probabilities", TensorProto.STRING if words else INT64),
            *([helper.make_tensor_value_info("tensor", FLOAT, ("N", len(keys)))] * shared),
            *more_outputs,
        ],
        [onnx.numpy_helper.from_array(weights(len(keys)), "W")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)
    onnx.save(model, str(path))
    return path


def maps(name, key):
    value = helper.make_tensor_type_proto(FLOAT, None)
    return helper.make_value_info(
        name, helper.make_sequence_type_proto(helper.make_map_type_proto(key, value))
    )


def weights(classes):
    return np.random.default_rng(0).normal(size=(COLUMNS, classes)).astype(np.float32)

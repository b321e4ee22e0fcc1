"""What exporters write in other words: a Softmax in pieces, a batch that is not the first axis."""

import numpy as np
import oracle
import pytest
from odd_victims import weights
from victims import FLOAT, graph_file, node, protected

from exporters.fusing.fused import VICTIM_SCORES
from exporters.graph.onnx_graph import load
from exporters.graph.onnx_run import OnnxSession
from exporters.reading.graph_ending import probabilities_from
from exporters.repository.model_repository import fused_onnx_path, onnx_path

SETTINGS = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "preserve_top1": True}


def written_softmax(logits, scores, *, opset, axis=1, shift=True):
    """A Softmax as JAX writes it: the largest taken off, Exp, its sum, made as wide, and a Div."""
    axes = {"axes": [axis]} if opset < 13 else {}
    low = [node("Identity", [logits], ["low"])]
    if shift:
        low = [
            node("ReduceMax", [logits], ["most"], axes=[axis]),
            node("Sub", [logits, "most"], ["low"]),
        ]
    return [
        *low,
        node("Exp", ["low"], ["weights"]),
        node("ReduceSum", ["weights", *([] if axes else ["axes"])], ["sum"], keepdims=0, **axes),
        node("Unsqueeze", ["sum", *([] if axes else ["axes"])], ["tall"], **axes),
        node("Shape", ["weights"], ["wide"]),
        node("Expand", ["tall", "wide"], ["total"]),
        node("Div", ["weights", "total"], [scores]),
    ]  # fmt: skip


def softmax_file(path, *, opset, **shape):
    numbers = {"W": weights(9), "axes": np.array([1])}
    if opset < 13:
        del numbers["axes"]
    return graph_file(
        path,
        [node("MatMul", ["x", "W"], ["logits"]),
         *written_softmax("logits", "scores", opset=opset, **shape)],
        [("x", FLOAT, ("N", len(numbers["W"])))],
        [("scores", FLOAT, ("N", 9))],
        numbers,
        opset=opset,
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize(("opset", "shift"), [(11, True), (17, True), (17, False)])
def test_a_softmax_in_pieces_is_taken_off_like_a_whole_one(tmp_path, opset, shift, layout):
    path = softmax_file(tmp_path / "m.onnx", opset=opset, shift=shift)
    done = protected(tmp_path, path, layout=layout)
    scores = done.heads[0].scores
    assert (scores.kind, scores.cut.op) == ("logits", "Softmax")
    x = np.random.default_rng(0).normal(size=(50, len(weights(9)))).astype(np.float32)
    if layout == "fused":
        graph = fused_onnx_path(tmp_path / "models", "m")
        assert probabilities_from(load(graph), VICTIM_SCORES) is None
        wanted = oracle.protected(x @ weights(9), kind="logits", **SETTINGS)
        answer = OnnxSession(graph)({"x": x}, ["scores"])["scores"]
        assert np.abs(answer - wanted).max() <= 1e-5
    else:
        given = OnnxSession(onnx_path(tmp_path / "models", "m"))({"x": x}, ["scores"])["scores"]
        logits = (x @ weights(9)).astype(np.float64)
        assert np.abs(given - logits).max() <= 1e-5  # also where the largest was taken off
    assert probabilities_from(load(path), "scores") == "Softmax"


def test_an_exp_over_another_sum_is_no_softmax(tmp_path):
    path = softmax_file(tmp_path / "m.onnx", opset=17)
    model = load(path)
    for one in model.graph.node:
        if one.op_type == "ReduceSum":
            one.input[0] = "logits"
    assert probabilities_from(model, "scores") is None


def test_a_batch_on_another_axis_of_the_scores_is_not_taken_for_classes(tmp_path):
    """[T, N, K], as recognisers give it that CTC decodes."""
    path = graph_file(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "W"], ["h"]), node("Transpose", ["h"], ["scores"], perm=[1, 0, 2])],
        [("x", FLOAT, ("N", 20, len(weights(37))))],
        [("scores", FLOAT, (20, "N", 37))],
        {"W": weights(37)},
    )
    done = protected(tmp_path, path)
    signature, head = done.classifier.signature, done.heads[0]
    assert (head.class_axis, head.classes, signature.max_batch_size) == (-1, 37, 0)
    assert signature.scores[0].dims == (20, -1, 37)


def test_sizes_of_one_name_are_given_one_size_and_a_free_output_stays_free(tmp_path):
    """A state of [layers, N, ...] beside the rows, and scores of N that have no batch."""
    size = len(weights(1))
    path = graph_file(
        tmp_path / "m.onnx",
        [
            node("ReduceSum", ["state", "zero"], ["row"], keepdims=0),
            node("Add", ["x", "row"], ["both"]),
            node("MatMul", ["both", "W"], ["column"]),
            node("Sigmoid", ["column"], ["tall"]),
            node("Squeeze", ["tall", "one"], ["scores"]),
        ],
        [("x", FLOAT, ("N", size)), ("state", FLOAT, (2, "N", size))],
        [("scores", FLOAT, ("N",))],
        {"W": weights(1), "zero": np.array([0]), "one": np.array([1])},
    )
    signature = protected(tmp_path, path).classifier.signature
    assert signature.scores[0].dims == (-1,)
    assert [one.dims for one in signature.inputs] == [(-1, size), (2, -1, size)]

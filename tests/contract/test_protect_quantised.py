"""Quantised classifiers are protected as the probabilities that they are, without flags."""

import re

import numpy as np
import onnxruntime
import pytest
from odd_victims import FEATURES, int8_file
from onnx import TensorProto, helper
from victims import FLOAT, graph_file, linear_file, node, protected

from exporters.repository import model_repository
from exporters.repository.config_pbtxt import read_parameters
from exporters.verify import defended
from postprocess.errors import InputError
from postprocess.postprocessor import Postprocessor
from postprocess.scores import bad_rows


def run(path, rows):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"x": rows})[0]


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("classes", [3, 5, 10, 100])
def test_a_quantised_softmax_is_protected_and_no_row_is_refused(tmp_path, classes, layout):
    path = int8_file(tmp_path / "m.onnx", classes)
    done = protected(tmp_path, path, layout=layout)
    assert (done.heads[0].scores.kind, done.heads[0].scores.multi_label) == ("probabilities", False)
    assert done.heads[0].verified.refused == 0
    rows = np.random.default_rng(1).normal(size=(10_000, FEATURES)).astype(np.float32)
    original = run(path, rows)
    assert np.abs(original.sum(axis=1) - 1).max() > 1e-3  # or it shows nothing
    assert not bad_rows(original, probabilities=True, single=False).any()
    if layout == "fused":
        answer = run(model_repository.fused_onnx_path(done.repository, "m"), rows)
    else:
        config = done.repository / "m_reverse_sigmoid" / "config.pbtxt"
        scores = run(model_repository.onnx_path(done.repository, "m"), rows)
        answer = defended(scores, Postprocessor(read_parameters(config)), flat=False)
    # Ties too, which are many: broken as argmax breaks them.
    top = np.sort(original, axis=1)
    assert (top[:, -1] == top[:, -2]).any()
    assert np.array_equal(answer.argmax(axis=1), original.argmax(axis=1))
    assert np.allclose(answer.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "classes"), [("Softmax", 4), ("Sigmoid", 4), ("Sigmoid", 1)]
)
@pytest.mark.parametrize("operators", ["QDQ", "QLinear"])
def test_every_way_to_quantise_an_activation_is_recognised(
    tmp_path, activation, operators, classes
):
    path = int8_file(tmp_path / "m.onnx", classes, activation=activation, operators=operators)
    done = protected(tmp_path, path)
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("probabilities", None)
    assert done.heads[0].scores.multi_label == (activation == "Sigmoid" and classes > 1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"scores": "logits"}, "--scores logits: the graph ends in a Softmax, its probabilities"),
        ({"multi_label": True}, "--multi-label: the graph ends in a Softmax, so its classes"),
    ],
)
def test_a_flag_that_would_disarm_the_defence_is_refused_for_int8(tmp_path, asked, said):
    with pytest.raises(InputError, match=re.escape(said) + ".*; leave it out$"):
        protected(tmp_path, int8_file(tmp_path / "m.onnx", 10), **asked)


def by_hand(path):
    """A Softmax that no operator tells, seen only by what it gives."""
    return linear_file(
        path,
        ("Clip", {}),
        output="h",
        more=[
            node("Constant", [], ["three"], value=helper.make_tensor("t", FLOAT, (), [3.0])),
            node("Tanh", ["h"], ["bounded"]),
            node("Pow", ["three", "bounded"], ["e"]),
            node("ReduceL1", ["e"], ["sum"], axes=[1], keepdims=1),
            node("Div", ["e", "sum"], ["scores"]),
        ],
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"scores": "logits"},
            "--scores logits: all 4096 rows tried lie in [0, 1] and sum to 1: they are "
            "probabilities, which the defence of logits would hardly touch; leave it out",
        ),
        (
            {"multi_label": True},
            "--multi-label: all 4096 rows tried sum to 1, so the classes exclude each other; "
            "leave it out",
        ),
    ],
)
def test_a_flag_that_contradicts_what_was_seen_is_refused(tmp_path, asked, said):
    path = by_hand(tmp_path / "m.onnx")
    rename_output(path)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, **asked)
    assert str(raised.value) == f"{path}: output scores: {said}"
    assert protected(tmp_path, path).heads[0].scores.kind == "probabilities"


def rename_output(path):
    import onnx

    model = onnx.load(str(path))
    model.graph.output[0].name = "scores"
    onnx.save(model, str(path))


def test_one_probability_called_a_logit_is_refused(tmp_path):
    path = linear_file(tmp_path / "m.onnx", ("Sigmoid", {}), ("Clip", {}), classes=1)
    with pytest.raises(InputError, match=r"--scores logits: all 4096 rows tried lie in \[0, 1\]: "):
        protected(tmp_path, path, scores="logits")
    assert protected(tmp_path, path).heads[0].scores.kind == "probabilities"


def test_scores_that_stay_8_bit_integers_are_told_what_to_do(tmp_path):
    path = graph_file(
        tmp_path / "m.onnx",
        [node("QuantizeLinear", ["x", "scale", "zero"], ["scores"])],
        [("x", FLOAT, ("N", 4))],
        [("scores", TensorProto.UINT8, ("N", 4))],
        {"scale": np.array(1 / 255, np.float32), "zero": np.array(0, np.uint8)},
    )
    with pytest.raises(InputError, match="scores is quantised: end the graph in DequantizeLinear"):
        protected(tmp_path, path)

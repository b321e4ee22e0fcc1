"""What ``protect`` finds in a graph."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import victims
from onnx import TensorProto, helper
from victims import FLOAT, INT64, SIGMOID, SOFTMAX, graph_file, linear_file, node, protected

from exporters.repository import model_repository
from postprocess.errors import InputError


def run(path, feed, outputs=None):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(outputs, feed)


def victim(done):
    return model_repository.onnx_path(done.repository, done.name)


X = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)


# Cutting


@pytest.mark.parametrize(
    ("chain", "opset"),
    [
        ([SOFTMAX], 17),
        ([("Softmax", {})], 13),
        ([("Softmax", {})], 11),  # axis 1 by default, the last of two
        ([("Softmax", {"axis": -1})], 11),
        ([("Softmax", {"axis": 1})], 17),
        ([SOFTMAX, ("Identity", {}), ("Cast", {"to": FLOAT})], 17),
        ([SIGMOID], 17),
        ([SIGMOID, ("Identity", {})], 17),
    ],
)
def test_an_activation_is_cut_and_the_output_keeps_its_name(tmp_path, chain, opset):
    path = linear_file(tmp_path / "m.onnx", *chain, opset=opset)
    done = protected(tmp_path, path)
    assert done.heads[0].scores.cut.op == chain[0][0]
    assert done.heads[0].scores.multi_label == (chain[0][0] == "Sigmoid")
    (logits,), (original,) = run(victim(done), {"x": X}, ["scores"]), run(path, {"x": X})
    weights = victims.rng().normal(size=(6, 4)).astype(np.float32)
    assert np.allclose(logits, X @ weights, atol=1e-5)
    assert not np.allclose(logits, original)


def test_a_cast_behind_the_activation_decides_the_type(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX, ("Cast", {"to": TensorProto.DOUBLE}))
    model = onnx.load(str(path))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    onnx.save(model, str(path))
    done = protected(tmp_path, path)
    assert done.heads[0].scores.cut.op == "Softmax"
    assert done.classifier.signature.scores[0].data_type == "TYPE_FP64"
    assert run(victim(done), {"x": X})[0].dtype == np.float64


def test_whoever_else_reads_the_probabilities_still_gets_them(tmp_path):
    """A label computed from the output, one of them in the body of an If."""
    body = [
        helper.make_graph(
            [node("ArgMax", ["scores"], [f"{branch}_label"], axis=-1, keepdims=0)],
            branch,
            [],
            [helper.make_tensor_value_info(f"{branch}_label", INT64, ("N",))],
        )
        for branch in ("yes", "no")
    ]
    path = linear_file(
        tmp_path / "m.onnx",
        SOFTMAX,
        more=[
            node("Constant", [], ["always"], value=helper.make_tensor("c", 9, (), [True])),
            node("If", ["always"], ["label"], then_branch=body[0], else_branch=body[1]),
            node("ReduceSum", ["scores"], ["total"], keepdims=1),
            node("Constant", [], ["one"], value=helper.make_tensor("o", 7, (1,), [1])),
            node("ReduceSum", ["scores", "one"], ["whole_float"], keepdims=0),
            node("Round", ["whole_float"], ["rounded"]),
            node("Cast", ["rounded"], ["whole"], to=INT64),
        ],
        more_outputs=[("label", INT64, ("N",)), ("whole", INT64, ("N",))],
    )
    done = protected(tmp_path, path)
    assert [label.name for label in done.classifier.signature.labels] == ["label", "whole"]
    assert [label.flat for label in done.classifier.signature.labels] == [True, True]
    before, after = run(path, {"x": X}), run(victim(done), {"x": X})
    assert np.array_equal(after[1], before[1])
    assert np.array_equal(after[2], np.ones(5))


@pytest.mark.parametrize(("asked", "warned"), [(None, 0), (False, 1)])
def test_a_sigmoid_of_several_classes_is_multi_label_unless_it_is_said_not_to_be(
    tmp_path, asked, warned
):
    path = linear_file(tmp_path / "m.onnx", SIGMOID)
    done = protected(tmp_path, path, multi_label=asked)
    assert (done.heads[0].scores.cut.op, done.heads[0].scores.multi_label) == (
        "Sigmoid",
        asked is None,
    )
    assert len(done.classifier.warnings) == warned
    text = (done.repository / "m_reverse_sigmoid" / "config.pbtxt").read_text()
    assert ('parameters { key: "multi_label"' in text) == (asked is None)
    public = (done.repository / "m" / "config.pbtxt").read_text()
    assert ("They do not sum to 1" in public) == (asked is None)
    assert ("each row sums to 1" in public) == (asked is False)


@pytest.mark.parametrize(
    ("op", "more", "shape"),
    [
        ("Squeeze", [1], ("N",)),
        ("Reshape", [-1], ("N",)),
        ("Flatten", None, ("N", 1)),
        ("Unsqueeze", [2], ("N", 1, 1)),
    ],
)
def test_a_sigmoid_is_cut_also_where_its_shape_is_changed_behind_it(tmp_path, op, more, shape):
    weights = {"W": victims.rng().normal(size=(6, 1)).astype(np.float32)}
    if more:
        weights["more"] = np.array(more)
    path = graph_file(
        tmp_path / "m.onnx",
        [
            node("MatMul", ["x", "W"], ["logits"]),
            node("Sigmoid", ["logits"], ["wide"]),
            node(op, ["wide", "more"] if more else ["wide"], ["scores"]),
        ],
        [("x", FLOAT, ("N", 6))],
        [("scores", FLOAT, shape)],
        weights,
    )
    done = protected(tmp_path, path)
    assert (done.heads[0].scores.cut.op, done.heads[0].classes) == ("Sigmoid", 1)
    assert np.allclose(run(victim(done), {"x": X})[0].ravel(), (X @ weights["W"]).ravel())


def test_logits_may_be_multi_label(tmp_path):
    done = protected(tmp_path, linear_file(tmp_path / "m.onnx", ("Neg", {})), multi_label=True)
    assert (done.heads[0].scores.kind, done.heads[0].scores.multi_label) == ("logits", True)


def test_one_logit_is_warned_about(tmp_path):
    done = protected(tmp_path, linear_file(tmp_path / "m.onnx", ("Neg", {}), classes=1))
    assert done.classifier.warnings == ["the one score of a row is taken for the logit of a yes"]


def test_a_cut_that_would_lose_what_the_probabilities_tell_is_left_out(tmp_path):
    """float32 probabilities given as float16: the logits do not fit into float16."""
    path = linear_file(
        tmp_path / "m.onnx",
        ("Mul", {}),
        output="h",
        more=[
            node("Softmax", ["h"], ["soft"]),
            node("Cast", ["soft"], ["scores"], to=TensorProto.FLOAT16),
        ],
    )
    model = onnx.load(str(path))
    model.graph.node[1].input.append("thousand")
    model.graph.initializer.append(helper.make_tensor("thousand", FLOAT, (), [1e3]))
    model.graph.output[0].name = "scores"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(path))
    done = protected(tmp_path, path)
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("probabilities", None)
    (warning,) = done.classifier.warnings
    assert warning.startswith("left as probabilities: ")


@pytest.mark.parametrize(("above", "refused"), [(1.0000001, None), (1.00001, "outside [0, 1]")])
def test_what_rounding_puts_above_1_is_still_a_probability(tmp_path, above, refused):
    """onnxruntime's own Sigmoid does; without this such scores would pass for logits."""
    path = linear_file(
        tmp_path / "m.onnx", SIGMOID, ("Mul", {}), ("Max", {}), classes=1, output="scores"
    )
    model = onnx.load(str(path))
    model.graph.node[2].input.append("above")
    model.graph.node[3].input.append("zero")
    model.graph.initializer.append(helper.make_tensor("above", FLOAT, (), [above]))
    model.graph.initializer.append(helper.make_tensor("zero", FLOAT, (), [0]))
    onnx.save(model, str(path))
    if refused:
        with pytest.raises(InputError, match=re.escape(refused)):
            protected(tmp_path, path, scores="probabilities")
    else:
        assert protected(tmp_path, path).heads[0].scores.kind == "probabilities"


def test_log_probabilities_are_logits(tmp_path):
    path = linear_file(tmp_path / "m.onnx", ("LogSoftmax", {"axis": -1}))
    done = protected(tmp_path, path)
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("logits", None)


def test_a_softmax_may_be_left_uncut(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    done = protected(tmp_path, path, scores="probabilities")
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("probabilities", None)
    assert np.array_equal(run(victim(done), {"x": X})[0], run(path, {"x": X})[0])


def test_a_softmax_by_hand_is_recognised_by_what_it_gives(tmp_path):
    path = linear_file(
        tmp_path / "m.onnx",
        ("Clip", {}),
        output="h",
        more=[
            node("Exp", ["h"], ["e"]),
            node("Constant", [], ["axis"], value=helper.make_tensor("a", 7, (1,), [1])),
            node("ReduceSum", ["e", "axis"], ["sum"], keepdims=1),
            node("Reciprocal", ["sum"], ["share"]),
            node("Mul", ["e", "share"], ["probs"]),
        ],
    )
    model = onnx.load(str(path))
    model.graph.output[0].name = "probs"
    onnx.save(model, str(path))
    small = np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=small)
    done = protected(tmp_path, path, sample=tmp_path / "rows.npz")
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("probabilities", None)
    assert done.heads[0].verified.rows == 64


# Finding the tensors

ARGMAX = node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=0)


def test_what_is_no_function_of_the_top_class_is_dropped_from_every_model(tmp_path):
    path = linear_file(
        tmp_path / "m.onnx",
        SOFTMAX,
        more=[
            ARGMAX,
            node("ArgMin", ["scores"], ["last"], axis=-1, keepdims=0),
            node("Relu", ["h0"], ["embedding"]),
        ],
        more_outputs=[
            ("label", INT64, ("N",)),
            ("last", INT64, ("N",)),
            ("embedding", FLOAT, ("N", 4)),
        ],
    )
    done = protected(tmp_path, path)
    assert [label.name for label in done.classifier.signature.labels] == ["label"]
    assert done.classifier.dropped == ["last", "embedding"]
    assert ["is dropped" in warning for warning in done.classifier.warnings] == [True, True]
    outputs = [value.name for value in onnx.load(str(victim(done))).graph.output]
    assert outputs == ["scores", "label"]
    for file in done.repository.rglob("config.pbtxt"):
        assert not re.search('"(last|embedding)"', file.read_text())


@pytest.mark.parametrize(
    ("shape", "keepdims", "dims", "max_batch_size"),
    [
        (("N", 5, 4), 0, (5,), 256),
        (("N", 5, 4), 1, (5, 1), 256),
        (("N", "T", 4), 0, (-1,), 256),
        (("N", 4), 1, (1,), 256),
        ((3, 4), 0, (3,), 0),
    ],
)
def test_a_label_has_the_shape_of_the_rows(tmp_path, shape, keepdims, dims, max_batch_size):
    path = graph_file(
        tmp_path / "m.onnx",
        [
            node("Softmax", ["x"], ["scores"]),
            node("ArgMax", ["scores"], ["label"], axis=-1, keepdims=keepdims),
        ],
        [("x", FLOAT, shape)],
        [("scores", FLOAT, shape), ("label", INT64, (*shape[:-1], 1) if keepdims else shape[:-1])],
    )
    signature = protected(tmp_path, path).classifier.signature
    assert [(label.dims, label.data_type) for label in signature.labels] == [(dims, "TYPE_INT64")]
    assert signature.max_batch_size == max_batch_size


def test_the_only_float_a_softmax_or_a_known_name_is_the_score_tensor(tmp_path):
    more = {"more": [node("Relu", ["h0"], ["hidden"])]}
    outputs = [("hidden", FLOAT, ("N", 4))]
    path = linear_file(tmp_path / "a.onnx", SOFTMAX, output="y", more_outputs=outputs, **more)
    assert protected(tmp_path, path).heads[0].value.name == "y"
    path = linear_file(tmp_path / "b.onnx", ("Neg", {}), more_outputs=outputs, **more)
    assert protected(tmp_path, path).heads[0].value.name == "scores"
    done = protected(tmp_path, path, output=("hidden",), name="c")
    assert done.heads[0].value.name == "hidden"
    assert done.classifier.dropped == ["scores"]


def test_an_initializer_that_is_listed_as_an_input_is_none(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    model = onnx.load(str(path))
    model.graph.input.append(helper.make_tensor_value_info("W", FLOAT, (6, 4)))
    onnx.save(model, str(path))
    done = protected(tmp_path, path)
    assert [tensor.name for tensor in done.classifier.signature.inputs] == ["x"]


def test_a_number_of_classes_that_the_file_does_not_say_is_found_by_running(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    model = onnx.load(str(path))
    model.graph.output[0].type.tensor_type.shape.dim[1].Clear()
    onnx.save(model, str(path))
    assert protected(tmp_path, path).heads[0].classes == 4
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(path))
    done = protected(tmp_path, path, name="n")
    assert done.heads[0].classes == 4
    assert done.classifier.signature.batched


def test_a_number_of_classes_that_each_request_chooses_stays_free(tmp_path):
    path = graph_file(
        tmp_path / "m.onnx",
        [node("Softmax", ["x"], ["scores"])],
        [("x", FLOAT, ("N", "K"))],
        [("scores", FLOAT, ("N", "K"))],
    )
    assert protected(tmp_path, path).heads[0].classes == -1


def test_a_name_that_triton_would_mistake_is_quoted(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX, output='odd "name"\\')
    done = protected(tmp_path, path)
    text = (done.repository / "m" / "config.pbtxt").read_text()
    assert r'name: "odd \"name\"\\"' in text


def test_newer_files_than_nvidias_image_loads_are_warned_about(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX, opset=22)
    (warning,) = protected(tmp_path, path).classifier.warnings
    assert warning.startswith(
        "IR version 8 and opset 22: NVIDIA's Triton containers load it from release 25.03 on "
        "(ONNX Runtime 1.21.0); those before, back to 24.10, take at most opset 21"
    )


def test_the_batch_is_free_only_if_it_is_for_inputs_and_scores(tmp_path):
    free = linear_file(tmp_path / "free.onnx", SOFTMAX)
    fixed = linear_file(tmp_path / "fixed.onnx", SOFTMAX, batch=3)
    assert protected(tmp_path, free).classifier.signature.max_batch_size == 256
    done = protected(tmp_path, free, name="eight", max_batch_size=8)
    assert done.classifier.signature.max_batch_size == 8
    done = protected(tmp_path, free, name="none", max_batch_size=0)
    assert done.classifier.signature.max_batch_size == 0
    assert done.classifier.signature.inputs[0].dims == (-1, 6)
    done = protected(tmp_path, fixed)
    assert done.classifier.signature.max_batch_size == 0
    assert done.classifier.signature.scores[0].dims == (3, 4)

"""What ``protect`` finds in a graph, and what it refuses with one line and nothing written."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import victims
from onnx import TensorProto, helper
from victims import graph_file, linear_file

from exporters import model_repository, placing
from exporters.classifier import Asked
from exporters.model_repository import SHIPPED
from exporters.protect import protect
from postprocess.errors import InputError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SOFTMAX, SIGMOID = ("Softmax", {"axis": -1}), ("Sigmoid", {})


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, **attributes)


def run(path, feed, outputs=None):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(outputs, feed)


def protected(tmp_path, path, **asked):
    return protect(path, tmp_path / "models", SHIPPED, Asked(**asked))


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
    assert done.scores.cut.op == chain[0][0]
    assert done.scores.multi_label == (chain[0][0] == "Sigmoid")
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
    assert done.scores.cut.op == "Softmax"
    assert done.classifier.signature.scores.data_type == "TYPE_FP64"
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
    assert (done.scores.cut.op, done.scores.multi_label) == ("Sigmoid", asked is None)
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
    assert (done.scores.cut.op, done.classifier.signature.classes) == ("Sigmoid", 1)
    assert np.allclose(run(victim(done), {"x": X})[0].ravel(), (X @ weights["W"]).ravel())


def test_classes_on_the_last_of_many_axes_are_warned_about(tmp_path):
    path = graph_file(
        tmp_path / "m.onnx",
        [node("Neg", ["x"], ["scores"])],
        [("x", FLOAT, ("N", 3, 5))],
        [("scores", FLOAT, ("N", 3, 5))],
    )
    assert protected(tmp_path, path).classifier.warnings == [
        "the last of the scores' 3 dimensions, of size 5, is taken for the classes"
    ]


def test_logits_may_be_multi_label(tmp_path):
    done = protected(tmp_path, linear_file(tmp_path / "m.onnx", ("Neg", {})), multi_label=True)
    assert (done.scores.kind, done.scores.multi_label) == ("logits", True)


def test_one_logit_is_warned_about(tmp_path):
    done = protected(tmp_path, linear_file(tmp_path / "m.onnx", ("Neg", {}), classes=1))
    assert done.classifier.warnings == ["the one score of a row is taken for the logit of a yes"]


def test_probabilities_called_logits_are_warned_about(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX, ("Abs", {}))
    done = protected(tmp_path, path, scores="logits")
    assert done.scores.kind == "logits"
    assert done.classifier.warnings == [
        "--scores logits: on the input that was tried they look like probabilities"
    ]


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
    assert (done.scores.kind, done.scores.cut) == ("probabilities", None)
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
        assert protected(tmp_path, path).scores.kind == "probabilities"


def test_log_probabilities_are_logits(tmp_path):
    path = linear_file(tmp_path / "m.onnx", ("LogSoftmax", {"axis": -1}))
    done = protected(tmp_path, path)
    assert (done.scores.kind, done.scores.cut) == ("logits", None)


def test_a_softmax_may_be_left_uncut(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    done = protected(tmp_path, path, scores="probabilities")
    assert (done.scores.kind, done.scores.cut) == ("probabilities", None)
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
            node("Div", ["e", "sum"], ["probs"]),
        ],
    )
    model = onnx.load(str(path))
    model.graph.output[0].name = "probs"
    onnx.save(model, str(path))
    small = np.random.default_rng(3).normal(size=(64, 6)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=small)
    done = protected(tmp_path, path, sample=tmp_path / "rows.npz")
    assert (done.scores.kind, done.scores.cut) == ("probabilities", None)
    assert done.verified.rows == 64


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
    assert protected(tmp_path, path).classifier.value.name == "y"
    path = linear_file(tmp_path / "b.onnx", ("Neg", {}), more_outputs=outputs, **more)
    assert protected(tmp_path, path).classifier.value.name == "scores"
    done = protected(tmp_path, path, output="hidden", name="c")
    assert done.classifier.value.name == "hidden"
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
    assert protected(tmp_path, path).classifier.signature.classes == 4
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(path))
    done = protected(tmp_path, path, name="n")
    assert done.classifier.signature.classes == 4
    assert done.classifier.signature.batched


def test_a_number_of_classes_that_each_request_chooses_stays_free(tmp_path):
    path = graph_file(
        tmp_path / "m.onnx",
        [node("Softmax", ["x"], ["scores"])],
        [("x", FLOAT, ("N", "K"))],
        [("scores", FLOAT, ("N", "K"))],
    )
    assert protected(tmp_path, path).classifier.signature.classes == -1


def test_a_name_that_triton_would_mistake_is_quoted(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX, output='odd "name"\\')
    done = protected(tmp_path, path)
    text = (done.repository / "m" / "config.pbtxt").read_text()
    assert r'name: "odd \"name\"\\"' in text


def test_newer_files_than_nvidias_image_loads_are_warned_about(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX, opset=22)
    (warning,) = protected(tmp_path, path).classifier.warnings
    assert warning.startswith("IR version 8 and opset 22: the ONNX Runtime 1.19 of NVIDIA's")


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
    assert done.classifier.signature.scores.dims == (3, 4)


# Refusals


def across_rows(path):
    """Scores that are normalised over the batch."""
    return graph_file(
        path,
        [
            node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            node("Sub", ["x", "mean"], ["scores"]),
        ],
        [("x", FLOAT, ("N", 4))],
        [("scores", FLOAT, ("N", 4))],
    )


def standardised(path):
    """Scores over their deviation in the batch: of one row alone it is 0."""
    return graph_file(
        path,
        [
            node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            node("Sub", ["x", "mean"], ["centred"]),
            node("ReduceL2", ["centred"], ["deviation"], axes=[0], keepdims=1),
            node("Div", ["centred", "deviation"], ["scores"]),
        ],
        [("x", FLOAT, ("N", 4))],
        [("scores", FLOAT, ("N", 4))],
    )


def reshaping(path):
    """Wants rows of a number of features that no symbolic size is tried with."""
    return graph_file(
        path,
        [node("MatMul", ["x", "W"], ["scores"])],
        [("x", FLOAT, ("N", "features"))],
        [("scores", FLOAT, ("N", 3))],
        {"W": np.ones((17, 3), np.float32)},
    )


def two_floats(path):
    return linear_file(
        path, SOFTMAX, output="a", more=[node("Softmax", ["h0"], ["b"])],
        more_outputs=[("b", FLOAT, ("N", 4))],
    )  # fmt: skip


def external(location, path):
    linear_file(path, SOFTMAX)
    model = onnx.load(str(path))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def wide(path):
    return graph_file(
        path,
        [node("Softmax", ["x"], ["scores"], axis=1)],
        [("x", FLOAT, ("N", 3, 4, 4))],
        [("scores", FLOAT, ("N", 3, 4, 4))],
    )


def input_of(kind, shape):
    def make(path):
        nodes = [node("Cast", ["x"], ["f"], to=FLOAT), node("Softmax", ["f"], ["scores"])]
        graph_file(path, nodes, [("x", kind, shape)], [("scores", FLOAT, shape)])

    return make


def sequence_input(path):
    linear_file(path, SOFTMAX)
    model = onnx.load(str(path))
    model.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", FLOAT, None))
    path.write_bytes(model.SerializeToString())


def zipmap(path):
    from sklearn.linear_model import LogisticRegression

    victims.sklearn_file(path, LogisticRegression(max_iter=10), zipmap=True)


def nothing(path):
    pass


def not_a_number(path):
    linear_file(path, ("Abs", {}), ("Neg", {}), ("Log", {}))


def no_outputs(path):
    model = onnx.load(str(linear_file(path, SOFTMAX)))
    del model.graph.output[:]
    path.write_bytes(model.SerializeToString())


ENDING = '; convert without it: convert_sklearn(model, ..., options={id(model): {"zipmap": False}}), or to_onnx with the same options'  # noqa: E501
REFUSED = {
    "no such file": (nothing, {}, "{path}: no such file"),
    "an empty file": (
        lambda path: path.write_bytes(b""), {},
        "{path}: not a readable ONNX file: it holds no graph",
    ),
    "a text": (lambda path: path.write_text("hello"), {}, "{path}: not a readable ONNX file: *"),
    "no outputs": (no_outputs, {}, "{path}: the graph has no outputs, so it is no classifier"),
    "no nodes": (
        lambda path: graph_file(path, [], [("x", FLOAT, ("N", 2))], [("x", FLOAT, ("N", 2))]), {},
        "{path}: the graph has no nodes, so it is no classifier",
    ),
    "no inputs": (
        lambda path: graph_file(
            path, [node("Identity", ["W"], ["y"])], [], [("y", FLOAT, (1, 2))],
            {"W": np.ones((1, 2), np.float32)},
        ),
        {}, "{path}: the graph has no inputs, so it is no classifier",
    ),
    "a sequence": (
        sequence_input, {},
        "{path}: input x: expected a tensor of a type that Triton has, got sequence",
    ),
    "bfloat16": (
        input_of(TensorProto.BFLOAT16, ("N", 3)), {},
        "{path}: input x: expected a tensor of a type that Triton has, got BFLOAT16",
    ),
    "a scalar": (
        input_of(FLOAT, ()), {},
        "{path}: input x: a scalar, which Triton cannot serve; give it a dimension",
    ),
    "any rank": (
        input_of(FLOAT, None), {},
        "{path}: input x: expected a known number of dimensions, the graph declares none",
    ),
    "a future opset": (
        lambda path: linear_file(path, SOFTMAX, opset=99), {},
        "{path}: onnxruntime * cannot load it (IR version 8, opset 99): *; "
        "export it with an opset of 17 to 21",
    ),
    "a future IR": (
        lambda path: graph_file(
            path, [node("Softmax", ["x"], ["y"])], [("x", FLOAT, ("N", 2))],
            [("y", FLOAT, ("N", 2))], ir=99,
        ),
        {}, "{path}: onnxruntime * cannot load it (IR version 99, opset 17): *",
    ),
    "ZipMap": (
        zipmap, {},
        "{path}: output output_probability: a sequence of maps from scikit-learn's converter "
        "(ZipMap), which Triton cannot serve" + ENDING,
    ),
    "two outputs": (
        two_floats, {},
        "{path}: several outputs could be the scores: a, b; name one with --output",
    ),
    "no float": (
        lambda path: graph_file(
            path, [node("Cast", ["x"], ["n"], to=INT64)], [("x", FLOAT, ("N", 2))],
            [("n", INT64, ("N", 2))],
        ),
        {}, "{path}: no output holds scores of FLOAT16, FLOAT or DOUBLE; there are n (INT64)",
    ),
    "an unknown output": (
        two_floats, {"output": "c"}, "{path}: --output c: no such output; there are a, b",
    ),
    "classes in the middle": (
        wide, {},
        "{path}: output scores: ends in a Softmax over axis 1 of 4; expected the classes on the "
        "last axis, so transpose the logits before the Softmax",
    ),
    "rows that see each other": (
        across_rows, {},
        "{path}: output scores: rows that run together get other scores than apart, so requests "
        "must not be merged: give --max-batch-size 0",
    ),
    "rows that are nothing alone": (
        standardised, {},
        "{path}: output scores: rows that run together get other scores than apart, so requests "
        "must not be merged: give --max-batch-size 0",
    ),
    "a batch that is fixed": (
        lambda path: linear_file(path, SOFTMAX, batch=3), {"max_batch_size": 8},
        "{path}: --max-batch-size 8: the graph has no free batch dimension in every input and in "
        "scores",
    ),
    "a graph that random input does not fit": (
        reshaping, {},
        "{path}: the graph does not run on random input: *; give real rows with --sample FILE.npz",
    ),
    "scores that are never finite": (
        not_a_number, {},
        "{path}: every score is NaN or infinite; it was given random input: give real rows with "
        "--sample FILE.npz",
    ),
    "logits called probabilities": (
        lambda path: linear_file(path, ("Neg", {})), {"scores": "probabilities"},
        "{path}: output scores: --scores probabilities: on the input that was tried, scores lie "
        "outside [0, 1]",
    ),
    "yes or no, or what": (
        lambda path: linear_file(path, SIGMOID, ("Neg", {}), ("Sigmoid", {}), ("Abs", {})), {},
        "{path}: output scores: the scores lie in [0, 1] and rows do not sum to 1: give "
        "--multi-label if each is a yes or no of its own, --scores logits if they are "
        "none, or real rows with --sample",
    ),
    "a softmax of one class": (
        lambda path: linear_file(path, SOFTMAX, classes=1), {},
        "{path}: output scores: a Softmax over one class is always 1",
    ),
    "a softmax of labels": (
        lambda path: linear_file(path, SOFTMAX), {"multi_label": True},
        "{path}: output scores: --multi-label: the graph ends in a Softmax, so its classes "
        "exclude each other",
    ),
    "data of another folder": (
        lambda path: external("../secret", path), {},
        "{path}: external data '../secret': expected a path inside the ONNX file's own folder",
    ),
    "data at an absolute path": (
        lambda path: external("/etc/passwd", path), {},
        "{path}: external data '/etc/passwd': expected a path inside the ONNX file's own folder",
    ),
    "data that is missing": (
        lambda path: external("weights", path), {},
        "{path}: external data 'weights': no such file",
    ),
    "data of Triton's name": (
        lambda path: external("model.onnx", path), {},
        "{path}: external data 'model.onnx': Triton's own name; save the ONNX file with another "
        "location",
    ),
    "another layout": (
        lambda path: linear_file(path, SOFTMAX), {"layout": "inside"},
        "--layout: expected ensemble or fused, got 'inside'",
    ),
    "a name for a path": (
        lambda path: linear_file(path, SOFTMAX), {"name": "../x"}, "model name: expected letters*",
    ),
}  # fmt: skip


def matches(said, expected):
    return re.fullmatch(".*".join(map(re.escape, expected.split("*"))), said)


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_protected_is_refused_in_one_line(tmp_path, case):
    make, asked, expected = REFUSED[case]
    path = tmp_path / "input" / "m.onnx"
    path.parent.mkdir()
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, **asked)
    said = str(raised.value)
    assert matches(said, expected.replace("{path}", str(path))), said
    assert "\n" not in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (None, "no such file"),
        ({}, "expected the arrays x, got none"),
        ({"y": X}, "expected the arrays x, got y"),
        ({"x": X.astype(float)}, "array x: expected FP32 of shape (N, 6), got float64 (5, 6)"),
        ({"x": X[:, :5]}, "array x: expected FP32 of shape (N, 6), got float32 (5, 5)"),
        ({"x": X[:1]}, "expected at least 2 rows, to see that they do not depend on each other"),
        ({"x": X[:0]}, "array x: expected FP32 of shape (N, 6), got float32 (0, 6)"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused(tmp_path, arrays, said):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    sample = tmp_path / "sample.npz"
    if arrays is not None:
        np.savez(sample, **arrays)
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, sample=sample)
    assert str(raised.value) == f"{path}: --sample {sample}: {said}"
    assert not (tmp_path / "models").exists()


def test_a_sample_serves_where_random_input_does_not(tmp_path):
    path = reshaping(tmp_path / "m.onnx")
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(0).normal(size=(9, 17)).astype("f4"))
    done = protected(tmp_path, path, sample=tmp_path / "rows.npz")
    assert done.verified.rows == 9


def test_models_that_exist_are_kept_unless_forced(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    taken = tmp_path / "models" / "m_classifier"
    taken.mkdir(parents=True)
    (taken / "config.pbtxt").write_text("theirs")
    with pytest.raises(InputError, match=re.escape(f"{taken} exists; give --force to replace it")):
        protected(tmp_path, path)
    assert (taken / "config.pbtxt").read_text() == "theirs"
    (taken / "2").mkdir()
    with pytest.raises(InputError, match="m_classifier/2 exists, and Triton serves the highest"):
        protected(tmp_path, path, force=True)
    (taken / "2").rmdir()
    assert protected(tmp_path, path, force=True)
    assert "theirs" not in (taken / "config.pbtxt").read_text()


def test_a_file_that_cannot_be_placed_takes_the_others_back(tmp_path, monkeypatch):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    done = protected(tmp_path, path)
    before = {file: file.read_bytes() for file in done.repository.rglob("*") if file.is_file()}
    real, moves = placing.shutil.move, []

    def move(*arguments):
        moves.append(arguments)
        if len(moves) == 4:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(placing.shutil, "move", move)
    other = linear_file(tmp_path / "other.onnx", SIGMOID)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        protected(tmp_path, other, name="m", force=True)
    moves.clear()
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        protected(tmp_path, other)
    after = {file: file.read_bytes() for file in done.repository.rglob("*") if file.is_file()}
    assert after == before
    assert sorted(file.name for file in done.repository.iterdir()) == [
        "m", "m_classifier", "m_reverse_sigmoid",
    ]  # fmt: skip
    assert not list(tmp_path.glob(".reverse-sigmoid-*"))

"""What ``protect`` refuses, with one line and nothing written."""

import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from victims import (
    FLOAT,
    INT64,
    SIGMOID,
    SOFTMAX,
    graph_file,
    linear_file,
    node,
    protected,
    sklearn_file,
)

from exporters.files import placing
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError

X = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)


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


def columns(path):
    from sklearn.linear_model import LogisticRegression

    sklearn_file(path, LogisticRegression(C=0.02), zipmap="columns")


def renamed(path, name):
    model = onnx.load(linear_file(path, SOFTMAX))
    model.graph.output[0].name = model.graph.node[-1].output[0] = name
    onnx.save(model, path)


def defended(path):
    linear_file(path, SOFTMAX)
    protect(path, path.parent / "r", SHIPPED, ProtectOptions(layout="fused"))
    (path.parent / "r" / "m" / "1" / "model.onnx").replace(path)
    shutil.rmtree(path.parent / "r")


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


def nothing(path):
    pass


def not_a_number(path):
    linear_file(path, ("Abs", {}), ("Neg", {}), ("Log", {}))


def no_outputs(path):
    model = onnx.load(str(linear_file(path, SOFTMAX)))
    del model.graph.output[:]
    path.write_bytes(model.SerializeToString())


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
        "{path}: input x: expected a tensor, for Triton serves no other, got sequence",
    ),
    "bfloat16": (
        input_of(TensorProto.BFLOAT16, ("N", 3)), {},
        "{path}: input x: BFLOAT16, which Triton has but NumPy has not, so that neither the "
        "defence nor the checks here can read it; put a Cast between it and the rest of the "
        "graph, so that it is FLOAT outside",
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
        "export it with an opset of 17 to 21 and IR version 10 or older",
    ),
    "a future IR": (
        lambda path: graph_file(
            path, [node("Softmax", ["x"], ["y"])], [("x", FLOAT, ("N", 2))],
            [("y", FLOAT, ("N", 2))], ir=99,
        ),
        {}, "{path}: onnxruntime * cannot load it (IR version 99, opset 17): *",
    ),
    "a locale that is not here": (
        lambda path: graph_file(
            path, [node("StringNormalizer", ["x"], ["s"], case_change_action="LOWER", locale="xx"),
                   node("Cast", ["s"], ["y"], to=FLOAT)],
            [("x", TensorProto.STRING, ("N",))], [("y", FLOAT, ("N",))],
        ),
        {},
        "{path}: onnxruntime * cannot load it *name:xx:*; install that locale here and where "
        "Triton runs, or export with one that every Linux has (skl2onnx: "
        "options={'STEP__locale': 'C.UTF-8'}, STEP the name of the vectorizer's step)",
    ),
    "two outputs": (
        two_floats, {},
        "{path}: several outputs could be the scores: a, b; name one with --output, for example "
        "--output a: the others are dropped, for scores beside the protected ones would leak the "
        "model. To serve several, each with a defence of its own, name them all: --output a "
        "--output b",
    ),
    "a column for each class": (
        columns, {},
        "{path}: the 10 outputs from i0 to i9 sum to 1 in each row: one answer, in a column "
        "for each class, and columns that are defended one by one lose its top class; make them "
        "one output of all classes (skl2onnx: options={id(model): {'zipmap': False}})",
    ),
    "some of the columns": (
        columns, {"output": ("i0", "i2")}, "{path}: the 10 outputs from i0 to i9 sum to 1 in *",
    ),
    "no float": (
        lambda path: graph_file(
            path, [node("Cast", ["x"], ["n"], to=INT64)], [("x", FLOAT, ("N", 2))],
            [("n", INT64, ("N", 2))],
        ),
        {}, "{path}: no output holds scores of FLOAT16, FLOAT or DOUBLE; there are n (INT64)",
    ),
    "an unknown output": (
        two_floats, {"output": ("c",)}, "{path}: --output c: no such output; there are a, b",
    ),
    "classes in the middle": (
        wide, {},
        "{path}: output scores: which axis holds the classes is not clear: axis 1 of size 3, axis "
        "2 of size 4 or axis 3 of size 4; the graph's Softmax is over axis 1 of size 3; say it, "
        "for example --class-axis 1",
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
        "scores; leave it out, or give 0",
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
        "outside [0, 1]; leave it out",
    ),
    "yes or no, or what": (
        lambda path: linear_file(path, SIGMOID, ("Sin", {}), ("Abs", {})), {},
        "{path}: output scores: the scores lie in [0, 1] and rows do not sum to 1: give "
        "--multi-label if each is a yes or no of its own; probabilities of one choice are "
        "protected with all their classes, and real rows with --sample may show that they are",
    ),
    "a softmax of one class": (
        lambda path: linear_file(path, SOFTMAX, classes=1), {},
        "{path}: output scores: a Softmax over one class is always 1; export the model with the "
        "scores of all its classes",
    ),
    "a softmax of labels": (
        lambda path: linear_file(path, SOFTMAX), {"multi_label": True},
        "{path}: output scores: --multi-label: the graph ends in a Softmax, so its classes "
        "exclude each other; leave it out",
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
    "no class": (
        lambda path: linear_file(path, classes=0), {},
        "{path}: no output holds scores of FLOAT16, FLOAT or DOUBLE; there are scores (FLOAT)",
    ),
    "a name that no config can hold": (
        lambda path: renamed(path, "x\ny"), {},
        "{path}: tensor 'x\\ny': expected a name without control characters, which config.pbtxt "
        "cannot hold; rename it in the model",
    ),
    "a classifier with its defence": (
        defended, {},
        "{path}: the graph holds a defence already: tensors under reverse_sigmoid/; give the "
        "classifier's own file, or change the defence with reverse-sigmoid retune",
    ),
    "another layout": (
        lambda path: linear_file(path, SOFTMAX), {"layout": "inside"},
        "--layout: expected ensemble or fused, got 'inside'",
    ),
    "a name for a path": (
        lambda path: linear_file(path, SOFTMAX), {"name": "../x"},
        "--name: expected a model name of 1 to 100 letters, digits*, got '../x'; for example x",
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
    assert done.heads[0].verified.rows == 9


def test_a_query_set_serves_as_a_sample(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    np.savez(tmp_path / "query.npz", x=X, labels=np.arange(len(X)), features=X)
    done = protected(tmp_path, path, sample=tmp_path / "query.npz")
    assert done.heads[0].verified.rows == len(X)


def test_a_file_that_is_not_there_is_told_before_the_models_that_it_would_replace(tmp_path):
    protected(tmp_path, linear_file(tmp_path / "m.onnx", SOFTMAX))
    with pytest.raises(InputError, match=r"m\.onx: no such file"):
        protected(tmp_path, tmp_path / "m.onx")


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
    real, moves = placing.os.replace, []

    def move(*arguments):
        moves.append(arguments)
        if len(moves) == 4:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(placing.os, "replace", move)
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

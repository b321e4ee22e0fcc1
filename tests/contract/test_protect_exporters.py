"""Endings that exporters of scikit-learn, LightGBM, XGBoost and CatBoost write."""

import numpy as np
import onnx
import onnxruntime
import pytest
from odd_victims import COLUMNS, zipmap_file
from onnx import helper
from victims import FLOAT, INT64, graph_file, node, protected

from exporters.repository import model_repository
from postprocess.errors import InputError


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("producer", ["skl2onnx", "OnnxMLTools", "CatBoost", ""])
@pytest.mark.parametrize("keys", [(0, 1), (3, 5, 8), ("go", "stop", "wait")])
def test_a_zipmap_is_taken_off_and_its_columns_are_named(tmp_path, producer, keys, layout):
    path = zipmap_file(tmp_path / "m.onnx", producer=producer, keys=keys)
    done = protected(tmp_path, path, layout=layout)
    assert (done.heads[0].value.name, done.heads[0].scores.cut.op) == ("probabilities", "Softmax")
    assert [label.name for label in done.classifier.signature.labels] == ["label"]
    assert done.classifier.warnings == [
        "output probabilities: its ZipMap, which Triton cannot serve, is taken off: a tensor of "
        f"{len(keys)} columns, for the classes {', '.join(map(str, keys))}"
    ]
    rows = np.random.default_rng(1).normal(size=(50, COLUMNS)).astype(np.float32)
    file = model_repository.onnx_path(done.repository, "m")
    if layout == "fused":
        file = model_repository.fused_onnx_path(done.repository, "m")
    answer = run(file, rows, "probabilities")
    told = [max(row, key=row.get) for row in run(path, rows, "probabilities")]
    assert [keys[top] for top in answer.argmax(axis=1)] == told


def run(path, rows, output):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run([output], {"x": rows})[0]


def test_a_zipmap_beside_its_own_tensor_leaves_the_tensor_to_choose(tmp_path):
    path = zipmap_file(tmp_path / "m.onnx", producer="skl2onnx", shared=True)
    done = protected(tmp_path, path, output=("tensor",))
    assert done.heads[0].value.name == "tensor"
    assert done.classifier.dropped == ["probabilities"]
    assert protected(tmp_path, path, output=("probabilities",), name="other").heads[0].verified.rows


@pytest.mark.parametrize(
    ("producer", "cure"),
    [
        ("skl2onnx", 'convert with options={id(model): {"zipmap": False}}'),
        (
            "OnnxMLTools",
            "convert with zipmap=False: convert_lightgbm(model, ..., zipmap=False)",
        ),
        (
            "CatBoost",
            "CatBoost always writes it: let nothing else read its output, and protect takes it off",
        ),
        (
            "somebody",
            "convert without it, or let nothing else read its output, and protect takes it off",
        ),
    ],
)
def test_a_zipmap_that_the_graph_reads_gets_its_exporters_own_cure(tmp_path, producer, cure):
    path = zipmap_file(
        tmp_path / "m.onnx",
        producer=producer,
        more=[node("SequenceLength", ["probabilities"], ["count"])],
        more_outputs=[helper.make_tensor_value_info("count", INT64, ())],
    )
    from exporters.graph import onnx_graph, zipmap

    model = onnx_graph.load(path)
    assert zipmap.take_off(model) == []
    assert zipmap.refusal(model, "probabilities", "sequence") == (
        f"a sequence of maps (ZipMap), which Triton cannot serve; {cure}"
    )


def test_a_zipmap_whose_tensor_says_something_else_is_not_believed(tmp_path, monkeypatch):
    from exporters.graph import zipmap

    path = zipmap_file(tmp_path / "m.onnx", producer="CatBoost")
    real = zipmap.take_off

    def swapped(model):
        removed = real(model)
        return [zipmap.Removed(one.output, one.classes[::-1]) for one in removed]

    monkeypatch.setattr(zipmap, "take_off", swapped)
    with pytest.raises(InputError, match="without its ZipMap it does not hold what the maps say"):
        protected(tmp_path, path)
    assert not (tmp_path / "models").exists()


def test_a_sequence_of_tensors_is_no_zipmap(tmp_path):
    """MultiOutputClassifier of scikit-learn: one tensor for each of its classifiers."""
    path = graph_file(
        tmp_path / "m.onnx",
        [node("SequenceConstruct", ["x", "x"], ["probabilities"])],
        [("x", FLOAT, ("N", 3))],
        [("probabilities", FLOAT, ("N", 3))],
    )
    model = onnx.load(str(path))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_sequence_value_info("probabilities", FLOAT, None)
    )
    onnx.save(model, str(path))
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path)
    assert str(raised.value) == (
        f"{path}: output probabilities: a sequence of tensors, which Triton cannot serve: several "
        "classifiers in one file? Make one of them an output of its own (SequenceAt), or convert "
        "them one by one"
    )
    model.graph.node.append(node("Constant", [], ["first"], value=onnx.numpy_helper.from_array(
        np.array(0))))  # fmt: skip
    model.graph.node.append(node("SequenceAt", ["probabilities", "first"], ["one"]))
    model.graph.output.append(helper.make_tensor_value_info("one", FLOAT, ("N", 3)))
    onnx.save(model, str(path))
    done = protected(tmp_path, path)
    assert done.heads[0].value.name == "one"
    assert done.classifier.dropped == ["probabilities"]


def test_two_heads_are_protected_one_at_a_time_and_it_is_said_how(tmp_path):
    path = graph_file(
        tmp_path / "m.onnx",
        [
            node("Softmax", ["x"], ["species"]),
            node("Neg", ["x"], ["other"]),
            node("Softmax", ["other"], ["colour"]),
        ],
        [("x", FLOAT, ("N", 4))],
        [("species", FLOAT, ("N", 4)), ("colour", FLOAT, ("N", 4))],
    )
    with pytest.raises(InputError, match="--output species: the others are dropped"):
        protected(tmp_path, path)
    done = protected(tmp_path, path, output=("species",), name="species")
    assert done.classifier.dropped == ["colour"]
    assert done.classifier.warnings == [
        "output colour is dropped: what it says beside the scores can leak the model; to serve it "
        "too, with a defence of its own, give --output species --output colour"
    ]
    assert protected(tmp_path, path, output=("colour",), name="colour").models[0] == "colour"

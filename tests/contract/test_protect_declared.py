"""What an ONNX file declares is not believed over what is seen: sizes, batch, labels, types."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from odd_victims import HALF, baked_file, two_classes_file
from victims import FLOAT, graph_file, linear_file, node, protected

from exporters.graph import triton_releases
from exporters.graph.onnx_graph import load, outputs
from exporters.repository import model_repository
from postprocess.errors import InputError

pytestmark = pytest.mark.slow


def declared(file):
    return {value.name: value.shape for value in outputs(load(file))}


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("scores", [("N", 1), ("N", 7), (1, 2), ("N", 2, 1), None])
def test_sizes_that_were_seen_are_declared_and_not_those_of_the_file(
    tmp_path, softmax, scores, layout
):
    path = two_classes_file(tmp_path / "m.onnx", softmax=softmax, scores=scores)
    done = protected(tmp_path, path, layout=layout)
    assert done.heads[0].classes == 2
    assert done.classifier.signature.max_batch_size == 256
    for config in done.repository.rglob("config.pbtxt"):
        text = config.read_text()
        assert not re.search(r'name: "(scores|victim_scores)"[^}]*dims: \[ (1|7|2, 1) \]', text)
    file = {
        "ensemble": model_repository.onnx_path(done.repository, "m"),
        "fused": model_repository.fused_onnx_path(done.repository, "m"),
    }[layout]
    assert declared(file)["scores"][1:] == (2,)
    assert isinstance(declared(file)["scores"][0], str)


def test_a_label_declared_for_one_row_is_kept_if_it_follows_the_top_class(tmp_path):
    """LightGBM's converter declares it [1]."""
    path = two_classes_file(tmp_path / "m.onnx", softmax=True, label=(1,))
    done = protected(tmp_path, path)
    (label,) = done.classifier.signature.labels
    assert (label.name, label.dims, label.flat) == ("label", (1,), True)
    assert done.classifier.dropped == []
    file = model_repository.onnx_path(done.repository, "m")
    assert declared(file)["label"] == ("",)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert session.run(["label"], {"x": np.ones((5, 6), np.float32)})[0].shape == (5,)


# A batch that is baked into the graph


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("rows", [None, 48])
def test_a_batch_in_the_graph_is_told_as_that_and_the_way_out_works(tmp_path, batch, rows):
    path = baked_file(tmp_path / "m.onnx", batch)
    asked = {}
    if rows:
        asked["sample"] = tmp_path / "rows.npz"
        np.savez(asked["sample"], x=np.random.default_rng(0).random((rows, 3, 2, 2)).astype("f4"))
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, **asked)
    assert str(raised.value) == (
        f"{path}: takes a batch of {batch} only, though its first dimension is declared free: the "
        "batch that it was exported with is baked into the graph (Reshape /head/Reshape); give "
        f"--max-batch-size 0, which serves requests of {batch} "
        f"{'row' if batch == 1 else 'rows'}, or export it anew with a free batch"
    )
    done = protected(tmp_path, path, max_batch_size=0, **asked)
    signature = done.classifier.signature
    assert signature.max_batch_size == 0
    assert (signature.inputs[0].dims, signature.scores[0].dims) == ((batch, 3, 2, 2), (batch, 4))
    assert done.heads[0].verified.rows >= 48


def test_a_sample_that_does_not_fill_the_batch_is_told_how_many_rows_it_takes(tmp_path):
    path, sample = baked_file(tmp_path / "m.onnx", 4), tmp_path / "rows.npz"
    np.savez(sample, x=np.ones((3, 3, 2, 2), np.float32))
    with pytest.raises(InputError) as raised:
        protected(tmp_path, path, sample=sample, max_batch_size=0)
    assert str(raised.value) == (
        f"{path}: --sample {sample}: expected at least 4 rows, for the graph takes a batch of 4 "
        "only, got 3"
    )


# Half precision


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_float16_keeps_the_top_class_of_every_row_that_is_not_tied(tmp_path, layout):
    """The logits, rounded to float16, tie where the probabilities do not: K = 1000 shows it."""
    from exporters.repository.config_pbtxt import read_parameters
    from exporters.verify import defended
    from postprocess.postprocessor import Postprocessor

    path = two_classes_file(
        tmp_path / "m.onnx", softmax=True, scores=("N", 1000), kind=HALF, classes=1000
    )
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "some.npz", x=rng.normal(size=(256, 6)).astype(np.float16))
    done = protected(tmp_path, path, layout=layout, sample=tmp_path / "some.npz")
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("probabilities", None)
    first, *others = done.classifier.warnings
    assert first.startswith("left as probabilities: ")
    # The network was never trained, and its raw answers are flat too.
    assert all("on no row tried does a protected answer differ" in one for one in others)
    rows = rng.normal(size=(10_240 if layout == "ensemble" else 2_048, 6)).astype(np.float16)
    original = run(path, rows)
    if layout == "fused":
        answer = run(model_repository.fused_onnx_path(done.repository, "m"), rows)
    else:
        config = done.repository / "m_reverse_sigmoid" / "config.pbtxt"
        scores = run(model_repository.onnx_path(done.repository, "m"), rows)
        answer = defended(scores, Postprocessor(read_parameters(config)), flat=False)
    two = np.partition(original.astype(np.float32), -2, axis=1)[:, -2:]
    untied = two[:, 1] > two[:, 0]
    assert 0.8 * len(rows) < untied.sum() < len(rows)
    assert np.array_equal(answer.argmax(axis=1)[untied], original.argmax(axis=1)[untied])


def test_a_half_precision_inside_a_float32_file_keeps_its_probabilities_too(tmp_path):
    """Converters of mixed precision put Cast around what they made float16."""
    half = [
        node("Cast", ["x"], ["x16"], to=HALF),
        node("MatMul", ["x16", "W"], ["h"]),
        node("Softmax", ["h"], ["soft"]),
        node("Cast", ["soft"], ["scores"], to=FLOAT),
    ]
    path = graph_file(
        tmp_path / "m.onnx",
        half,
        [("x", FLOAT, ("N", 6))],
        [("scores", FLOAT, ("N", 5))],
        {"W": np.random.default_rng(0).normal(size=(6, 5)).astype(np.float16)},
    )
    done = protected(tmp_path, path)
    assert (done.heads[0].scores.kind, done.heads[0].scores.cut) == ("probabilities", None)


def run(path, rows):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"x": rows})[0]


# Versions


@pytest.mark.parametrize(
    ("opset", "ir", "release"),
    [
        (21, 10, None),
        (22, 10, "25.03"),
        (21, 11, "25.08"),
        (23, 11, "25.08"),
        (24, 11, "26.02"),
        (22, 13, "26.02"),
        (26, 13, "26.07"),
    ],
)
def test_the_first_triton_release_that_loads_a_file_is_named(opset, ir, release):
    model = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], []), opset_imports=[onnx.helper.make_opsetid("", opset)]
    )
    model.ir_version = ir
    said = triton_releases.warnings(model)
    assert [f"load it from release {release} on" in one for one in said] == [True] * bool(release)
    assert ["17 to 21 and IR version 10 or older" in one for one in said] == [True] * bool(release)


def test_a_file_that_no_release_is_known_to_load_is_told_so(tmp_path):
    model = onnx.load(str(linear_file(tmp_path / "m.onnx", ("Softmax", {}))))
    model.ir_version = triton_releases.NEWEST.ir + 1
    (said,) = triton_releases.warnings(model)
    assert "no Triton release up to 26.07 is known to load it" in said

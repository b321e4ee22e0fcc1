"""Classes on another axis than the last, as segmentation nets have them: [N, K, H, W]."""

import numpy as np
import onnx
import onnxruntime
import oracle
import pytest
from victims import passing

from exporters.fusing import fused
from postprocess import defence_config
from postprocess.errors import InputError
from postprocess.parameters import Parameters

SHIPPED = {"beta": 1.5, "gamma": 0.2, "margin": 0.01}
STRINGS = {"scores": "logits", "beta": "1.5", "gamma": "0.2"}


def answer(rows, **changes):
    shape = ["n", *rows.shape[1:]]
    model = passing(shape, rows.dtype)
    fused.fuse(model, "scores", Parameters(**{"scores": "logits", **SHIPPED, **changes}))
    fused.refuse_altered(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": rows})[0]


@pytest.mark.parametrize("axis", [1, 2, 3, -1, -2, -3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_graph_defends_the_classes_of_each_pixel_where_they_lie(axis, dtype):
    logits = (np.random.default_rng(0).normal(size=(2, 5, 6, 7)) * 4).astype(dtype)
    got = answer(logits, class_axis=axis)
    assert got.shape == logits.shape
    assert got.dtype == dtype
    assert np.array_equal(got.argmax(axis=axis), logits.argmax(axis=axis))
    last = np.moveaxis(logits, axis, -1)
    wanted = oracle.protected(last, kind="logits", **SHIPPED, preserve_top1=True)
    tolerance = {np.float16: 2e-3, np.float32: 1e-6, np.float64: 1e-6}[dtype]
    assert np.abs(np.moveaxis(got, axis, -1) - wanted).max() <= tolerance


def test_quantised_probabilities_of_each_pixel_are_taken_where_they_lie():
    logits = np.random.default_rng(1).normal(size=(2, 21, 4, 6)) * 2
    weights = np.exp(logits)
    steps = np.rint(weights / weights.sum(axis=1, keepdims=True) * 255) / 255
    scores = steps.astype(np.float32)
    got = answer(scores, scores="probabilities", class_axis=1)
    assert np.isfinite(got).all()
    assert np.array_equal(got.argmax(axis=1), scores.argmax(axis=1))


def test_an_axis_that_the_output_has_not_is_refused():
    with pytest.raises(InputError, match=r"class_axis: expected -4 to 3 for output scores"):
        answer(np.zeros((1, 2, 3, 4), np.float32), class_axis=4)


def read(tmp_path, dims, axis, *, batch=8):
    tensor = {"data_type": "TYPE_FP32", "dims": dims}
    config = {
        "max_batch_size": batch,
        "input": [{"name": "victim_scores", **tensor}],
        "output": [{"name": "scores", **tensor}],
        "parameters": {
            key: {"string_value": value} for key, value in {**STRINGS, "class_axis": axis}.items()
        },
    }
    return defence_config.read(config, directory=tmp_path)


@pytest.mark.parametrize(
    ("dims", "axis", "batch", "found", "classes"),
    [
        ([21, 32, 48], "1", 8, -3, 21),
        ([21, 32, 48], "-3", 8, -3, 21),
        ([21, 32, 48], "3", 8, -1, 48),
        ([21, 32, 48], "-1", 8, -1, 48),
        ([2, 21, 32, 48], "1", 0, -3, 21),
        ([2, 21, 32, 48], "0", 0, -4, 2),
        ([-1, -1, -1], "1", 8, -3, -1),
        ([10], "1", 8, -1, 10),
        ([10], "0", 0, -1, 10),
    ],
)
def test_the_axis_counts_the_batch_dimension(tmp_path, dims, axis, batch, found, classes):
    config = read(tmp_path, dims, axis, batch=batch)
    assert (config.class_axis, config.classes) == (found, classes)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("0", r"expected 1 to 3 or -3 to -1, an axis of the classes in \[batch, 21, 32, 48\]"),
        ("-4", "expected 1 to 3 or -3 to -1"),
        ("4", "expected 1 to 3 or -3 to -1"),
        ("1.0", "expected an integer from -32 to 31, got '1.0'"),
        ("--1", "expected an integer"),
        ("", "expected an integer"),
    ],
)
def test_an_axis_that_holds_no_classes_stops_the_load(tmp_path, axis, message):
    with pytest.raises(InputError, match=f"config.pbtxt: parameter class_axis: {message}"):
        read(tmp_path, [21, 32, 48], axis)

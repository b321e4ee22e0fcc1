"""Probabilities of 8 bits: sums off by up to K / 256, zeros, ties, slightly above 1."""

import numpy as np
import onnx
import onnxruntime
import oracle
import pytest
from victims import passing

from exporters.fusing import fused
from postprocess import kernel
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import looks_like_probabilities, sum_tolerance

SHIPPED = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "probabilities"}
CLASSES = [2, 3, 5, 10, 17, 100, 191, 192, 207, 300]


def quantised(classes, rows=400, dtype=np.float32):
    """Rows rounded to steps of 1/255, 1/256 and 1/127, up or down or to the nearest."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(rows, classes)) * 10 ** rng.uniform(-1, 1.3, size=(rows, 1))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    exact = weights / weights.sum(axis=1, keepdims=True)
    parts = []
    for part, steps in zip(np.array_split(exact, 4), (255, 256, 127, 254), strict=True):
        parts.append(np.minimum(np.rint(part * steps), 255) / steps)
    whole = np.concatenate(parts)
    off = np.abs(whole.sum(axis=1) - 1)
    return whole[(off <= sum_tolerance(classes)) & (whole.max(axis=1) > 0)].astype(dtype)


def protect(rows, *, native, **changes):
    return Postprocessor(Parameters(**{**SHIPPED, **changes}), native=native)(rows)


def fuse(rows, shape, **changes):
    model = passing(shape, rows.dtype)
    fused.fuse(model, "scores", Parameters(**{**SHIPPED, **changes}))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": rows})[0]


def assert_first_on_top(answer, rows):
    assert np.array_equal(answer.argmax(axis=1), rows.argmax(axis=1))
    ordered = np.sort(answer, axis=1)
    assert (ordered[:, -1] > ordered[:, -2]).all()


@pytest.mark.parametrize("classes", CLASSES)
def test_no_row_is_refused_and_each_is_the_row_made_to_sum_to_1(classes):
    rows = quantised(classes)
    assert len(rows) > 350
    assert np.abs(rows.sum(axis=1) - 1).max() > 0.5 / 256
    wanted = oracle.protected(rows, kind="probabilities", preserve_top1=True, **exact())
    for native in (False, True):
        answer = protect(rows, native=native)
        assert np.abs(answer - wanted).max() <= 1e-6
        assert_first_on_top(answer, rows)


def exact():
    return {name: value for name, value in SHIPPED.items() if name != "scores"}


@pytest.mark.parametrize("shape", ["known", "free"])
@pytest.mark.parametrize("classes", CLASSES)
def test_the_graph_takes_the_rows_that_the_step_takes(classes, shape):
    rows = quantised(classes)
    answer = fuse(rows, ["n", classes if shape == "known" else "k"])
    assert np.abs(answer - protect(rows, native=False)).max() <= 1e-6
    assert_first_on_top(answer, rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_are_taken_too(dtype):
    rows = quantised(10, dtype=dtype)
    assert_first_on_top(protect(rows, native=True), rows)
    assert_first_on_top(fuse(rows, ["n", 10]), rows)


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 192, 256, 1000])
def test_step_kernel_and_graph_draw_one_line(classes):
    off = sum_tolerance(classes)
    uniform = np.full(classes, 1 / classes)
    over = np.zeros(classes)
    over[0] = 1.0
    rows = [
        uniform * (1 - 0.99 * off),
        uniform * (1 + 0.99 * off),
        uniform * (1 + 1.02 * off),
        over * 1.005,
        over * 1.009,
        np.zeros(classes),
        np.where(np.arange(classes) == 1, -1e-3, uniform),
    ]
    if off < 1:
        rows.append(uniform * (1 - 1.02 * off))
    rows = np.array(rows, np.float32)
    likely = looks_like_probabilities(rows)
    assert likely[[0, 1, 3]].all()
    assert not likely[[2, 4, 5, 6]].any()
    assert not likely[7:].any()
    graph = fuse(rows, ["n", classes])
    assert np.array_equal((graph >= 0).all(axis=1), likely)
    assert np.array_equal((graph == -1).all(axis=1), ~likely)
    native = kernel.kernel_for(Parameters(**SHIPPED))
    if native is not None:
        for row, good in zip(rows, likely, strict=True):
            _, counted, _ = native(row[None].copy())
            assert (counted >= 0) == good


@pytest.mark.parametrize("classes", [2, 3, 10, 16, 100, 192, 300])
def test_the_kernel_counts_the_logits_that_look_like_probabilities(classes):
    native = kernel.kernel_for(Parameters(**{**SHIPPED, "scores": "logits"}))
    if native is None:
        pytest.skip("the kernel was not compiled here")
    rng = np.random.default_rng(classes)
    for count in (1, 5, 16, 37):
        logits = rng.normal(size=(count, classes)).astype(np.float32)
        alike = quantised(classes)[:count]
        chosen = rng.random(count) < 0.5
        logits[chosen] = alike[chosen]
        logits[0] = 0
        _, _, counted = native(logits)
        assert counted == np.count_nonzero(looks_like_probabilities(logits))


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_yes_or_no_slightly_above_1_is_a_yes(multi_label):
    rows = np.array([[1.004], [0.0], [0.25], [1.0]], np.float32)
    if multi_label:
        rows = np.repeat(rows, 3, axis=1)
    answer = protect(rows, native=True, multi_label=multi_label)
    assert np.array_equal(answer > 0.5, rows > 0.5)
    assert np.array_equal(answer[0], answer[3])
    graph = fuse(rows, ["n", rows.shape[1]], multi_label=multi_label)
    assert np.abs(graph - answer).max() <= 1e-6

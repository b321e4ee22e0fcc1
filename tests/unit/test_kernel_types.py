"""Float16 and float64 on their way into the kernel and out of it: NumPy is the oracle."""

import numpy as np
import pytest

from postprocess import kernel, scores, top1
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import to_logits, to_pair

pytestmark = pytest.mark.skipif(
    kernel.open_library() is None, reason="the kernel was not compiled here"
)

LARGEST = 1e30


def parameters(**changes):
    return Parameters(**{"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "logits", **changes})


def types(**changes):
    return kernel.types_for(parameters(**changes))


def test_every_float16_is_widened_to_the_same_number():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 64)
    wide = types().widen(every)
    expected = every.astype(np.float32)
    assert np.array_equal(wide, expected, equal_nan=True)
    real = ~np.isnan(expected)
    assert (wide.view(np.uint32)[real] == expected.view(np.uint32)[real]).all()  # -0 too
    assert np.array_equal(types().widen(every.T), expected.T, equal_nan=True)  # not contiguous


def test_every_answer_is_rounded_to_float16_as_numpy_rounds():
    halves = np.arange(0x3C01, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[1:] + halves[:-1]) / 2
    near = [np.nextafter(middles, np.float32(side)) for side in (-1, 2)]
    rng = np.random.default_rng(0)
    some = (rng.random(10_000) ** 8).astype(np.float32)
    values = np.concatenate([halves, middles, *near, some]).clip(0, 1)
    values = values[: len(values) // 7 * 7].reshape(-1, 7)
    narrow = types(preserve_top1=False).narrow(values, single=False)
    assert np.array_equal(narrow, values.astype(np.float16))


@pytest.mark.parametrize("classes", [2, 3, 10, 16, 17, 100, 1000])
def test_the_top_class_stays_strictly_on_top_of_float16(classes):
    rng = np.random.default_rng(classes)
    rows = rng.random((60, classes)).astype(np.float32)
    rows[:40] = 0.3 + rng.random((40, classes)) * 1e-4  # many round to one number
    rows /= rows.sum(axis=1, keepdims=True)
    index, top = np.arange(60), rows.argmax(axis=1)
    rows[index, top] = np.nextafter(rows[index, top], np.float32(2))
    expected = rows.astype(np.float16)
    top1.keep_top(expected, top)
    found = types().narrow(rows, single=False)
    assert np.array_equal(found, expected)
    others = found.copy()
    others[index, top] = -1
    assert (found[index, top] > others.max(axis=1)).all()


def test_a_side_of_one_half_stays_that_side_in_float16():
    half = np.float32(0.5)
    near = [np.nextafter(half, np.float32(side)) for side in (0, 1)]
    values = np.array([[half, *near, 0.1, 0.9, 0, 1]], np.float32)
    (found,) = types().narrow(values, single=True)
    assert found[0] == 0.5
    assert found[1] == np.nextafter(np.float16(0.5), np.float16(0))
    assert found[2] == np.nextafter(np.float16(0.5), np.float16(1))
    assert np.array_equal(found[3:], values[0, 3:].astype(np.float16))


def hard_doubles(rng, classes):
    """Logits: easy, huge, beyond float32, a step from a tie, tied, subnormal."""
    rows = rng.normal(size=(48, classes)) * 10 ** rng.uniform(-3, 4, size=(48, 1))
    rows[8:16] *= 1e300
    rows[16:24, 1] = np.nextafter(rows[16:24, 0], np.inf)
    rows[24:32] = rows[24:32, :1]
    rows[32:40] *= 1e-310
    return np.clip(rows, -1.5e308, 1.5e308)


@pytest.mark.parametrize("classes", [2, 3, 10, 33, 511, 512, 513, 1100])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_float64_becomes_the_logits_that_numpy_makes(classes, kind):
    rng = np.random.default_rng(classes)
    rows = hard_doubles(rng, classes)
    if kind == "probabilities":
        with np.errstate(over="ignore", under="ignore"):
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
            rows /= rows.sum(axis=1, keepdims=True)
        rows[0] = 0
        rows[0, :2] = -1e-7, 1  # rounded below 0
        rows[40:44] = 1e-310
        rows[40:44, classes // 2] = 1
    expected = to_logits(rows, probabilities=kind == "probabilities")
    found, alike = types(scores=kind).to_logits(rows, single=False)
    assert np.array_equal(np.isneginf(found), np.isneginf(expected))
    assert np.allclose(found, expected, rtol=3e-7, atol=1e-45)
    assert np.array_equal(found == 0, expected == 0)  # ties, and no more of them
    if kind == "logits":
        assert alike == np.count_nonzero(scores.looks_like_probabilities(rows))


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_a_float64_yes_or_no_becomes_the_log_odds_of_its_pair(kind):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 1)) * 10 ** rng.uniform(-3, 3, size=(300, 1))
    if kind == "probabilities":
        values = 1 / (1 + np.exp(-values.clip(-700, 700)))
        half = np.nextafter(0.5, [0.0, 1.0])
        values[:8, 0] = [0, 1, 0.5, *half, 1e-300, 1e-16, 1 - 1e-16]
    else:
        values[:6, 0] = [0, 1e308, -1e308, 1e-40, -1e-40, 0.5]
    pair = to_pair(values, probabilities=kind == "probabilities")
    with np.errstate(over="ignore"):
        expected = np.clip(pair[:, :1] - pair[:, 1:], -LARGEST, LARGEST)
    found, alike = types(scores=kind).to_logits(values, single=True)
    assert np.allclose(found, expected, rtol=3e-7, atol=1e-16)
    assert np.array_equal(np.sign(found), np.sign(expected))
    if kind == "logits":
        assert alike == np.count_nonzero(scores.looks_like_probabilities(values, single=True))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 7])
def test_a_bad_row_of_any_type_is_named(dtype, kind, multi_label, bad):
    rows = np.full((9, 600), 1 / 600, dtype)
    rows[4, 599] = rows[6, 0] = bad
    defence = Postprocessor(parameters(scores=kind, multi_label=multi_label))
    if bad == 7 and kind == "logits":
        assert np.isfinite(defence(rows)).all()
        return
    with pytest.raises(scores.BadRowsError, match="row 4 holds none"):
        defence(rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_nothing_and_slices_of_other_types_are_answered(dtype):
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(20, 30)).astype(dtype)
    for some in (whole[::2, ::3], whole.T, whole[:0], whole[:, :1]):
        answer = Postprocessor(parameters())(some)
        reference = Postprocessor(parameters(), native=False)(some)
        assert answer.shape == some.shape
        assert answer.dtype == dtype
        near = 1e-3 if dtype == np.float16 else 1e-6
        assert np.abs(answer - reference).max(initial=0) <= near

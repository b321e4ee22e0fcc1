"""What the kernel computes, beside NumPy's path and a derivation in float64."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernels import CLASSES, ROWS, draw, draw_settings, parameters, run, softmax

from postprocess import kernel, quantise, top1
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import to_logits

pytestmark = pytest.mark.skipif(
    kernel.open_library() is None, reason="the kernel was not compiled here"
)


@pytest.mark.parametrize("classes", CLASSES)
def test_the_kernel_equals_the_numpy_path(classes):
    rng = np.random.default_rng([20260201, classes])
    for _ in range(60):
        logits = draw(rng, int(rng.choice(ROWS)), classes)
        values = draw_settings(rng)
        served, capped = run(logits, **values)
        expected = Postprocessor(parameters(**values), native=False)(logits)
        assert np.abs(served - expected).max() <= 1e-6, values
        assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6, values
        assert 0 <= capped <= len(logits)
        if values["preserve_top1"]:
            assert (served.argmax(axis=1) == logits.argmax(axis=1)).all(), values
        else:
            assert capped == 0


@pytest.mark.parametrize("classes", CLASSES)
def test_the_kernel_equals_the_float64_derivation(classes):
    rng = np.random.default_rng([20260202, classes])
    for _ in range(4):
        logits = draw(rng, 5, classes)
        odds, y = oracle.log_odds(logits)
        for _ in range(5):
            values = draw_settings(rng)
            served, _ = run(logits, **values)
            expected = oracle.reverse_sigmoid(odds, y, **values)
            assert np.abs(served - expected).max() <= 1e-6, values


@pytest.mark.parametrize("classes", CLASSES)
def test_probabilities_in_the_kernel_equal_the_numpy_path(classes):
    rng = np.random.default_rng([20260203, classes])
    for _ in range(60):
        probabilities = softmax(draw(rng, int(rng.choice(ROWS)), classes))
        values = {**draw_settings(rng), "scores": "probabilities"}
        served, _ = run(probabilities, **values)
        expected = Postprocessor(parameters(**values), native=False)(probabilities)
        assert np.abs(served - expected).max() <= 1e-6, values
        if values["preserve_top1"]:
            assert (served.argmax(axis=1) == probabilities.argmax(axis=1)).all(), values


@pytest.mark.parametrize("classes", CLASSES)
def test_impossible_classes_are_taken_where_they_are_allowed(classes):
    rng = np.random.default_rng([20260204, classes])
    probabilities = softmax(rng.normal(size=(40, classes)) * 3)
    probabilities[rng.random(probabilities.shape) < 0.5] = 0
    probabilities[:, 0] += probabilities.sum(axis=1) == 0
    probabilities[:3] = np.eye(classes, dtype=np.float32)[[0, classes - 1, classes // 2]]
    logits = to_logits(probabilities, probabilities=True)
    served, _ = run(logits, impossible=True)
    total = probabilities.sum(axis=1, keepdims=True)
    expected = Postprocessor(parameters(scores="probabilities"), native=False)(
        probabilities / total
    )
    assert np.abs(served - expected).max() <= 1e-6
    from_probabilities, _ = run(probabilities / total, scores="probabilities")
    assert np.abs(from_probabilities - expected).max() <= 1e-6


def test_subnormal_probabilities_keep_their_odds():
    probabilities = np.array([[1, 1e-42, 1e-30, 0], [0.5, 0.5, 1e-40, 1e-45]], np.float32)
    served, _ = run(probabilities, scores="probabilities", gamma=0.01)
    with np.errstate(divide="ignore"):
        odds, y = oracle.log_odds(np.log(probabilities.astype(np.float64)))
    expected = oracle.reverse_sigmoid(
        odds, y, beta=1.5, gamma=0.01, margin=0.01, preserve_top1=True
    )
    assert np.abs(served - expected).max() <= 1e-6


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=1_000, deadline=None)
@given(
    logits=st.integers(2, 40).flatmap(lambda k: arrays(np.float32, (3, k), elements=finite)),
    beta=st.floats(0.001, kernel.MAX_BETA),
    gamma=st.floats(0.001, kernel.MAX_GAMMA),
    margin=st.floats(0, 0.9),
)
def test_any_finite_logits_give_a_distribution_with_their_top_class(logits, beta, gamma, margin):
    served, _ = run(logits, beta=beta, gamma=gamma, margin=margin)
    assert ((served >= 0) & (served <= 1)).all()
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6


@pytest.mark.parametrize("classes", CLASSES)
def test_the_first_of_the_highest_scores_is_strictly_on_top(classes):
    rng = np.random.default_rng([20260205, classes])
    for _ in range(40):
        logits = draw(rng, 20, classes)
        served, _ = run(logits, beta=4, margin=0)
        ordered = np.sort(served, axis=1)
        assert (ordered[:, -1] > ordered[:, -2]).all()
        assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()


BEYOND = {
    "beta": [0.001, 0.9, 1.5, 4.01, 30, 100],
    "gamma": [0.001, 0.05, 0.2, 0.9, 1.01, 2.5, 20, 100],
}


@pytest.mark.slow
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_any_beta_and_gamma_equal_the_float64_derivation(classes, kind):
    rng = np.random.default_rng([20260207, classes])
    for _ in range(20):
        scores = draw(rng, int(rng.choice(ROWS)), classes)
        if kind == "probabilities":
            scores = softmax(scores)
        with np.errstate(divide="ignore"):
            wide = scores.astype(np.float64)
            odds, y = oracle.log_odds(np.log(wide) if kind == "probabilities" else wide)
        for _ in range(4):
            values = draw_settings(rng) | {key: float(rng.choice(BEYOND[key])) for key in BEYOND}
            if values["gamma"] <= kernel.MAX_GAMMA and values["beta"] <= kernel.MAX_BETA:
                continue
            served, capped = run(scores, **values, scores=kind)
            expected = oracle.reverse_sigmoid(odds, y, **values)
            assert np.abs(served - expected).max() <= 1e-6, values
            assert 0 <= capped <= len(scores)
            if values["preserve_top1"]:
                assert (served.argmax(axis=1) == scores.argmax(axis=1)).all(), values


@settings(max_examples=500, deadline=None)
@given(
    logits=st.integers(2, 40).flatmap(lambda k: arrays(np.float32, (3, k), elements=finite)),
    beta=st.floats(0.001, 100),
    gamma=st.floats(0.001, 100),
)
def test_any_setting_gives_a_distribution_with_the_top_class(logits, beta, gamma):
    served, _ = run(logits, beta=beta, gamma=gamma)
    assert ((served >= 0) & (served <= 1)).all()
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("classes", [1, 5, 33])
def test_a_yes_or_no_each_equals_the_numpy_path(classes, kind, dtype):
    rng = np.random.default_rng([20260208, classes])
    step = 1e-3 if dtype == np.float16 else 1e-6
    for _ in range(40):
        scores = rng.normal(size=(17, classes)) * rng.choice([1e-6, 0.1, 1, 10, 80])
        scores[3] = 0
        if kind == "probabilities":
            scores = 1 / (1 + np.exp(-scores))
        values = draw_settings(rng) | {key: float(rng.choice(BEYOND[key])) for key in BEYOND}
        given = parameters(**values, scores=kind, multi_label=True)
        scores = scores.astype(dtype)
        served = Postprocessor(given).protect(scores)
        expected = Postprocessor(given, native=False).protect(scores)
        assert np.abs(served.probabilities - expected.probabilities).max() <= step, values
        assert served.probabilities.dtype == dtype
        if dtype != np.float16:  # whose -1e-6 is another number
            assert dtype == np.float16 or served.lookalikes == expected.lookalikes


@pytest.mark.parametrize("classes", [2, 3, 10, 24, 25, 33, 100, 1000])
def test_units_in_the_kernel_are_those_of_numpy(classes):
    rng = np.random.default_rng([20260209, classes])
    for spread in (0.05, 1, 50, 1e4, 1e8):
        rows = rng.dirichlet(np.full(classes, spread), size=100).astype(np.float32)
        top = rows.argmax(axis=1)
        top1.keep_top(rows, top)
        for decimals in (1, 2, 3, 4, 6):
            served = rows.copy()
            assert kernel.quantise(served, decimals=decimals)
            assert (np.rint(served.astype(float) * 10**decimals).sum(axis=1) == 10**decimals).all()
            assert (served.argmax(axis=1) == top).all()
            expected = quantise.quantise(rows, top, decimals=decimals)
            exact = rows.astype(float) * (10**decimals / rows.sum(axis=1, dtype=float))[:, None]
            for row, one in zip(exact, served != expected, strict=True):
                # A unit went to a remainder that float32 cannot tell from the one it should have.
                assert not one.any() or np.ptp(row[one] % 1) <= 2.5e-7


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("classes", CLASSES)
def test_codebooks_are_bit_for_bit_those_of_numpy(classes, dtype, kind):
    rng = np.random.default_rng([20260210, classes])
    cuts = (-2.0, 0.0, 0.5, 1.0, 4.0)
    confidence = np.sort(rng.uniform(1.1 / classes, 1, (classes, 6)), axis=1)
    table = Calibration(
        classes=classes, single=False, log_odds=cuts, confidence=tuple(map(tuple, confidence))
    )
    for _ in range(20):
        scores = draw(rng, int(rng.choice(ROWS)), classes)
        scores[0] = 0
        scores[0, 1] = np.log(classes - 1) + rng.choice(cuts)  # at the end of a level
        scores = (softmax(scores) if kind == "probabilities" else scores).astype(dtype)
        for said, book in (
            (Parameters(scores=kind, defense="decoy", seed=3), None),
            (Parameters(scores=kind, defense="calibrated", calibration="c"), table),
        ):
            served = Postprocessor(said, table=book).protect(scores)
            expected = Postprocessor(said, table=book, native=False).protect(scores)
            assert served.probabilities.dtype == dtype
            assert np.array_equal(served.probabilities, expected.probabilities)
            assert dtype == np.float16 or served.lookalikes == expected.lookalikes
            assert (served.probabilities.argmax(axis=1) == scores.argmax(axis=1)).all()

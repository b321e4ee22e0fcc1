"""Float16, float32 and float64 scores, one by one and as near a tie as their type allows."""

import numpy as np
import oracle
import pytest

from postprocess.parameters import Parameters
from postprocess.perturbation import perturbation
from postprocess.postprocessor import Postprocessor

TOLERANCE = {np.float16: 1e-3, np.float32: 1e-6, np.float64: 1e-6}
SETTINGS = {"beta": 1.5, "gamma": 0.2, "margin": 0.01}


def defence(**changes):
    return Postprocessor(Parameters(**{**SETTINGS, "scores": "logits", **changes}))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_each_type_is_answered_in_its_own_and_equals_the_derivation(dtype, classes):
    rng = np.random.default_rng(classes)
    logits = (rng.normal(size=(300, classes)) * 5).astype(dtype)
    served = defence()(logits)
    assert served.dtype == dtype
    expected = oracle.reverse_sigmoid(*oracle.log_odds(logits), **SETTINGS, preserve_top1=True)
    assert np.abs(served.astype(np.float64) - expected).max() <= TOLERANCE[dtype]
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_one_step_from_a_tie_the_order_is_the_victims(dtype, kind):
    rng = np.random.default_rng(0)
    for classes in (2, 3, 10, 100):
        scores = rng.uniform(0.01, 1, size=(500, classes))
        if kind == "probabilities":
            scores /= scores.sum(axis=1, keepdims=True)
        rows = np.arange(500)
        second, top = np.argsort(scores, axis=1)[:, -2:].T
        scores[rows, top] = scores[rows, second] = (scores[rows, top] + scores[rows, second]) / 2
        scores = scores.astype(dtype)
        scores[rows, second] = np.nextafter(scores[rows, top], dtype(2))
        assert (scores.argmax(axis=1) == second).all()
        for beta in (0.1, 1.5, 50):
            served = defence(beta=beta, scores=kind)(scores)
            assert (served.argmax(axis=1) == scores.argmax(axis=1)).all()


def test_float64_logits_beyond_float32_are_answered():
    logits = np.array([[1e300, 1e299, -1e300], [-1e308, 0, 1], [1e-320, 0, 0]])
    served = defence()(logits)
    assert np.isfinite(served).all()
    assert served.argmax(axis=1).tolist() == [0, 2, 0]
    single = defence()(np.array([[1e300], [-1e300], [1e-3]]))
    assert ((single > 0.5)[:, 0] == [True, False, True]).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_multi_label_protects_every_entry_as_a_sigmoid_of_its_own(dtype, kind):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(50, 7)) * 3
    if kind == "probabilities":
        scores = 1 / (1 + np.exp(-scores))
    scores = scores.astype(dtype)
    served = defence(multi_label=True, scores=kind)(scores)
    alone = np.stack([defence(scores=kind)(scores[:, [j]])[:, 0] for j in range(7)], axis=1)
    assert served.dtype == dtype
    assert np.array_equal(served, alone)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_denormals_are_scores_like_any_other(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    scores = np.array([[tiny, 0, -tiny], [0, tiny, 0], [-tiny, -tiny, tiny]], dtype)
    served = defence()(scores)
    assert (served.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert np.abs(served - 1 / 3).max() <= TOLERANCE[dtype]


def test_the_size_of_the_perturbation_is_that_of_its_definition():
    logits = (np.random.default_rng(0).normal(size=(100, 10)) * 3).astype(np.float32)
    parameters = defence().parameters
    served = defence()(logits)
    _, y = oracle.log_odds(logits)
    size = perturbation(logits, served, parameters)
    assert size.l1 == pytest.approx(np.abs(y - served).sum(axis=1))
    assert size.kl_nats == pytest.approx((y * np.log(y / served)).sum(axis=1))
    ordered = np.sort(served, axis=1)
    assert size.top1_margin == pytest.approx(ordered[:, -1] - ordered[:, -2])


def test_one_sigmoid_output_is_measured_as_the_pair():
    p = np.array([[0.9], [0.2]], np.float32)
    defended = defence(scores="probabilities")
    served = defended(p).astype(np.float64)
    size = perturbation(p, served, defended.parameters)
    assert size.l1 == pytest.approx(2 * np.abs(p - served)[:, 0], rel=1e-5)
    assert size.top1_margin == pytest.approx(np.abs(2 * served - 1)[:, 0], rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_probability_that_rounding_pushed_past_0_or_1_is_taken_for_it(dtype):
    past = np.array([[1 + 1e-7, -1e-7], [0.3, 0.7]], dtype)
    exact = np.array([[1, 0], [0.3, 0.7]], dtype)
    assert (
        np.abs(defence(scores="probabilities")(past) - defence(scores="probabilities")(exact)).max()
        < 1e-6
    )
    single = defence(scores="probabilities")(past.reshape(-1, 1))
    assert np.isfinite(single).all()
    assert ((single > 0.5) == (past.reshape(-1, 1) > 0.5)).all()

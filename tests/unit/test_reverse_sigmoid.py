import numpy as np
import oracle
import pytest

from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError

pytestmark = pytest.mark.usefixtures("both_paths")

SCALES = [2, 10, 100, 1000]
GAMMAS = [0.05, 0.1, 0.2, 0.4, 1, 2.5]
BETAS = [0.1, 0.9, 1, 1.5, 2.5]


def defence(**changes):
    values = {"beta": 1.0, "gamma": 0.4, "scores": "logits", **changes}
    return Postprocessor(Parameters(**values))


def normal_logits(classes, scale, *, rows=16, seed=0):
    rng = np.random.default_rng([seed, classes, scale])
    return (rng.normal(size=(rows, classes)) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_float32_equals_the_float64_derivation(classes, scale):
    logits = normal_logits(classes, scale)
    odds, y = oracle.log_odds(logits)
    for gamma in GAMMAS:
        for beta in BETAS:
            for preserve_top1 in (True, False):
                for margin in (0.0, 0.01, 0.2):
                    settings = {
                        "beta": beta,
                        "gamma": gamma,
                        "preserve_top1": preserve_top1,
                        "margin": margin,
                    }
                    served = defence(**settings)(logits)
                    expected = oracle.reverse_sigmoid(odds, y, **settings)
                    assert served.dtype == np.float32
                    assert np.abs(served - expected).max() <= 1e-6, settings
                    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6, settings


@pytest.mark.parametrize("scale", SCALES)
def test_one_sigmoid_output_equals_the_derivation_for_the_pair(scale):
    logits = normal_logits(1, scale, rows=200)
    odds, y = oracle.log_odds(np.concatenate([logits, np.zeros_like(logits)], axis=1))
    for gamma in GAMMAS:
        for beta in BETAS:
            settings = {"beta": beta, "gamma": gamma, "preserve_top1": True}
            served = defence(**settings)(logits)
            expected = oracle.reverse_sigmoid(odds, y, **settings)[:, :1]
            assert served.shape == logits.shape
            assert np.abs(served - expected).max() <= 1e-6, settings
            assert ((served > 0.5) == (logits > 0)).all(), settings


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_probabilities_give_what_their_own_odds_give(classes):
    logits = normal_logits(classes, 3)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        odds, y = oracle.log_odds(np.log(probabilities.astype(np.float64)))
    for gamma in GAMMAS:
        for beta in BETAS:
            settings = {"beta": beta, "gamma": gamma, "preserve_top1": True}
            served = defence(**settings, scores="probabilities")(probabilities)
            expected = oracle.reverse_sigmoid(odds, y, **settings)
            assert np.abs(served - expected).max() <= 1e-6, settings


def test_one_probability_stands_for_itself_and_the_rest():
    p = np.array([[0.0], [1e-30], [0.2], [0.5], [0.9], [1.0]], np.float32)
    single = defence(scores="probabilities")(p)
    pair = defence(scores="probabilities")(np.concatenate([p, 1 - p], axis=1))
    assert np.abs(single[:, 0] - pair[:, 0]).max() <= 1e-6
    assert (np.sign(single - 0.5) == np.sign(p - 0.5)).all()


def test_a_one_hot_row_keeps_its_class():
    one_hot = np.eye(10, dtype=np.float32)
    for beta in BETAS:
        served = defence(beta=beta, margin=0.01, scores="probabilities")(one_hot)
        assert (served.argmax(axis=1) == np.arange(10)).all()
        assert np.isfinite(served).all()


@pytest.mark.parametrize(
    "row",
    [
        [1.0, np.nextafter(np.float32(1), np.float32(0)), 0.5, -3.0],
        [20.0, np.nextafter(np.float32(20), np.float32(0)), -20.0],
        [300.0, 299.0, -300.0, 0.0],
        [0.0, 0.0, -5.0],
        [5.0, 5.0, 5.0],
        [1e-30, 0.0, -1e-30],
        [90.0, -90.0],
        [40.0, 39.99, 0.0, 0.0, 0.0],
    ],
)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_rows_where_plain_differences_cancel_are_exact(row, gamma):
    logits = np.array([row], np.float32)
    for beta in BETAS:
        for margin in (0.0, 0.01):
            served = defence(beta=beta, gamma=gamma, margin=margin)(logits)
            expected = oracle.reverse_sigmoid_mp(logits[0], beta=beta, gamma=gamma, margin=margin)
            assert np.abs(served[0] - expected).max() <= 1e-6, (beta, margin)
            assert served[0].argmax() == logits[0].argmax()


@pytest.mark.parametrize("classes", [127, 128])
@pytest.mark.parametrize("top", [5, 12, 40])
def test_many_small_classes_sum_to_one_at_a_small_beta(classes, top):
    logits = np.zeros((4, classes), np.float32)
    logits[:, 3] = top
    odds, y = oracle.log_odds(logits)
    for beta in (0.001, 0.1, 1):
        served = defence(beta=beta, gamma=0.2)(logits)
        expected = oracle.reverse_sigmoid(odds, y, beta=beta, gamma=0.2, preserve_top1=True)
        assert np.abs(served - expected).max() <= 1e-6
        assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6


def test_a_steep_slope_near_one_half_is_exact():
    logits = np.array([[0, 0, -15.54], [1, 1, 0.5]], np.float32)
    odds, y = oracle.log_odds(logits)
    for beta in (1.5, 100):
        settings = {"beta": beta, "gamma": 100, "preserve_top1": False}
        served = defence(**settings)(logits)
        assert np.abs(served - oracle.reverse_sigmoid(odds, y, **settings)).max() <= 1e-6


def test_the_scores_are_not_changed_and_no_row_depends_on_its_batch():
    logits = normal_logits(10, 5, rows=64)
    before = logits.copy()
    together = defence(margin=0.01)(logits)
    assert (logits == before).all()
    for index in range(len(logits)):
        alone = defence(margin=0.01)(logits[index : index + 1])
        assert np.array_equal(alone[0], together[index])


def test_no_rows_give_no_rows():
    assert defence()(np.empty((0, 10), np.float32)).shape == (0, 10)


def bad_rows(rows, **changes):
    with pytest.raises(BadRowsError) as refusal:
        defence(**changes)(rows)
    return refusal.value


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named_and_no_batch_with_it_is_answered(bad):
    logits = normal_logits(10, 5, rows=4)
    logits[2, 7] = bad
    refusal = bad_rows(logits)
    assert refusal.rows.tolist() == [False, False, True, False]
    assert str(refusal) == "expected finite logits, row 2 holds none"


@pytest.mark.parametrize(
    "row", [[0.5, 0.6, -0.1], [3.0, 1.0, -2.0], [0.2, 0.2, 0.2], [3e38, 3e38, 3e38], [0.0] * 3]
)
def test_logits_declared_as_probabilities_are_bad_rows(row):
    rows = np.array([row, [0.2, 0.3, 0.5]], np.float32)
    assert bad_rows(rows, scores="probabilities").rows.tolist() == [True, False]


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_a_single_probability_outside_0_to_1_is_a_bad_row(value):
    rows = np.array([[value], [0.5]], np.float32)
    assert bad_rows(rows, scores="probabilities").rows.tolist() == [True, False]


@pytest.mark.parametrize("shape", [(10,), (2, 3, 10), (4, 0)])
def test_scores_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"expected floats of shape \(rows, K\)"):
        defence()(np.zeros(shape, np.float32))

"""ART's Reverse Sigmoid: the same formula, so it has to agree where it is exact.

It is exact in float64 on rows that are not saturated, and has no accuracy constraint. Its
float32, which is what a served model would give it, is not exact on saturated rows.
"""

import numpy as np
import oracle
import pytest

from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

pytestmark = pytest.mark.slow

SETTINGS = [(0.5, 0.1), (0.9, 0.2), (1.0, 0.4), (1.5, 0.2), (1.01, 0.1), (1.0, 1.5)]


@pytest.fixture(scope="module")
def defences():
    return pytest.importorskip("art.defences.postprocessor")


def soft_rows(classes, *, rows=64):
    """Logits whose probabilities all lie well above ART's clipping at 1e-9."""
    rng = np.random.default_rng([20260301, classes])
    return rng.uniform(-4, 4, size=(rows, classes)).astype(np.float32)


def one_hot_rows(classes):
    """Saturated rows: in float32 the top class is 1 and the rest all but nothing."""
    logits = np.random.default_rng(20260302).normal(size=(classes, classes)) * 2
    logits[np.arange(classes), np.arange(classes)] += 30
    return logits.astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize(("beta", "gamma"), SETTINGS)
def test_our_float64_derivation_equals_arts(defences, classes, beta, gamma):
    odds, y = oracle.log_odds(soft_rows(classes))
    ours = oracle.reverse_sigmoid(odds, y, beta=beta, gamma=gamma, preserve_top1=False)
    theirs = defences.ReverseSigmoid(beta=beta, gamma=gamma)(y)
    assert np.abs(ours - theirs).max() <= 1e-9


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize(("beta", "gamma"), SETTINGS)
def test_our_float32_answer_equals_arts_in_float64(defences, classes, beta, gamma):
    logits = soft_rows(classes)
    _, y = oracle.log_odds(logits)
    parameters = Parameters(beta=beta, gamma=gamma, preserve_top1=False, scores="logits")
    ours = Postprocessor(parameters)(logits)
    theirs = defences.ReverseSigmoid(beta=beta, gamma=gamma)(y)
    assert np.abs(ours - theirs).max() <= 1e-6


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:art")
@pytest.mark.usefixtures("both_paths")
def test_saturated_rows_are_exact_where_arts_float32_is_not(defences):
    logits = one_hot_rows(10)
    odds, y = oracle.log_odds(logits)
    settings = {"beta": 0.9, "gamma": 0.1, "preserve_top1": False}
    expected = oracle.reverse_sigmoid(odds, y, **settings)
    theirs = defences.ReverseSigmoid(beta=0.9, gamma=0.1)(y.astype(np.float32))
    assert np.abs(theirs - expected).max() > 1e-2
    ours = Postprocessor(Parameters(**settings, scores="logits"))(logits)
    assert np.abs(ours - expected).max() <= 1e-6


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning:art")
@pytest.mark.usefixtures("both_paths")
def test_a_one_hot_row_keeps_the_class_that_arts_float32_flips(defences):
    one_hot = np.eye(10, dtype=np.float32)
    theirs = defences.ReverseSigmoid(beta=1.01, gamma=0.4)(one_hot)
    assert (theirs.argmax(axis=1) != np.arange(10)).any()
    ours = Postprocessor(Parameters(beta=1.01, gamma=0.4, scores="probabilities"))(one_hot)
    assert (ours.argmax(axis=1) == np.arange(10)).all()
    # At the cap of 1 every class of a one-hot row comes out level.
    assert np.abs(ours - 0.1).max() <= 1e-6

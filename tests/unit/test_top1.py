import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from kernels import draw

from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

pytestmark = pytest.mark.usefixtures("both_paths")

ROWS, BATCH = 1_000_000, 2_000


@pytest.mark.slow
def test_a_million_rows_keep_their_top_class_and_sum_to_one():
    rng = np.random.default_rng(20260101)
    for _ in range(ROWS // BATCH):
        parameters = Parameters(
            beta=float(rng.choice([0.1, 0.9, 1, 1.5, 2.5, 50])),
            gamma=float(10 ** rng.uniform(-1.3, 0.4)),
            margin=float(rng.choice([0, 0.01, 0.2])),
            scores="logits",
        )
        logits = draw(rng, BATCH, int(rng.choice([2, 3, 5, 10, 37, 100])))
        served = Postprocessor(parameters)(logits)
        assert (served.argmax(axis=1) == logits.argmax(axis=1)).all(), parameters
        assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6, parameters
        assert (served >= 0).all(), parameters


def test_a_class_strictly_on_top_stays_strictly_on_top():
    rng = np.random.default_rng(1)
    for classes in (2, 10, 100):
        logits = draw(rng, BATCH, classes)
        served = Postprocessor(Parameters(beta=50, gamma=0.2, scores="logits"))(logits)
        ordered = np.sort(logits, axis=1)
        strict = ordered[:, -1] > ordered[:, -2]
        answer = np.sort(served, axis=1)
        assert (answer[strict, -1] > answer[strict, -2]).all()


def test_without_the_constraint_the_top_class_is_lost():
    logits = np.array([[30.0, 0.0, 0.0]], np.float32)
    free = Parameters(beta=1.5, gamma=0.4, scores="logits", preserve_top1=False)
    assert Postprocessor(free)(logits).argmax() != 0


def test_the_margin_is_the_share_of_the_top_gap_that_is_left():
    logits = np.array([[12.0, 1.0, 0.0, -1.0]], np.float32)
    gaps = []
    for margin in (0.0, 0.1, 0.2):
        parameters = Parameters(beta=50, gamma=0.2, scores="logits", margin=margin)
        answer = np.sort(Postprocessor(parameters)(logits)[0])
        gaps.append(answer[-1] - answer[-2])
    assert gaps[0] <= 1e-7
    assert gaps[1] > 0.02
    assert gaps[2] > 1.9 * gaps[1]


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(
    logits=st.integers(1, 12).flatmap(lambda k: arrays(np.float32, (3, k), elements=finite)),
    beta=st.floats(0.001, 100),
    gamma=st.floats(0.001, 100),
    margin=st.floats(0, 0.9),
)
@example(logits=np.array([[-1, 1e-45, 0]], np.float32), beta=1.0, gamma=1.5, margin=0.0)
def test_any_finite_logits_and_any_parameters_give_a_distribution(logits, beta, gamma, margin):
    parameters = Parameters(beta=beta, gamma=gamma, margin=margin, scores="logits")
    served = Postprocessor(parameters)(logits)
    assert np.isfinite(served).all()
    assert ((served >= 0) & (served <= 1)).all()
    if logits.shape[1] == 1:
        assert (np.sign(served - 0.5) == np.sign(logits)).all()
    else:
        assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
        assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.5])
def test_a_tie_at_the_top_stays_a_tie(margin):
    parameters = Parameters(beta=50, gamma=0.2, scores="probabilities", margin=margin)
    served = Postprocessor(parameters)(np.array([[0.5, 0.5, 0.0]], np.float32))
    assert served[0, 0] == pytest.approx(served[0, 1], abs=1e-7)
    assert served.argmax() == 0

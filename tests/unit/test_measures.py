import numpy as np
import pytest

from load_tests.reporting import measures

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(10), 50).astype(np.float32)
Q = RNG.dirichlet(np.ones(10), 50).astype(np.float32)


def test_measures_equal_scipys():
    from scipy.spatial.distance import cosine as scipy_cosine
    from scipy.stats import entropy

    rows = list(zip(P.astype(np.float64), Q.astype(np.float64), strict=True))
    assert measures.cosine(P, Q) == pytest.approx(
        np.mean([1 - scipy_cosine(p, q) for p, q in rows])
    )
    assert measures.mae(P, Q) == pytest.approx(np.mean([np.abs(p - q).mean() for p, q in rows]))
    assert measures.kl_nats(P, Q) == pytest.approx(
        np.mean([entropy(p, q) for p, q in rows]), rel=1e-5
    )


def test_a_model_agrees_fully_with_itself():
    assert measures.agreement(P, P) == 1
    assert measures.cosine(P, P) == pytest.approx(1)
    assert measures.mae(P, P) == measures.kl_nats(P, P) == 0


def test_agreement_and_accuracy_count_top_classes():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    assert measures.accuracy(scores, np.array([0, 1, 1, 0])) == 0.5
    assert measures.agreement(scores, 1 - scores) == 0


def test_kl_of_a_zero_is_finite_by_the_stated_clipping():
    kl = measures.kl_nats(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    assert kl == pytest.approx(np.log(0.5) + 0.5 * np.log(1 / measures.KL_EPSILON))


LABELS = RNG.integers(0, 10, 50)


def test_the_worth_of_an_answer_equals_a_plain_count():
    overlaps = [len(set(np.argsort(p)[-5:]) & set(np.argsort(q)[-5:])) / 5
                for p, q in zip(P, Q, strict=True)]  # fmt: skip
    assert measures.top5_overlap(P, Q) == pytest.approx(np.mean(overlaps))
    distances = [sum((p[k] - (k == label)) ** 2 for k in range(10))
                 for p, label in zip(P, LABELS, strict=True)]  # fmt: skip
    assert measures.brier(P, LABELS) == pytest.approx(np.mean(distances), rel=1e-5)
    error = 0.0
    for low in np.arange(15) / 15:
        rows = (P.max(axis=1) >= low) & (P.max(axis=1) < low + 1 / 15)
        if rows.any():
            right = (P[rows].argmax(axis=1) == LABELS[rows]).mean()
            error += rows.mean() * abs(right - P[rows].max(axis=1).mean())
    assert measures.calibration_error(P, LABELS) == pytest.approx(error, rel=1e-5)
    assert measures.confidence(P) == pytest.approx(np.mean([max(row) for row in P]), rel=1e-6)


def test_a_model_that_is_sure_and_right_is_calibrated():
    sure = np.eye(10)[LABELS]
    assert measures.calibration_error(sure, LABELS) == measures.brier(sure, LABELS) == 0
    assert measures.calibration_error(sure, (LABELS + 1) % 10) == 1

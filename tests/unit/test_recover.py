import numpy as np
import pytest
from scipy.special import softmax

from load_tests.stealing.recovery import analytic, inverse, table, tail_ranking
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

PARAMETERS = Parameters(scores="probabilities", beta=0.9, gamma=0.2)


def victims(count, *, classes=10, scale=5.0, seed=0):
    logits = np.random.default_rng(seed).normal(size=(count, classes)) * scale
    return softmax(logits, axis=1).astype(np.float32)


def l1(one, other):
    return float(np.abs(one - other).sum(axis=1).mean())


def test_knowing_beta_and_gamma_many_answers_are_inverted_exactly():
    true = victims(200)
    answers = Postprocessor(PARAMETERS)(true)
    recovered = analytic.recover(answers, PARAMETERS)
    assert np.array_equal(recovered.argmax(axis=1), answers.argmax(axis=1))
    exact = np.abs(recovered - true).sum(axis=1) < 1e-3
    assert exact.mean() > 0.3
    assert l1(recovered, true) < l1(answers, true) / 3
    # What is not the victim's own answers to the same: the equations have other solutions.
    protected = Postprocessor(PARAMETERS)(recovered)
    assert np.median(np.abs(protected - answers).max(axis=1)) < 1e-5


def test_analytic_inversion_refuses_another_defence():
    with pytest.raises(InputError, match="--recover analytic: expected the beta and gamma"):
        analytic.recover(victims(1), Parameters(scores="logits", defense="uniform", beta=1))


def test_linear_inversion_undoes_what_is_linear_and_is_judged_on_rows_it_has_not_seen():
    true = victims(400, scale=1.0)
    answers = (0.5 * true + 0.05).astype(np.float32)
    recovered = inverse.crosswise(inverse.linear, answers, true)
    assert np.abs(recovered - true).max() < 1e-5
    noise = np.random.default_rng(1).random(true.shape).astype(np.float32)
    assert l1(inverse.crosswise(inverse.linear, noise, true), true) > 0.3


@pytest.mark.slow
def test_the_mlp_recovers_more_than_linear_regression_as_in_section_4_4():
    true = victims(2000)
    answers = Postprocessor(PARAMETERS)(true)

    def mlp(protected, probabilities):
        return inverse.mlp(protected, probabilities, seed=0)

    by_mlp = inverse.crosswise(mlp, answers, true)
    by_linear = inverse.crosswise(inverse.linear, answers, true)
    assert l1(by_mlp, true) < l1(by_linear, true) < l1(answers, true)
    assert np.abs(by_mlp.sum(axis=1) - 1).max() < 1e-5


def test_the_table_finds_what_it_holds():
    true = victims(300)
    copy = Postprocessor(PARAMETERS)
    recovered = table.recover(copy(true[:50]), true, copy)
    assert np.array_equal(recovered, true[:50])


def test_the_reversed_tail_is_read_as_the_true_order():
    profile = np.array([[0.7, 0.2, 0.07, 0.03]], np.float32)
    answers = np.array([[0.3, 0.2, 0.24, 0.26], [0.2, 0.35, 0.25, 0.2]], np.float32)
    recovered = tail_ranking.recover(answers, profile)
    assert recovered.tolist() == [
        pytest.approx([0.7, 0.2, 0.07, 0.03]),
        pytest.approx([0.2, 0.7, 0.03, 0.07]),
    ]

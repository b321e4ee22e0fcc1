import numpy as np
import pytest
from scipy.special import softmax

from load_tests.stealing.recovery import analytic, bayes, d_dae, inverse, table, tail_ranking
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


def test_partial_bayes_takes_the_mean_of_what_comes_near_and_has_the_same_top_class():
    shadow = np.array([[0.7, 0.3], [0.69, 0.31], [0.2, 0.8]], np.float32)
    near = bayes.recover(np.array([[0.695, 0.305], [0.45, 0.55]], np.float32), shadow, np.copy)
    assert 0.69 < near[0, 0] < 0.7
    assert near[1] == pytest.approx([0.2, 0.8])  # the only one whose top class it is


def test_partial_bayes_needs_no_more_than_one_row_of_the_same_top_class():
    """Of many classes a shadow may know one in a single row, wherever that stands."""
    others = np.full((40, 3), [0.05, 0.05, 0.9], np.float32)
    for place in (0, 20, 40):
        shadow = np.insert(others, place, [0.7, 0.2, 0.1], axis=0).astype(np.float32)
        (found,) = bayes.recover(np.array([[0.6, 0.3, 0.1]], np.float32), shadow, np.copy)
        assert np.allclose(found, [0.7, 0.2, 0.1])


def test_partial_bayes_comes_nearer_to_the_truth_than_the_answers_are():
    true, shadow, copy = victims(300), victims(4000, seed=1), Postprocessor(PARAMETERS)
    answers = copy(true)
    assert l1(bayes.recover(answers, shadow, copy), true) < l1(answers, true) / 2


@pytest.mark.slow
def test_a_network_taught_with_many_settings_undoes_one_that_it_was_not_taught():
    true, shadow = victims(500), victims(2000, seed=1)
    answers = Postprocessor(PARAMETERS)(true)
    known = Parameters(scores="probabilities", beta=1, gamma=1)  # not looked at
    assert l1(d_dae.recover(answers, shadow, known, seed=0), true) < l1(answers, true) / 1.5
    with pytest.raises(InputError, match="--recover d_dae: expected answers of Reverse Sigmoid"):
        d_dae.recover(answers, shadow, Parameters(scores="logits", defense="none"), seed=0)


def test_the_reversed_tail_is_read_as_the_true_order():
    profile = np.array([[0.7, 0.2, 0.07, 0.03]], np.float32)
    answers = np.array([[0.3, 0.2, 0.24, 0.26], [0.2, 0.35, 0.25, 0.2]], np.float32)
    recovered = tail_ranking.recover(answers, profile)
    assert recovered.tolist() == [
        pytest.approx([0.7, 0.2, 0.07, 0.03]),
        pytest.approx([0.2, 0.7, 0.03, 0.07]),
    ]

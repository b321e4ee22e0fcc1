"""Ways to make more of answers, and to choose whom to ask about."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from exporters.training.train import predict, train
from load_tests.stealing import substitute
from load_tests.stealing.attacks.k_center import k_center
from load_tests.stealing.attacks.margin import margin
from load_tests.stealing.collect import collect
from load_tests.stealing.learning import learn
from load_tests.stealing.learning.consistency import TAKEN, disturbed
from load_tests.stealing.learning.self_training import surest
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet
from postprocess.errors import InputError

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
POOL = np.concatenate([RNG.normal(c, 0.6, (60, 8)) for c in (-2, 0, 2)]).astype(np.float32)
TRUTH = np.arange(180) // 60


def answers(rows):
    """Probabilities that follow from which of three heaps is nearest."""
    return softmax(-2 * np.abs(rows.mean(axis=1, keepdims=True) - [-2, 0, 2]), axis=1).astype(
        np.float32
    )


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("name", learn.LEARNERS)
def test_what_nobody_was_asked_about_is_learnt_from_by_every_learner(name, labels_only):
    asked = np.arange(0, 180, 12)
    seen, recipe = [], Recipe(architecture="mlp", steps=100, labels_only=labels_only)

    def train(transfer_set, recipe, **more):
        seen.append(len(transfer_set))
        return train_substitute(transfer_set, recipe, **more)

    taken = TransferSet(POOL[asked], answers(POOL[asked]))
    model = learn.LEARNERS[name](taken, recipe, POOL, train)
    assert len(seen) == 1  # one training alone is told of
    assert seen[0] > 2 * len(asked)
    assert (predict(model, POOL).argmax(axis=1) == TRUTH).mean() > 0.9


def test_what_all_begin_with_is_trained_once_and_stays_what_it_is(monkeypatch):
    asked = np.arange(0, 180, 10)
    taken = TransferSet(POOL[asked], answers(POOL[asked]))
    recipe = Recipe(architecture="mlp", steps=20, seed=7)
    trained = []

    def counted(model, *rows, **more):
        trained.append(more["steps"])
        return train(model, *rows, **more)

    monkeypatch.setattr(substitute, "train", counted)
    plain = train_substitute(taken, recipe)
    before, (start, *_) = predict(plain, POOL), trained
    for name in learn.LEARNERS:
        learn.LEARNERS[name](taken, recipe, POOL, train_substitute)
    assert trained == [start, 20, *([7] * 3), 20]  # no learner's first one
    seen = []
    again = train_substitute(taken, recipe, progress=lambda *done: seen.append(done))
    assert again is not plain
    assert seen == [(20, 20)]
    assert np.array_equal(predict(again, POOL), before)
    for other in (replace(recipe, seed=8), replace(recipe, steps=21)):
        count = len(trained)
        assert not np.array_equal(predict(train_substitute(taken, other), POOL), before)
        assert len(trained) == count + 1
    fewer = TransferSet(taken.rows[1:], taken.scores[1:])
    assert not np.array_equal(predict(train_substitute(fewer, recipe), POOL), before)


def test_an_unknown_way_to_learn_is_refused():
    with pytest.raises(InputError, match="--learn: expected self_training, consistency, "):
        learn.LEARNERS["magic"]


def test_of_every_class_the_surest_rows_are_believed():
    told = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.55, 0.45], [0.45, 0.55]])
    assert sorted(surest(told)) == [0, 2, 4]


def test_images_lose_a_square_and_features_lose_some():
    images = disturbed(np.ones((50, 8, 12, 3), np.float32), np.random.default_rng(0))
    for image in images:
        rows, columns, _ = np.nonzero(image == 0)
        tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert (tall, wide) == (4, 6)
        assert (image == 0).sum() == 3 * tall * wide
    assert len({tuple(np.argwhere(image == 0)[0]) for image in images}) > 10
    features = disturbed(np.ones((1000, 20), np.float32), np.random.default_rng(0))
    assert (features == 0).mean() == pytest.approx(TAKEN, abs=0.02)


@pytest.mark.parametrize("budget", [1, 37, 180])
@pytest.mark.parametrize("attack", [margin, k_center])
def test_those_who_choose_ask_exactly_their_budget_and_nothing_twice(attack, budget):
    more = {"recipe": Recipe(architecture="mlp")} if attack is margin else {}
    taken = collect(attack(POOL, budget=budget, rng=np.random.default_rng(1), **more), answers)
    assert len(np.unique(taken.rows, axis=0)) == budget
    assert {tuple(row) for row in taken.rows} <= {tuple(row) for row in POOL}


def test_k_center_leaves_no_heap_out_and_its_beginning_is_that_of_fewer_queries():
    three = collect(k_center(POOL, budget=3, rng=np.random.default_rng(4)), answers).rows
    ten = collect(k_center(POOL, budget=10, rng=np.random.default_rng(4)), answers).rows
    assert sorted(answers(three).argmax(axis=1)) == [0, 1, 2]
    assert np.array_equal(ten[:3], three)


def test_margin_asks_where_two_classes_meet():
    taken = collect(
        margin(POOL, budget=60, rng=np.random.default_rng(2), recipe=Recipe(architecture="mlp")),
        answers,
    )
    lead = np.sort(answers(taken.rows), axis=1)[:, -2:] @ [-1, 1]
    everywhere = np.sort(answers(POOL), axis=1)[:, -2:] @ [-1, 1]
    assert lead[30:].mean() < everywhere.mean()

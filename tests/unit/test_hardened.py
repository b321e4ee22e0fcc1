"""Modes beyond the paper: decimals, and decoys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from postprocess import decoy
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

pytestmark = pytest.mark.usefixtures("both_paths")

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(2000, 10)) * 4).astype(np.float32)
TYPES = [np.float16, np.float32, np.float64]


def defence(**changes):
    values = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "logits", **changes}
    return Postprocessor(Parameters(**values))


MODES = {
    "decimals": {"decimals": 2},
    "decoy": {"defense": "decoy"},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 100])
def test_every_mode_keeps_top_1_and_the_sum(mode, dtype, classes):
    logits = (np.random.default_rng(classes).normal(size=(500, classes)) * 4).astype(dtype)
    logits[:50] = np.round(logits[:50])  # ties
    for beta, gamma in ((1.5, 0.2), (0.1, 2.5), (50, 0.05)):
        served = defence(beta=beta, gamma=gamma, **MODES[mode])(logits)
        assert served.dtype == dtype
        assert ((served >= 0) & (served <= 1)).all()
        if classes == 1:
            decided = logits != 0
            assert ((served > 0.5) == (logits > 0))[decided].all()
        else:
            assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
            total = served.sum(axis=1, dtype=np.float64)
            assert np.abs(total - 1).max() <= (1e-6 if dtype != np.float16 else 2e-2)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_query_the_same_answer(mode):
    one, other = defence(**MODES[mode]), defence(**MODES[mode])
    together = one(LOGITS[:64])
    assert np.array_equal(together, other(LOGITS[:64]))
    for index in range(64):
        assert np.array_equal(one(LOGITS[index : index + 1])[0], together[index])


rows = st.integers(2, 12).flatmap(
    lambda k: arrays(np.float32, (4, k), elements=st.floats(-20, 20, width=32))
)


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@given(logits=rows, decimals=st.integers(1, 6), beta=st.floats(0.001, 3))
def test_decimals_are_whole_units_that_sum_to_one_with_top_1_strictly_first(logits, decimals, beta):
    served = defence(beta=beta, decimals=decimals)(logits).astype(np.float64)
    plain = defence(beta=beta)(logits).astype(np.float64)
    units = np.rint(served * 10**decimals).astype(int)
    assert np.abs(served * 10**decimals - units).max() <= 10**decimals * 1e-7
    assert (units.sum(axis=1) == 10**decimals).all()
    ordered = np.sort(units, axis=1)
    assert (ordered[:, -1] > ordered[:, -2]).all()
    top = logits.argmax(axis=1)
    assert (units.argmax(axis=1) == top).all()
    moved = np.abs(units - plain * 10**decimals)
    each = np.arange(len(top))
    assert moved[each, top].max() < 2 + 1e-6 * 10**decimals
    moved[each, top] = 0
    assert moved.max() <= 1 + 1e-6 * 10**decimals


def test_two_decimals_of_a_thousand_classes_still_name_the_top_class():
    logits = RNG.normal(size=(20, 1000)).astype(np.float32)
    served = defence(decimals=2)(logits)
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert len(np.unique(np.rint(served * 100))) <= 3


@pytest.mark.parametrize("multi_label", [False, True])
def test_decimals_hold_for_yes_or_no_outputs_too(multi_label):
    logits = LOGITS[:, :3] if multi_label else LOGITS[:, :1]
    served = defence(decimals=1, multi_label=multi_label)(logits).astype(np.float64)
    assert np.abs(served * 10 - np.rint(served * 10)).max() <= 1e-6
    assert ((served > 0.5) == (logits > 0)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_a_decoy_hangs_on_the_label_alone(classes, dtype):
    rng = np.random.default_rng(1)
    scale = 10 ** rng.uniform(-2, 2, size=(5_000, 1))
    logits = (rng.normal(size=(5_000, classes)) * scale).astype(dtype)
    served = defence(defense="decoy")(logits)
    answers = np.unique(served, axis=0)
    assert len(answers) == len(np.unique(logits.argmax(axis=1)))
    highest = np.sort(answers.astype(np.float64), axis=1)
    # Nearly flat, as a deceptive answer is, and the label still first.
    assert (highest[:, -1] > highest[:, -2]).all()
    assert (highest[:, -1] < 1.02 / classes).all()


@pytest.mark.slow
def test_a_million_rows_show_no_more_decoys_than_classes():
    answers = set()
    for seed in range(10):
        logits = (np.random.default_rng(seed).normal(size=(100_000, 10)) * 3).astype(np.float32)
        served = defence(defense="decoy")(logits)
        assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
        answers |= set(map(bytes, np.unique(served, axis=0)))
    assert len(answers) == 10


def test_decoys_of_yes_or_no_outputs_tell_the_side_alone():
    served = defence(defense="decoy", multi_label=True)(LOGITS)
    assert len(np.unique(served)) == 2
    assert ((served > 0.5) == (LOGITS > 0)).all()
    assert (defence(defense="decoy")(np.zeros((1, 1), np.float32)) == 0.5).all()


def test_another_seed_makes_other_decoys_and_none_is_seed_0():
    served = defence(defense="decoy")(LOGITS)
    assert np.array_equal(served, defence(defense="decoy", seed=0)(LOGITS))
    other = defence(defense="decoy", seed=1)(LOGITS)
    assert not np.array_equal(np.argsort(other[0]), np.argsort(served[0]))


def test_the_decoys_of_any_number_of_classes_are_kept_within_bounds():
    step = defence(defense="decoy")
    for classes in range(2, 60):
        assert step(np.zeros((1, classes), np.float32)).argmax() == 0
    assert len(step._decoys) <= 8
    assert len(step._books) <= 8


def test_a_tail_is_drawn_evenly_and_stays_below_its_top_class():
    first = decoy.twice(1000, seed=0, data_type=np.dtype(np.float64))[:1000]
    assert first.argmax() == 0
    assert first.sum() == pytest.approx(1)
    assert len(np.unique(first)) > 950

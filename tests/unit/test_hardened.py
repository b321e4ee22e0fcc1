"""The hardened modes: decimals, key_file, decoy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from postprocess.errors import InputError
from postprocess.parameters import Parameters, read_key
from postprocess.postprocessor import Postprocessor

KEY = b"sixteen bytes or more"
RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(2000, 10)) * 4).astype(np.float32)


def defence(*, key=KEY, **changes):
    values = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "logits", **changes}
    if key and ("decoy" in changes or "jitter" in changes):
        values["key_file"] = "key"
    return Postprocessor(Parameters(**values), key=key if "key_file" in values else b"")


MODES = {
    "decimals": {"decimals": 2},
    "key_file": {"jitter": 0.5},
    "decoy": {"decoy": 4},
    "all": {"decimals": 3, "jitter": 0.9, "decoy": 10},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
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


def test_near_duplicates_share_the_keyed_answer_so_averaging_gains_nothing():
    plain = defence()
    keyed = defence(jitter=0.9)
    moved, average = [], []
    for logits in LOGITS[:100]:
        near = logits + RNG.normal(size=(64, 10)).astype(np.float32) * 0.01
        keyed_error = np.abs(keyed(near) - plain(near)).sum(axis=1)
        moved.append(keyed_error.mean())
        average.append(np.abs(keyed(near).mean(axis=0) - plain(near).mean(axis=0)).sum())
    # Independent noise would shrink to 1/8 over 64 copies.
    assert np.mean(average) > 0.8 * np.mean(moved) > 0.001


def test_another_key_is_another_answer_and_no_key_is_the_plain_one():
    served = defence(jitter=0.5)(LOGITS)
    assert np.abs(served - defence(jitter=0.5, key=b"another sixteen bytes")(LOGITS)).max() > 0.01
    assert np.abs(served - defence()(LOGITS)).max() > 0.01
    assert np.allclose(defence(jitter=0)(LOGITS), defence()(LOGITS), atol=1e-6)


@pytest.mark.parametrize(("classes", "levels"), [(10, 1), (10, 4), (3, 100), (2, 7), (1, 5)])
def test_decoy_leaks_at_most_log2_k_plus_log2_l_bits(classes, levels):
    rng = np.random.default_rng(1)
    answers = set()
    # Mild and strong settings, so that every level of confidence occurs.
    scale = 10 ** rng.uniform(-2, 2, size=(200_000, 1))
    logits = (rng.normal(size=(200_000, classes)) * scale).astype(np.float32)
    served = defence(beta=0.05, decoy=levels)(logits)
    answers = np.unique(served, axis=0)
    pairs = max(classes, 2)
    assert len(answers) <= pairs * levels
    assert len(answers) >= pairs * levels * 0.5
    # Another batch of other inputs finds no answer that is new.
    again = np.unique(defence(beta=0.05, decoy=levels)(logits[::-3] * 1.1), axis=0)
    assert len(np.unique(np.concatenate([answers, again]), axis=0)) <= pairs * levels


def test_the_tail_of_a_decoy_says_nothing_about_the_victims():
    served = defence(decoy=1)(LOGITS)
    order = [np.argsort(served[i]).tolist() for i in range(len(LOGITS))]
    top = LOGITS.argmax(axis=1)
    for label in range(10):
        assert len({tuple(o) for o, k in zip(order, top, strict=True) if k == label}) == 1
    other = defence(decoy=1, key=b"another sixteen bytes")(LOGITS)
    assert not np.array_equal(np.argsort(other[0]), order[0])


def test_modes_combine_in_any_way():
    options = [{"decimals": 2}, {"jitter": 0.3}, {"decoy": 3}, {"multi_label": True}]
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(options, n) for n in range(5)
    ):
        changes = {key: value for option in chosen for key, value in option.items()}
        served = defence(**changes)(LOGITS[:50])
        assert np.isfinite(served).all()
        if "multi_label" in changes:
            assert ((served > 0.5) == (LOGITS[:50] > 0)).all()


def test_a_key_file_is_read_beside_the_model_and_stripped(tmp_path):
    (tmp_path / "key").write_bytes(b"0123456789abcdef\n")
    assert read_key("key", directory=tmp_path, where="w") == b"0123456789abcdef"
    assert read_key(str(tmp_path / "key"), directory=tmp_path / "x", where="w")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory"),
        (b"", "expected at least 16 bytes, got 0"),
        (b"  short  \n", "expected at least 16 bytes, got 5"),
    ],
)
def test_a_bad_key_file_is_refused(tmp_path, content, said):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        read_key("key", directory=tmp_path, where="config.pbtxt")
    assert str(refusal.value) == f"config.pbtxt: parameter key_file: {path}: {said}"


def test_a_defence_that_needs_a_key_does_not_start_without():
    parameters = Parameters(beta=1.5, gamma=0.2, scores="logits", key_file="key")
    with pytest.raises(InputError, match="expected its key"):
        Postprocessor(parameters)

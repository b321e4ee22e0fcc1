import threading

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from postprocess import kernel, quantise, top1
from postprocess.calibration import Calibration
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError, to_logits

pytestmark = pytest.mark.skipif(
    kernel.open_library() is None, reason="the kernel was not compiled here"
)

#: Around every boundary of the kernel: four classes, sixteen lanes, wide rows and their ends.
CLASSES = [2, 3, 4, 5, 7, 10, 15, 16, 17, 31, 33, 100, 191, 192, 193, 207, 208, 1000]
ROWS = [1, 3, 4, 15, 16, 17, 37]


def parameters(**changes):
    return Parameters(**{"beta": 1.5, "gamma": 0.2, "margin": 0.01, "scores": "logits", **changes})


def run(batch, *, impossible=False, **changes):
    out = np.full_like(batch, np.nan)
    found = kernel.kernel_for(parameters(**changes), impossible=impossible)
    return out, found(batch, out)[0]


def softmax(logits):
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def draw(rng, rows, classes):
    """Logits of five kinds: easy, saturated, tied, one float32 step from a tie, flat."""
    logits = (rng.normal(size=(rows, classes)) * 10 ** rng.uniform(-3, 3)).astype(np.float32)
    kind = rng.integers(5)
    if kind == 1:
        logits = np.round(logits)
    if kind == 2:
        index = np.arange(rows)
        top = logits.argmax(axis=1)
        near = (top + rng.integers(1, classes, rows)) % classes
        logits[index, near] = np.nextafter(logits[index, top], np.float32(-np.inf))
    if kind == 3:
        logits = logits.astype(np.float16).astype(np.float32)
    if kind == 4:
        logits[:, 1:] = logits[:, :1]
    return logits


def draw_settings(rng):
    return {
        "beta": float(rng.choice([0.001, 0.1, 0.9, 1.5, 4])),
        "gamma": float(rng.choice([0.001, 0.05, 0.2, 0.4, 0.9, 1])),
        "margin": float(rng.choice([0, 0.01, 0.2, 0.9])),
        "preserve_top1": bool(rng.integers(2)),
    }


@pytest.mark.parametrize("classes", CLASSES)
def test_the_kernel_equals_the_numpy_path(classes):
    rng = np.random.default_rng([20260201, classes])
    for _ in range(60):
        logits = draw(rng, int(rng.choice(ROWS)), classes)
        values = draw_settings(rng)
        served, capped = run(logits, **values)
        expected = Postprocessor(parameters(**values), native=False)(logits)
        assert np.abs(served - expected).max() <= 1e-6, values
        assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6, values
        assert 0 <= capped <= len(logits)
        if values["preserve_top1"]:
            assert (served.argmax(axis=1) == logits.argmax(axis=1)).all(), values
        else:
            assert capped == 0


@pytest.mark.parametrize("classes", CLASSES)
def test_the_kernel_equals_the_float64_derivation(classes):
    rng = np.random.default_rng([20260202, classes])
    for _ in range(4):
        logits = draw(rng, 5, classes)
        odds, y = oracle.log_odds(logits)
        for _ in range(5):
            values = draw_settings(rng)
            served, _ = run(logits, **values)
            expected = oracle.reverse_sigmoid(odds, y, **values)
            assert np.abs(served - expected).max() <= 1e-6, values


@pytest.mark.parametrize("classes", CLASSES)
def test_probabilities_in_the_kernel_equal_the_numpy_path(classes):
    rng = np.random.default_rng([20260203, classes])
    for _ in range(60):
        probabilities = softmax(draw(rng, int(rng.choice(ROWS)), classes))
        values = {**draw_settings(rng), "scores": "probabilities"}
        served, _ = run(probabilities, **values)
        expected = Postprocessor(parameters(**values), native=False)(probabilities)
        assert np.abs(served - expected).max() <= 1e-6, values
        if values["preserve_top1"]:
            assert (served.argmax(axis=1) == probabilities.argmax(axis=1)).all(), values


@pytest.mark.parametrize("classes", CLASSES)
def test_impossible_classes_are_taken_where_they_are_allowed(classes):
    rng = np.random.default_rng([20260204, classes])
    probabilities = softmax(rng.normal(size=(40, classes)) * 3)
    probabilities[rng.random(probabilities.shape) < 0.5] = 0
    probabilities[:, 0] += probabilities.sum(axis=1) == 0
    probabilities[:3] = np.eye(classes, dtype=np.float32)[[0, classes - 1, classes // 2]]
    logits = to_logits(probabilities, probabilities=True)
    served, _ = run(logits, impossible=True)
    total = probabilities.sum(axis=1, keepdims=True)
    expected = Postprocessor(parameters(scores="probabilities"), native=False)(
        probabilities / total
    )
    assert np.abs(served - expected).max() <= 1e-6
    from_probabilities, _ = run(probabilities / total, scores="probabilities")
    assert np.abs(from_probabilities - expected).max() <= 1e-6


def test_subnormal_probabilities_keep_their_odds():
    probabilities = np.array([[1, 1e-42, 1e-30, 0], [0.5, 0.5, 1e-40, 1e-45]], np.float32)
    served, _ = run(probabilities, scores="probabilities", gamma=0.01)
    with np.errstate(divide="ignore"):
        odds, y = oracle.log_odds(np.log(probabilities.astype(np.float64)))
    expected = oracle.reverse_sigmoid(
        odds, y, beta=1.5, gamma=0.01, margin=0.01, preserve_top1=True
    )
    assert np.abs(served - expected).max() <= 1e-6


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=1_000, deadline=None)
@given(
    logits=st.integers(2, 40).flatmap(lambda k: arrays(np.float32, (3, k), elements=finite)),
    beta=st.floats(0.001, kernel.MAX_BETA),
    gamma=st.floats(0.001, kernel.MAX_GAMMA),
    margin=st.floats(0, 0.9),
)
def test_any_finite_logits_give_a_distribution_with_their_top_class(logits, beta, gamma, margin):
    served, _ = run(logits, beta=beta, gamma=gamma, margin=margin)
    assert ((served >= 0) & (served <= 1)).all()
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6


@pytest.mark.parametrize("classes", CLASSES)
def test_the_first_of_the_highest_scores_is_strictly_on_top(classes):
    rng = np.random.default_rng([20260205, classes])
    for _ in range(40):
        logits = draw(rng, 20, classes)
        served, _ = run(logits, beta=4, margin=0)
        ordered = np.sort(served, axis=1)
        assert (ordered[:, -1] > ordered[:, -2]).all()
        assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("classes", [2, 10, 17, 200])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_the_first_bad_row_is_named(classes, bad):
    rng = np.random.default_rng(20260206)
    for scores in ("logits", "probabilities"):
        for column in (0, classes // 2, classes - 1):
            for row in (0, 5, 16, 36):
                batch = softmax(rng.normal(size=(37, classes)))
                batch[row, column] = bad
                batch[36, column] = bad
                assert run(batch, scores=scores)[1] == -1 - row
                with pytest.raises(BadRowsError, match=f"row {row} holds none"):
                    Postprocessor(parameters(scores=scores))(batch)


def test_nan_of_any_payload_is_bad():
    bits = np.array([0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FC00001], np.uint32)
    for nan in bits.view(np.float32):
        batch = np.zeros((2, 20), np.float32)
        batch[1, 3] = nan
        assert run(batch)[1] == -2


@pytest.mark.parametrize(
    "row", [[0.5, 0.6, -0.1], [3.0, 1.0, -2.0], [0.2, 0.2, 0.2], [3e38, 3e38, 3e38], [0.0] * 3]
)
def test_logits_declared_as_probabilities_are_a_bad_row(row):
    batch = np.array([[0.2, 0.3, 0.5], row], np.float32)
    assert run(batch, scores="probabilities")[1] == -2


def test_rows_without_a_possible_class_are_bad():
    batch = np.full((3, 10), -np.inf, np.float32)
    assert run(batch, impossible=True)[1] == -1


@pytest.mark.parametrize("shape", [(0, 10), (0, 1000)])
def test_no_rows_are_no_work(shape):
    assert run(np.empty(shape, np.float32))[1] == 0


def test_nothing_is_written_past_the_rows():
    for classes in CLASSES:
        for rows in ROWS:
            arena = np.full((rows + 2, classes), -7, np.float32)
            logits = np.random.default_rng(1).normal(size=(rows, classes)).astype(np.float32)
            found = kernel.kernel_for(parameters())
            assert found(logits, arena[1:-1])[0] >= 0
            assert (arena[[0, -1]] == -7).all()
            assert (arena[1:-1] >= 0).all()


def test_arrays_that_are_not_rows_in_memory_are_refused():
    found = kernel.kernel_for(parameters())
    good = np.zeros((4, 10), np.float32)
    for scores, out in [
        (np.zeros((10, 4), np.float32).T, good),
        (good, np.zeros((10, 4), np.float32).T),
        (np.zeros((4, 10)), good),
        (good, np.zeros((4, 10))),
        (good, np.zeros((3, 10), np.float32)),
        (np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32)),
        (np.zeros(40, np.float32), np.zeros(40, np.float32)),
        (np.zeros((4, 10), ">f4"), good),
    ]:
        with pytest.raises(ValueError, match="kernel: expected"):
            found(scores, out)


def test_the_postprocessor_takes_any_layout():
    logits = np.random.default_rng(2).normal(size=(10, 30)).astype(np.float32)
    protect = Postprocessor(parameters())
    expected = protect(np.ascontiguousarray(logits.T))
    assert np.array_equal(protect(logits.T), expected)
    read_only = np.ascontiguousarray(logits.T)
    read_only.flags.writeable = False
    assert np.array_equal(protect(read_only), expected)
    raw = np.zeros(expected.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(expected.shape)
    unaligned[:] = logits.T
    assert np.array_equal(protect(unaligned), expected)


def test_a_row_does_not_depend_on_its_batch():
    for classes in (10, 100, 300):
        logits = np.random.default_rng(3).normal(size=(50, classes)).astype(np.float32)
        together, _ = run(logits)
        for index in range(len(logits)):
            assert np.array_equal(run(logits[index : index + 1])[0][0], together[index])


def test_threads_do_not_disturb_each_other():
    logits = np.random.default_rng(4).normal(size=(500, 100)).astype(np.float32)
    found = kernel.kernel_for(parameters())
    expected, _ = run(logits)
    wrong = []

    def work():
        out = np.empty_like(logits)
        for _ in range(20):
            found(logits, out)
            if not np.array_equal(out, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_capped_rows_are_counted():
    logits = np.zeros((20, 10), np.float32)
    logits[:7, 3] = 30
    assert run(logits)[1] == 7


BEYOND = {
    "beta": [0.001, 0.9, 1.5, 4.01, 30, 100],
    "gamma": [0.001, 0.05, 0.2, 0.9, 1.01, 2.5, 20, 100],
}


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_any_beta_and_gamma_equal_the_float64_derivation(classes, kind):
    rng = np.random.default_rng([20260207, classes])
    for _ in range(20):
        scores = draw(rng, int(rng.choice(ROWS)), classes)
        if kind == "probabilities":
            scores = softmax(scores)
        with np.errstate(divide="ignore"):
            wide = scores.astype(np.float64)
            odds, y = oracle.log_odds(np.log(wide) if kind == "probabilities" else wide)
        for _ in range(4):
            values = draw_settings(rng) | {key: float(rng.choice(BEYOND[key])) for key in BEYOND}
            if values["gamma"] <= kernel.MAX_GAMMA and values["beta"] <= kernel.MAX_BETA:
                continue
            served, capped = run(scores, **values, scores=kind)
            expected = oracle.reverse_sigmoid(odds, y, **values)
            assert np.abs(served - expected).max() <= 1e-6, values
            assert 0 <= capped <= len(scores)
            if values["preserve_top1"]:
                assert (served.argmax(axis=1) == scores.argmax(axis=1)).all(), values


@settings(max_examples=500, deadline=None)
@given(
    logits=st.integers(2, 40).flatmap(lambda k: arrays(np.float32, (3, k), elements=finite)),
    beta=st.floats(0.001, 100),
    gamma=st.floats(0.001, 100),
)
def test_any_setting_gives_a_distribution_with_the_top_class(logits, beta, gamma):
    served, _ = run(logits, beta=beta, gamma=gamma)
    assert ((served >= 0) & (served <= 1)).all()
    assert (served.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("classes", [1, 5, 33])
def test_a_yes_or_no_each_equals_the_numpy_path(classes, kind, dtype):
    rng = np.random.default_rng([20260208, classes])
    step = 1e-3 if dtype == np.float16 else 1e-6
    for _ in range(40):
        scores = rng.normal(size=(17, classes)) * rng.choice([1e-6, 0.1, 1, 10, 80])
        scores[3] = 0
        if kind == "probabilities":
            scores = 1 / (1 + np.exp(-scores))
        values = draw_settings(rng) | {key: float(rng.choice(BEYOND[key])) for key in BEYOND}
        given = parameters(**values, scores=kind, multi_label=True)
        scores = scores.astype(dtype)
        served = Postprocessor(given).protect(scores)
        expected = Postprocessor(given, native=False).protect(scores)
        assert np.abs(served.probabilities - expected.probabilities).max() <= step, values
        assert served.probabilities.dtype == dtype
        if dtype != np.float16:  # whose -1e-6 is another number
            assert dtype == np.float16 or served.lookalikes == expected.lookalikes


def test_bad_scores_of_yes_or_no_are_named():
    for kind, bad in (("logits", np.nan), ("logits", -np.inf), ("probabilities", 1.5)):
        scores = np.full((40, 3), 0.25, np.float32)
        scores[[7, 30], 1] = bad
        with pytest.raises(BadRowsError, match="row 7 holds none") as refused:
            Postprocessor(parameters(scores=kind, multi_label=True))(scores)
        assert np.flatnonzero(refused.value.rows).tolist() == [7, 30]


@pytest.mark.parametrize("classes", [2, 3, 10, 24, 25, 33, 100, 1000])
def test_units_in_the_kernel_are_those_of_numpy(classes):
    rng = np.random.default_rng([20260209, classes])
    for spread in (0.05, 1, 50, 1e4, 1e8):
        rows = rng.dirichlet(np.full(classes, spread), size=100).astype(np.float32)
        top = rows.argmax(axis=1)
        top1.keep_top(rows, top)
        for decimals in (1, 2, 3, 4, 6):
            served = rows.copy()
            assert kernel.quantise(served, decimals=decimals)
            assert (np.rint(served.astype(float) * 10**decimals).sum(axis=1) == 10**decimals).all()
            assert (served.argmax(axis=1) == top).all()
            expected = quantise.quantise(rows, top, decimals=decimals)
            exact = rows.astype(float) * (10**decimals / rows.sum(axis=1, dtype=float))[:, None]
            for row, one in zip(exact, served != expected, strict=True):
                # A unit went to a remainder that float32 cannot tell from the one it should have.
                assert not one.any() or np.ptp(row[one] % 1) <= 2.5e-7


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("classes", CLASSES)
def test_codebooks_are_bit_for_bit_those_of_numpy(classes, dtype, kind):
    rng = np.random.default_rng([20260210, classes])
    cuts = (-2.0, 0.0, 0.5, 1.0, 4.0)
    confidence = np.sort(rng.uniform(1.1 / classes, 1, (classes, 6)), axis=1)
    table = Calibration(
        classes=classes, single=False, log_odds=cuts, confidence=tuple(map(tuple, confidence))
    )
    for _ in range(20):
        scores = draw(rng, int(rng.choice(ROWS)), classes)
        scores[0] = 0
        scores[0, 1] = np.log(classes - 1) + rng.choice(cuts)  # at the end of a level
        scores = (softmax(scores) if kind == "probabilities" else scores).astype(dtype)
        for said, book in (
            (Parameters(scores=kind, defense="decoy", seed=3), None),
            (Parameters(scores=kind, defense="calibrated", calibration="c"), table),
        ):
            served = Postprocessor(said, table=book).protect(scores)
            expected = Postprocessor(said, table=book, native=False).protect(scores)
            assert served.probabilities.dtype == dtype
            assert np.array_equal(served.probabilities, expected.probabilities)
            assert dtype == np.float16 or served.lookalikes == expected.lookalikes
            assert (served.probabilities.argmax(axis=1) == scores.argmax(axis=1)).all()


def test_without_a_library_numpy_does_the_work(monkeypatch):
    monkeypatch.setattr(kernel, "_library", None)
    assert Postprocessor(parameters()).kernel is None

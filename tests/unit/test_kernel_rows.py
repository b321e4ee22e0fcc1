"""What the kernel is handed: bad rows are named, memory is kept to, and threads apart."""

import threading

import numpy as np
import oracle
import pytest
from kernels import CLASSES, ROWS, parameters, run, softmax

from postprocess import kernel
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError

pytestmark = pytest.mark.skipif(
    kernel.open_library() is None, reason="the kernel was not compiled here"
)


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
            assert found(logits, arena[1:-1])[1] >= 0
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


@pytest.mark.parametrize("changes", [{}, {"gamma": 3.0}, {"beta": 50, "gamma": 0.08}, {"gamma": 9}])
def test_a_row_does_not_depend_on_its_batch(changes):
    for classes in (10, 100, 300):
        rng = np.random.default_rng(3)
        scale = rng.choice([0.01, 3], (50, 1))  # flat rows are allowed a larger beta
        logits = (rng.normal(size=(50, classes)) * scale).astype(np.float32)
        together, _ = run(logits, **changes)
        for index in range(len(logits)):
            alone = run(logits[index : index + 1], **changes)[0][0]
            assert np.array_equal(alone, together[index])


def test_rows_that_float32_is_not_enough_for_are_told_from_others_in_their_batch():
    rng = np.random.default_rng(5)
    logits = (rng.normal(size=(40, 10)) * rng.choice([0.01, 3], (40, 1))).astype(np.float32)
    odds, y = oracle.log_odds(logits)
    settings = {"beta": 50, "gamma": 0.08, "margin": 0.01, "preserve_top1": True}
    lowered = [oracle.reverse_sigmoid(odds, y, **settings | {"beta": most}) for most in (4, 50)]
    more = (lowered[1] != lowered[0]).any(axis=1)  # rows that are allowed more than 4
    assert 5 < np.count_nonzero(more) < 35
    served, capped = run(logits, **settings)
    assert np.abs(served - lowered[1]).max() <= 1e-6
    assert capped == 40


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


def test_bad_scores_of_yes_or_no_are_named():
    for kind, bad in (("logits", np.nan), ("logits", -np.inf), ("probabilities", 1.5)):
        scores = np.full((40, 3), 0.25, np.float32)
        scores[[7, 30], 1] = bad
        with pytest.raises(BadRowsError, match="row 7 holds none") as refused:
            Postprocessor(parameters(scores=kind, multi_label=True))(scores)
        assert np.flatnonzero(refused.value.rows).tolist() == [7, 30]


def test_without_a_library_numpy_does_the_work(monkeypatch):
    monkeypatch.setattr(kernel, "_library", None)
    assert Postprocessor(parameters()).kernel is None

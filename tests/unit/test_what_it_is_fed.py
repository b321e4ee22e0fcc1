"""The step sees that its scores are not of the kind that config.pbtxt says, and refuses them."""

import numpy as np
import pytest

from postprocess.calibration import labels_alone
from postprocess.suspicion import Suspicion

SECRETS = ("logits", "probabilities", "victim_scores", "softmax", "sum", "config.pbtxt")
TYPES = ["float16", "float32", "float64"]


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def draw(kind, classes, rows, seed=0, dtype="float32"):
    """Rows of one kind: logits, probabilities, or these rounded to 8 bits."""
    logits = np.random.default_rng([seed, classes]).normal(size=(rows, classes)) * 3
    if kind == "logits":
        return logits.astype(dtype)
    rows = softmax(logits) if classes > 1 else 1 / (1 + np.exp(-logits))
    return (rows if kind == "probabilities" else np.rint(rows * 255) / 255).astype(dtype)


def is_error(answer):
    return isinstance(answer, Exception)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [1, 2, 3, 10, 100, 1000])
@pytest.mark.parametrize("kind", ["probabilities", "int8"])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_probabilities_for_logits_are_refused_within_a_hundred_rows(
    load_step,
    dtype,
    classes,
    kind,
    batch,
):
    if kind == "int8" and classes == 1000:
        pytest.skip("8 bits leave zeros alone of 1000 classes")
    step = load_step(scores="logits", dtype=dtype)
    rows = draw(kind, classes, 200, dtype=dtype)
    answers = [step(rows[start : start + batch])[0] for start in range(0, 200, batch)]
    refused = [is_error(answer) for answer in answers]
    assert all(refused[-(-100 // batch) :])
    assert refused == sorted(refused)
    assert step.counted("mistaken_requests") == step.counted("refused_requests") == sum(refused)


@pytest.mark.parametrize("rows", [[[0.2, 3.0, -1.0]], [[0.2, 0.2, 0.2]], [[5.0, 4.0, 4.0]]])
def test_logits_for_probabilities_are_refused_at_once_and_counted_the_same_way(load_step, rows):
    step = load_step(scores="probabilities")
    (answer,) = step(np.array(rows, np.float32))
    assert is_error(answer)
    assert step.counted("mistaken_requests") == 1


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_clients_hear_nothing_of_the_kind_and_the_log_all_of_it(load_step, scores):
    step = load_step(scores=scores)
    other = "probabilities" if scores == "logits" else "logits"
    (answer,) = step(draw(other, 10, 100))
    assert str(answer) == (
        "digits_reverse_sigmoid: row 0 of the request cannot be answered: the model has to be set "
        "up anew, see the server's log"
    )
    (line,) = step.log
    assert line.startswith("digits_reverse_sigmoid: ")
    assert f"config.pbtxt: parameter scores: expected {scores}, got" in line
    assert f"Set scores to {other} if the victim gives them" in line


@pytest.mark.parametrize("defense", ["reverse_sigmoid", "calibrated", "decoy"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scores", ["logits", "probabilities"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_a_client_can_cause_tells_the_row_and_no_more(
    load_step, tmp_path, scores, bad, dtype, defense
):
    more = {}
    if defense == "calibrated":
        table = labels_alone(10, single=False)
        (tmp_path / table.file_name).write_text(table.text())
        more["calibration"] = table.file_name
    step = load_step(dims=(10,), dtype=dtype, scores=scores, defense=defense, **more)
    good = draw(scores, 10, 8, dtype=dtype)
    rows = good.copy()
    rows[3, 2] = bad
    answers = step(good[:2], rows, good[:2])
    assert [is_error(answer) for answer in answers] == [False, True, False]
    assert str(answers[1]) == "digits_reverse_sigmoid: row 3 of the request cannot be answered"
    assert answers[1].code == "INVALID_ARG"
    assert not any(word in str(answers[1]) for word in SECRETS)
    assert step.counted("mistaken_requests") == 0
    assert step.counted("refused_rows") == 8


def test_a_client_cannot_fill_the_log(load_step):
    step = load_step(scores="logits")
    rows = np.full((4, 10), np.nan, np.float32)
    for _ in range(300):
        step(rows)
    assert len(step.log) == 1
    assert "expected finite logits" in step.log[0]


def test_real_logits_are_answered_while_others_are_refused(load_step):
    step = load_step(scores="logits")
    good, bad = draw("logits", 10, 4), draw("probabilities", 10, 100)
    step(bad)
    answers = step(bad[:3], good, bad[3:5])
    assert [is_error(answer) for answer in answers] == [True, False, True]
    assert np.array_equal(answers[1].argmax(axis=1), good.argmax(axis=1))
    for _ in range(20):
        step(good)
    assert not is_error(step(bad[:1])[0])


def test_one_row_asked_again_and_again_proves_nothing(load_step):
    step = load_step(scores="logits")
    row = draw("probabilities", 10, 1)
    for _ in range(500):
        assert not is_error(step(row)[0])
    assert not is_error(step(np.repeat(row, 256, axis=0))[0])
    assert step.counted("suspect_rows") == 756


@pytest.mark.parametrize("between", [np.nan, np.inf, "mixed"])
def test_rows_that_are_not_finite_do_not_keep_it_quiet(load_step, between):
    step = load_step(scores="logits")
    rows = draw("probabilities", 10, 100)
    for row in rows[:-1]:
        noise = np.full((1, 10), np.nan if between == "mixed" else between, np.float32)
        if between == "mixed":
            noise = np.concatenate([noise, draw("logits", 10, 5)])
        step(noise)
        step(row[None])
    assert is_error(step(rows[-1:])[0])


def test_less_than_half_of_other_rows_does_not_keep_it_quiet(load_step):
    step = load_step(scores="logits")
    rows, others = draw("probabilities", 10, 200), draw("logits", 10, 200)
    refused = 0
    for index in range(0, 200, 5):
        step(others[index : index + 2])
        refused += is_error(step(rows[index : index + 3])[0])
    assert refused > 5
    assert step.counted("suspect_rows") == 120


@pytest.mark.parametrize("together", [True, False])
def test_rows_that_8_bits_round_to_zero_do_not_keep_it_quiet(load_step, together):
    step = load_step(scores="logits")
    nothing = np.zeros((5, 1000), np.float32)  # a flat Softmax: each entry is below 1/510
    refused = []
    for row in draw("rounded", 1000, 20):
        if together:
            refused.append(is_error(step(np.concatenate([nothing, row[None]]))[0]))
        else:
            assert not is_error(step(nothing)[0])
            refused.append(is_error(step(row[None])[0]))
    assert refused == [False] * 3 + [True] * 17


def refused_rows(rows, *, single=False, batch=1000):
    suspicion, refused = Suspicion(), 0
    for start in range(0, len(rows), batch):
        likely, sure = suspicion.judge(rows[start : start + batch], single=single)
        refused += int(likely.sum()) if sure else 0
    return refused


def real_logits(rng, classes, rows):
    """Logits as nets of all kinds give them: spread, offset, sharp, clipped at 0, log-softmax."""
    spread, offset = 10 ** rng.uniform(-2, 1.5), rng.normal() * rng.choice([0, 1, 5])
    logits = rng.normal(size=(rows, classes)) * spread + offset
    kind = rng.integers(4)
    if kind == 1:
        logits = np.maximum(logits, 0)
    if kind == 2:
        logits = np.log(softmax(logits) + 1e-30)
    if kind == 3:
        logits -= logits.mean(axis=1, keepdims=True)
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [1, 1000])
def test_real_logits_raise_no_alarm(dtype, batch):
    rng = np.random.default_rng(20261126)
    for classes in (2, 3, 5, 10, 100, 1000):
        for _ in range(20):
            rows = real_logits(rng, classes, 5_000 if batch > 1 and classes < 1000 else 300)
            assert refused_rows(rows.astype(dtype), batch=batch) == 0, classes


@pytest.mark.parametrize("labels", [1, 2, 5])
def test_yes_and_no_logits_on_both_sides_of_0_raise_no_alarm(labels):
    rng = np.random.default_rng(labels)
    for spread in (0.5, 1, 3, 10):
        for offset in (-1, 0, 0.5):
            rows = rng.normal(size=(20_000, labels)) * spread + offset
            assert refused_rows(rows, single=True, batch=7) == 0


@pytest.mark.parametrize("labels", [2, 5])
def test_multi_label_probabilities_for_logits_are_refused(load_step, labels):
    step = load_step(scores="logits", multi_label="true")
    rows = 1 / (1 + np.exp(-draw("logits", labels, 200)))
    assert not is_error(step(rows[:1])[0])
    for row in rows[:100]:
        step(row[None])
    assert is_error(step(rows[-1:])[0])


@pytest.mark.parametrize("axis", ["1", "-3"])
def test_the_victims_layout_is_kept_and_pixels_are_judged(load_step, axis):
    step = load_step(dims=(5, 4, 6), scores="logits", class_axis=axis)
    logits = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype(np.float32) * 4
    (answer,) = step(logits)
    assert answer.shape == logits.shape
    assert answer.flags.c_contiguous
    assert np.array_equal(answer.argmax(axis=1), logits.argmax(axis=1))
    assert np.abs(answer.sum(axis=1) - 1).max() <= 1e-6
    assert is_error(step(np.moveaxis(softmax(np.moveaxis(logits, 1, -1)), -1, 1))[0])

"""Calibrated answers against a plain reading of the table, in both layouts and all types."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from victims import passing

from exporters.fusing import fused
from load_tests.calibrate.fit import fit
from postprocess import calibration, defence_config
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "banking77.npz"
TYPES = (np.float16, np.float32, np.float64)
CUTS = (-1.0, 0.5, 2.0, 6.0)


def table_of(classes, *, single=False, cuts=CUTS, seed=0):
    rng = np.random.default_rng(seed)
    low = 0.51 if single else 1.1 / classes
    rows = np.sort(rng.uniform(low, 1, (2 * classes if single else classes, len(cuts) + 1)), axis=1)
    cuts = tuple(sorted(abs(cut) for cut in cuts)) if single else cuts
    return Calibration(
        classes=classes, single=single, log_odds=cuts, confidence=tuple(map(tuple, rows.tolist()))
    )


def parameters(scores="logits", **changes):
    return Parameters(
        scores=scores, defense="calibrated", calibration="calibration.json", **changes
    )


def ensemble(rows, table, **changes):
    return Postprocessor(parameters(**changes), table=table)(rows)


def in_graph(rows, table, *, opset=17, **changes):
    shape = ["rows", *rows.shape[1:]]
    model = passing(shape, rows.dtype, opset)
    fused.fuse(model, "scores", parameters(**changes), table)
    fused.refuse_altered(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": rows})[0]


def expected(row, table):
    """One row of logits, by arithmetic in Python's own floats."""
    top = max(range(len(row)), key=lambda j: row[j])
    rest = math.fsum(math.exp(float(g) - float(row[top])) for j, g in enumerate(row) if j != top)
    odds = math.inf if rest == 0 else -math.log(rest)
    level = sum(odds >= cut for cut in table.log_odds)
    confidence = table.confidence[top][level]
    answer = [(1 - confidence) / (len(row) - 1)] * len(row)
    answer[top] = confidence
    return answer


def logits_of(rows, classes, dtype=np.float32, seed=1):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rows, classes)) * rng.choice([1e-3, 0.3, 2, 8, 60], (rows, 1))
    scores[::7, 0] = scores[::7].max(axis=1)  # ties, the first class among them
    return scores.astype(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("classes", [2, 10, 150, 1000])
def test_an_answer_is_what_the_table_says_of_top_class_and_level(classes, dtype):
    table, scores = table_of(classes), logits_of(300, classes, dtype)
    answer = ensemble(scores, table)
    step = {np.float16: 1e-3, np.float32: 1e-6, np.float64: 1e-12}[dtype]
    assert answer.dtype == dtype
    assert np.abs(answer - [expected(row, table) for row in scores.tolist()]).max() < step
    assert (answer.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert ((answer == answer.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_both_layouts_answer_alike(kind, dtype, opset):
    table, scores = table_of(10), logits_of(2000, 10, dtype)
    if kind == "probabilities":
        wide = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
        scores = (wide / wide.sum(axis=1, keepdims=True)).astype(dtype)
    answer = ensemble(scores, table, scores=kind)
    assert np.abs(in_graph(scores, table, opset=opset, scores=kind) - answer).max() < 1e-6


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_yes_or_no_keeps_its_side_and_shows_a_level(classes, kind):
    table = table_of(classes, single=True)
    scores = logits_of(4000, classes)
    scores[0] = 0
    odds = scores.astype(np.float64)
    if kind == "probabilities":
        scores = (1 / (1 + np.exp(-odds))).astype(np.float32)
        with np.errstate(divide="ignore"):
            odds = np.log(scores.astype(np.float64)) - np.log1p(-scores.astype(np.float64))
    multi = {"scores": kind, "multi_label": classes > 1}
    answer = ensemble(scores, table, **multi)
    level = (np.abs(odds)[..., None] >= np.array(table.log_odds)).sum(axis=-1)
    confidence = np.array(table.confidence)[2 * np.arange(classes) + (odds < 0), level]
    wanted = np.where(odds < 0, 1 - confidence, confidence)
    wanted[odds == 0] = 0.5
    assert np.abs(answer - wanted).max() < 1e-6
    assert (np.sign(answer - 0.5) == np.sign(odds)).all()
    assert np.abs(in_graph(scores, table, **multi) - answer).max() < 1e-6
    for column in answer.T:
        assert len(np.unique(column)) <= 2 * table.levels + 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
def test_a_million_rows_show_no_more_than_classes_times_levels(dtype):
    table, answers, kept = table_of(10), set(), 0
    for seed in range(10):
        scores = logits_of(100_000, 10, dtype, seed=seed)
        answer = ensemble(scores, table)
        answers |= set(map(bytes, np.unique(answer, axis=0)))
        kept += int((answer.argmax(axis=1) == scores.argmax(axis=1)).sum())
    assert kept == 1_000_000
    assert 30 < len(answers) <= 10 * table.levels


def digits():
    """Logits of a classifier of scikit-learn's digits for rows that it never saw, and labels."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=200).fit(images[:900] / 16, labels[:900])
    return model.decision_function(images[900:] / 16), labels[900:]


def intents():
    """The same of Banking77's 77 intents: how near a text is to the mean of each."""
    if not SHARED.is_file():
        pytest.skip("needs banking77.npz in ../shared/data")
    with np.load(SHARED) as data:
        arrays = [data[name].astype(np.float64) for name in ("x_train", "x_test")]
        known, labels = data["y_train"], data["y_test"]
    means = np.stack([arrays[0][known == label].mean(axis=0) for label in range(77)])
    return 20 * arrays[1] @ means.T, labels


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [digits, intents])
def test_real_rows_show_no_more_than_classes_times_levels(rows, dtype):
    scores, labels = rows()
    half, levels, classes = len(scores) // 2, 10, scores.shape[1]
    table = fit(scores[:half], labels[:half], levels=levels)
    asked = scores[half:].astype(dtype)
    for answer in (ensemble(asked, table), in_graph(asked, table)):
        shown = len(np.unique(answer, axis=0))
        assert classes < shown <= classes * levels
        assert shown < len(np.unique(asked, axis=0))  # so that it could be more
        assert (answer.argmax(axis=1) == asked.argmax(axis=1)).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("answers", [ensemble, in_graph])
def test_asking_again_alone_or_beside_others_tells_nothing_new(answers, dtype):
    table, scores = table_of(10), logits_of(300, 10, dtype)
    once = answers(scores, table)
    order = np.random.default_rng(0).permutation(300)
    assert np.array_equal(answers(scores[order], table), once[order])
    assert np.array_equal(answers(np.repeat(scores, 5, axis=0), table)[::5], once)
    for at in range(0, 300, 60):
        assert np.array_equal(answers(scores[at : at + 1], table), once[at : at + 1])


def test_one_level_tells_no_more_than_the_label():
    table, scores = table_of(5, cuts=()), logits_of(500, 5)
    answer = ensemble(scores, table)
    assert len(np.unique(answer, axis=0)) == 5
    assert np.abs(in_graph(scores, table) - answer).max() < 1e-6


def test_rows_that_are_no_scores_are_refused_and_not_answered():
    scores = logits_of(3, 10)
    scores[1, 4] = np.nan
    with pytest.raises(BadRowsError):
        ensemble(scores, table_of(10))
    answer = in_graph(scores, table_of(10))
    assert (answer[1] == -1).all()
    assert (answer[[0, 2]] >= 0).all()


def test_a_fused_graph_keeps_its_table_when_it_is_retuned():
    table = table_of(3)
    model = passing(["rows", 3])
    fused.fuse(model, "scores", parameters(), table)
    before = model.SerializeToString(deterministic=True)
    fused.retune(model, parameters())
    assert fused.read_table(model) == table
    assert model.SerializeToString(deterministic=True) == before
    with pytest.raises(InputError, match="expected a table of 3 classes, as dims say, got 4"):
        fused.retune(model, parameters(), table_of(4))


def config_of(tmp_path, text, dims=(10,), **strings):
    if text is not None:
        (tmp_path / "calibration.json").write_text(text)
    said = {
        "scores": "logits",
        "defense": "calibrated",
        "calibration": "calibration.json",
        **strings,
    }
    tensor = {"name": "x", "data_type": "TYPE_FP32", "dims": list(dims)}
    given = {
        "max_batch_size": 8,
        "input": [tensor],
        "output": [tensor],
        "parameters": {key: {"string_value": value} for key, value in said.items()},
    }
    return defence_config.read(given, directory=tmp_path)


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    table = replace(table_of(10), victim="sha256:1", rows=7, labelled=True)
    assert config_of(tmp_path, table.text()).table == table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (table_of(10).text()[:300], "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ('{"format": "another"}', "format: expected"),
        ("[]", "format: expected"),
        (table_of(7).text(), "expected a table of 10 classes, as dims say, got 7"),
        (
            table_of(10, single=True).text(),
            "expected a table for one class of each row",
        ),
    ],
)
def test_a_table_that_does_not_fit_stops_the_load_in_one_line(tmp_path, text, said):
    with pytest.raises(InputError) as refused:
        config_of(tmp_path, text)
    assert said in str(refused.value)
    assert "parameter calibration" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"log_odds": [1.0, 1.0, 2.0, 3.0]}, "each above the one before"),
        ({"log_odds": [0.0]}, "10 rows of 2 levels"),
        ({"confidence": [[0.9, 0.8, 0.9, 0.9, 0.9]] * 10}, "no row to fall"),
        ({"confidence": [[0.1, 0.8, 0.9, 0.9, 0.9]] * 10}, "stay above all other classes"),
        ({"confidence": [[float("nan")] * 5] * 10}, "stay above all other classes"),
        ({"confidence": [["high"] * 5] * 10}, "expected numbers"),
        ({"confidence": [[0.9, 0.9, 0.9, 0.9, 1.5]] * 10}, "stay above all other classes"),
        ({"classes": "ten"}, "no whole number"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        calibration.parse(json.dumps({**json.loads(table_of(10).text()), **changes}))


def test_a_table_whose_top_class_its_type_would_lose_is_refused():
    table = replace(table_of(10), confidence=(((0.1 + 1e-6),) * 5,) * 10)
    with pytest.raises(InputError, match="float16"):
        table.refuse_lost_top(np.dtype(np.float16))


def test_calibrated_answers_need_their_table_and_keep_the_top_class():
    with pytest.raises(InputError, match="parameter calibration: expected a path"):
        Parameters(scores="logits", defense="calibrated")
    with pytest.raises(InputError, match="expected defense calibrated with it"):
        Parameters(scores="logits", beta=1, gamma=1, calibration="x")
    with pytest.raises(InputError, match="preserve_top1"):
        parameters(preserve_top1=False)
    with pytest.raises(InputError, match="expected its table"):
        Postprocessor(parameters())

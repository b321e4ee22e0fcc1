"""The question beside a protected model: what its file holds, and what it calls a right answer."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from exporters import question
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.question import Looks, Question, QuestionTensor, WrongAnswerError, as_rows, read
from postprocess.ready import NotReadyError, check, compare

SHIPPED = Parameters(beta=1.5, gamma=0.2, margin=0.01, scores="logits")
LOGITS = np.array([[6.0, -1.0, 0.5, 0.0]], np.float32)


def model(parameters=SHIPPED, *, axis=-1, scores=lambda feed: feed["x"]):
    return question.AnswerSource(scores, Postprocessor(parameters), parameters, "y", True, axis)


def seen(scores=LOGITS, parameters=SHIPPED, axis=-1):
    return question.choose(model(parameters, axis=axis), [{"x": scores}])


def written(tmp_path, asked):
    path = tmp_path / "question.json"
    path.write_text(asked.text())
    return path


STRINGS = np.array([["a", "", "ä"]], object)
INPUTS = [
    np.array([[0.1, 1 / 3, 1e30]], np.float32),
    np.array([[0.1, 65504]], np.float16),
    np.array([[1 / 3]], np.float64),
    np.array([[1, 2**63 - 1]], np.int64),
    np.array([[0, 255]], np.uint8),
    np.array([[True, False]]),
    np.array([[np.nan, np.inf]], np.float32),
    np.random.default_rng(0).normal(size=(1, 3, 200, 200)).astype(np.float32),
    STRINGS,
    np.array([[f"word {n}" for n in range(5000)]], object),
]


@pytest.mark.parametrize("values", INPUTS, ids=lambda one: f"{one.dtype}-{one.size}")
def test_inputs_of_any_type_are_read_back_to_the_last_bit(tmp_path, values):
    inputs = question.tensors({"x": values}, batched=True)
    asked = Question(inputs, SHIPPED.to_strings(), Looks("y", (1, 4)))
    (back,) = read(written(tmp_path, asked))
    (again,) = back.inputs
    assert again.datatype == inputs[0].datatype
    assert again.encoded() == inputs[0].encoded()
    assert again.values.shape == values.shape


def test_what_is_batch_alone_to_a_graph_is_a_column_to_triton():
    (tensor,) = question.tensors({"x": np.array([3.0], np.float32)}, batched=True)
    assert tensor.values.shape == (1, 1)


def test_a_large_made_up_question_has_few_different_numbers_and_a_small_file():
    def scores(feed):
        return LOGITS + feed["x"].reshape(1, -1)[:, :4]

    image = np.random.default_rng(0).normal(size=(1, 3, 512, 512)).astype(np.float32)
    asked = question.choose(model(scores=scores), [{"x": image}])
    assert asked.looks.tells_raw
    assert len(asked.text()) < 50_000


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_protected_answer_looks_right_and_no_raw_reading_of_it_does(axis):
    scores = LOGITS if axis == -1 else np.stack([LOGITS, LOGITS / 2], axis=-1)
    looks = seen(scores, axis=axis).looks
    rows = as_rows(scores, axis).astype(np.float32)
    back = np.moveaxis(scores, axis, -1).shape

    def whole(one):
        return np.moveaxis(one.reshape(back), -1, axis)

    looks.judge(whole(Postprocessor(SHIPPED)(rows)))
    for raw in (rows, softmax(rows, axis=1), 1 / (1 + np.exp(-rows))):
        with pytest.raises(WrongAnswerError) as refused:
            looks.judge(whole(raw))
        assert refused.value.raw


@pytest.mark.parametrize("scores", [np.array([[7.0]]), np.array([[7.0, -6.0, 0.1]])])
def test_a_yes_or_no_is_told_from_a_raw_one_too(scores):
    parameters = replace(SHIPPED, multi_label=True)
    looks = seen(scores.astype(np.float32), parameters).looks
    assert not looks.sum_to_1
    looks.judge(Postprocessor(parameters)(scores.astype(np.float32)))
    with pytest.raises(WrongAnswerError):
        looks.judge(1 / (1 + np.exp(-scores)))


def test_the_file_tells_of_a_raw_score_only_that_it_is_not_near_the_protected_one():
    """Of very different confident rows whose protected answers are alike, the files are alike."""
    texts = set()
    for top in (12.0, 14.0, 20.0, 25.0):
        asked = seen(np.array([[top, 0.0, 0.0, 0.0]], np.float32))
        texts.add(json.dumps(vars(asked.looks)))
    assert len(texts) == 1


def test_weak_parameters_have_no_bounds_and_others_are_told_again():
    asked = seen()
    weak = question.again(model(replace(SHIPPED, beta=0.01)), asked, [2])
    assert not weak.looks.tells_raw
    weak.looks.judge(softmax(LOGITS, axis=1))
    back = question.again(model(), weak, [2])
    assert back == replace(asked, inputs=back.inputs)


def test_a_defence_that_draws_is_known_by_its_answers_being_different():
    parameters = Parameters(defense="uniform", beta=0.2, scores="logits")
    looks = seen(parameters=parameters).looks
    assert not looks.repeats
    assert looks.tells_raw
    for _ in range(20):
        looks.judge(Postprocessor(parameters)(LOGITS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[:50], "damaged: "),
        (lambda text: "[" * 100_000, "damaged: "),
        (lambda text: text.replace('"format": 1', '"format": 2'), "expected format 1, got 2"),
        (lambda text: text.replace('"inputs"', '"asks"'), "'inputs' is missing"),
        (lambda text: text.replace('"shape": [1, 4],', '"shape": [],'), "expected a shape"),
        (lambda text: text.replace('"top": 0', '"top": 9'), "no row 0 and class 9"),
        (lambda text: text.replace('"beta": "1.5"', '"beta": "x"'), "parameter beta"),
        (lambda text: text.replace("6.0, ", ""), "expected [1, 4], got 3 entries"),
        (lambda text: text.replace("FP32", "FP31"), "unknown datatype 'FP31'"),
        (lambda text: "[]", "damaged: "),
    ],
)
def test_a_damaged_file_is_refused_with_its_path_and_a_way_out(tmp_path, change, said):
    path = written(tmp_path, seen())
    text = path.read_text()
    path.write_text(change(text))
    assert path.read_text() != text
    with pytest.raises(InputError) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: damaged: ")
    assert said in message
    assert message.endswith("write it anew with reverse-sigmoid protect --force, or remove it")


def test_where_there_is_no_file_there_is_no_question(tmp_path):
    assert read(tmp_path / "question.json") == []


def test_strings_are_encoded_as_triton_reads_them():
    tensor = QuestionTensor("x", "BYTES", np.array([b"ab", b""], object))
    assert tensor.encoded() == b"\x02\x00\x00\x00ab\x00\x00\x00\x00"


LEVELS = Calibration(
    classes=4, single=False, log_odds=(1.0, 4.0), confidence=((0.5, 0.9, 0.998),) * 4
)
CALIBRATED = Parameters(scores="logits", defense="calibrated", calibration="c")


def test_a_calibrated_answer_is_told_by_its_flat_rest_where_it_is_near_the_raw_one(tmp_path):
    source = question.AnswerSource(
        lambda feed: feed["x"], Postprocessor(CALIBRATED, table=LEVELS), CALIBRATED, "y", True
    )
    asked = question.choose(source, [{"x": LOGITS}])
    assert asked.looks.tells_raw
    assert asked.looks.least is None  # 0.998 is what the classifier says too
    (back,) = read(written(tmp_path, asked))
    back.looks.judge(source.protect(LOGITS))
    for raw in (softmax(LOGITS, axis=1), softmax(LOGITS, axis=1).astype(np.float16)):
        with pytest.raises(WrongAnswerError, match="had one score") as wrong:
            back.looks.judge(raw)
        assert wrong.value.raw


def test_a_raw_answer_in_the_place_of_a_calibrated_one_is_not_ready():
    answer = Postprocessor(CALIBRATED, table=LEVELS)(LOGITS)
    compare(answer, LOGITS, CALIBRATED)
    for wrong in (softmax(LOGITS, axis=1), answer[:, ::-1]):
        with pytest.raises(WrongAnswerError, match="no calibrated row"):
            compare(wrong, LOGITS, CALIBRATED)


class Served:
    """Triton's answers to a made-up question, by what its tensors are filled with."""

    def __init__(self, raw, protect):
        self.raw, self.protect, self.asked = raw, protect, []

    def ask(self, path):
        tensor = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
        step = {"model_name": "v", "input_map": {"x": "x"}, "output_map": {"s": "inner"}}
        last = {"model_name": "d", "input_map": {"in": "inner"}, "output_map": {"out": "y"}}
        defence = {"scores": "probabilities", "defense": "calibrated", "calibration": "c.json"}
        return {
            "m": {"inputs": [tensor]},
            "m/config": {
                "input": [{"name": "x"}],
                "output": [{"name": "y", "data_type": "TYPE_FP32"}],
                "ensemble_scheduling": {"step": [step, last]},
            },
            "d/config": {"parameters": {k: {"string_value": v} for k, v in defence.items()}},
        }[path]

    def infer(self, model, inputs, output):
        fill = int(inputs[0].values.flat[0])
        self.asked.append((model, fill))
        raw = np.array([self.raw[fill]], np.float32)
        return raw if model == "v" else self.protect(raw)


def labels(raw):
    side = np.where(raw == 0.5, 0.5, np.round(raw))
    return side if raw.shape[1] == 1 else np.eye(raw.shape[1])[raw.argmax(axis=1)]


@pytest.mark.parametrize(
    ("sure", "unsure"), [([1, 0, 0], [0.5, 0.3, 0.2]), ([0.9997], [0.8]), ([0.5], [0.3])]
)
def test_a_right_answer_like_the_raw_one_is_told_by_another_question(sure, unsure):
    for raw in ([sure, unsure], [unsure, sure]):
        served = Served(raw, labels)
        check(served, "m")
        assert ("v", int(raw[0] == sure)) in served.asked
    for raw in ([sure, unsure], [unsure, sure], [sure, sure]):
        with pytest.raises(NotReadyError, match="m: answered with"):
            check(Served(raw, lambda raw: raw), "m")


def test_what_raw_answers_have_too_tells_nothing():
    rows = np.array([[200.0, 0, 0, 0]], np.float32)  # flat as it is
    source = question.AnswerSource(
        lambda feed: feed["x"], Postprocessor(CALIBRATED, table=LEVELS), CALIBRATED, "y", True
    )
    assert not question.choose(source, [{"x": rows}]).looks.flat

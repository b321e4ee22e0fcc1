"""A model of several heads that stands in a repository, protected in place, as files."""

import os
from functools import partial

import pytest
from commands import call_command
from existing_models import contents, heads, of_heads, parsed, undo

from deploy.existing import listing, placing_in, protecting
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError

TOLD = ProtectOptions(scores="logits", multi_label=False, output=("age", "gender"))
OF_ENSEMBLE = ProtectOptions(scores="logits", multi_label=False, output=("years", "sex"))
#: In the order in which they come, the last being the classifier.
STEPS = ["face_gender_reverse_sigmoid", "face_age_reverse_sigmoid", "face_classifier"]


@pytest.fixture(autouse=True)
def no_server_polls(monkeypatch):
    monkeypatch.setattr(placing_in, "SCAN_S", 0)


def test_each_head_gets_a_defence_and_all_is_given_back(tmp_path):
    folder = heads(tmp_path / "models", backend="fil")
    before = contents(tmp_path)
    done = protecting.protect(folder, SHIPPED, TOLD)
    assert done.staged.models == ("face", *STEPS[::-1])
    public, age, gender = (
        parsed(folder.parent / name / "config.pbtxt") for name in ("face", STEPS[1], STEPS[0])
    )
    assert [(one.name, *one.dims) for one in public.output] == [("age", 4), ("gender", 2)]
    assert [one.label_filename for one in public.output] == ["labels.txt", ""]
    assert (folder / "labels.txt").is_file()
    assert [(*one.input[0].dims, one.output[0].name) for one in (age, gender)] == [
        (4, "age"), (2, "gender"),
    ]  # fmt: skip
    behind = parsed(folder.parent / "face_classifier" / "config.pbtxt")
    assert [one.label_filename for one in behind.output] == ["", "", ""]
    with pytest.raises(InputError, match="protected already"):
        protecting.protect(folder, SHIPPED, TOLD)
    assert undo(folder, poll_s=0).removed == STEPS[::-1]
    assert contents(tmp_path) == before


def test_an_ensemble_gets_a_defence_for_each_head_as_its_last_steps(tmp_path):
    folder = of_heads(tmp_path / "models", backend="fil")
    before, original = contents(tmp_path), parsed(folder / "config.pbtxt")
    protecting.protect(folder, SHIPPED, OF_ENSEMBLE)
    after = parsed(folder / "config.pbtxt")
    first, second = (after.ensemble_scheduling.step.pop(2) for _ in range(2))
    assert (first.model_name, second.model_name) == (
        "faces_years_reverse_sigmoid", "faces_sex_reverse_sigmoid",
    )  # fmt: skip
    made = after.ensemble_scheduling.step[1].output_map
    assert (made["age"], made["gender"]) == ("victim_years", "victim_sex")
    assert [dict(one.input_map) for one in (first, second)] == [
        {"victim_years": "victim_years"}, {"victim_sex": "victim_sex"},
    ]  # fmt: skip
    assert [dict(one.output_map) for one in (first, second)] == [{"years": "years"}, {"sex": "sex"}]
    made["age"], made["gender"] = "years", "sex"
    assert after == original
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before


def test_the_scores_of_a_head_that_is_not_named_would_leave_an_ensemble(tmp_path):
    folder = of_heads(tmp_path / "models", backend="fil")
    before = contents(tmp_path)
    one = ProtectOptions(scores="logits", multi_label=False, output=("sex",))
    with pytest.raises(InputError, match="take it out of the ensemble's outputs first"):
        protecting.protect(folder, SHIPPED, one)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("count", range(1, len(STEPS) + 1))
def test_an_attempt_that_stopped_after_any_step_is_undone(tmp_path, count, monkeypatch):
    folder = heads(tmp_path / "models", backend="fil")
    before = contents(tmp_path)

    def stop(staged, repository, steps, name, *, look):
        assert steps == STEPS
        for step in STEPS[:count]:
            os.rename(staged / step, repository / step)
        raise InputError("stopped")

    monkeypatch.setattr(placing_in, "move_in", stop)
    with pytest.raises(InputError, match="stopped"):
        protecting.protect(folder, SHIPPED, TOLD)
    found = listing.look(folder.parent)
    assert (found.undoable, found.unprotected, found.protected) == ([folder], [folder], [])
    with pytest.raises(InputError, match="an earlier protect was not finished: give --undo first"):
        protecting.protect(folder, SHIPPED, TOLD)
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before


def test_a_model_whose_name_ends_like_another_s_head_is_told_from_it(tmp_path):
    face = heads(tmp_path / "models", backend="fil")
    other = heads(tmp_path / "models", "face_gender", backend="fil")
    before = contents(tmp_path)
    protecting.protect(face, SHIPPED, TOLD)
    alone = ProtectOptions(scores="logits", multi_label=False, output=("age",))
    with pytest.raises(InputError, match="face_gender_reverse_sigmoid exists"):
        protecting.protect(other, SHIPPED, alone)
    with pytest.raises(InputError, match="face_gender: nothing to undo"):
        undo(other, poll_s=0)
    undo(face, poll_s=0)
    protecting.protect(other, SHIPPED, alone)
    assert listing.look(face.parent).undoable == [other]
    undo(other, poll_s=0)
    assert contents(tmp_path) == before


def test_heads_are_retuned_one_by_one_labelled_and_written_elsewhere(tmp_path):
    models = tmp_path / "models"
    heads(models, backend="fil")
    told = ("--scores", "logits", "--no-multi-label", "--output", "age", "--output", "gender")
    for words in (
        ("protect", "models/face", "--repository", "out", *told),
        ("protect", "models/face", *told, "--also", "labels"),
        ("retune", "models/face", "--output", "age", "--beta", "0.7"),
        ("retune", "out/face", "--output", "gender", "--beta", "0.9"),
    ):
        done = call_command(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "labels alone" not in done.stdout
    betas = {
        step: parsed(tmp_path / step / "config.pbtxt").parameters["beta"].string_value
        for step in (f"{place}/{one}" for place in ("models", "out") for one in STEPS[:2])
    }
    assert list(betas.values()) == ["1.5", "0.7", "0.9", "1.5"]
    second = parsed(models / "face_labels_age_reverse_sigmoid" / "config.pbtxt")
    assert second.parameters["defense"].string_value == "calibrated"
    undone = undo(models / "face", poll_s=0)
    assert undone.removed[0] == "face_labels"
    assert [one.name for one in models.iterdir()] == ["face"]


def test_heads_are_named_where_several_could_be_the_scores(tmp_path):
    folder = heads(tmp_path / "models", backend="fil")
    for output, said in (
        ((), "name them all: --output gender --output age"),
        (("age", "age"), "--output age: given twice"),
        (("age", "old"), "--output old: no such output of floats; there are gender, age"),
    ):
        asked = partial(ProtectOptions, scores="logits", multi_label=False, output=output)
        with pytest.raises(InputError, match=said):
            protecting.protect(folder, SHIPPED, asked())
    assert [one.name for one in folder.parent.iterdir()] == ["face"]

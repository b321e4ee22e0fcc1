"""Models of a repository that `protect` refuses, with one line and nothing changed on disk."""

import os
import re

import pytest
from commands import call_command
from existing_models import config, contents, elsewhere, linear, pipeline

from deploy.existing import placing_in, protecting
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError

TOLD = ProtectOptions(scores="logits", multi_label=False)


def edited(repository, **said):
    """Write a model of a backend that does not run here, with a config of the test's own."""
    folder = elsewhere(repository, "fil")
    (folder / "config.pbtxt").write_text(config(**{"backend": "fil", **said}))
    return folder


def more(text):
    return lambda repository: edited(repository, more=text)


def protected(repository):
    folder = edited(repository)
    protecting.protect(folder, SHIPPED, TOLD)
    return folder


def behind(repository):
    return protected(repository).parent / "m_classifier"


def defence(repository):
    return protected(repository).parent / "m_reverse_sigmoid"


def inner(repository):
    pipeline(repository)
    return repository / "inner"


def without_config(repository):
    folder = edited(repository)
    (folder / "config.pbtxt").unlink()
    return folder


def nothing(repository):
    (repository / "m").mkdir(parents=True)
    return repository / "m"


def without_versions(repository):
    folder = edited(repository)
    os.rename(folder / "1", folder / "one")
    return folder


def two_versions(repository):
    folder = edited(repository, more="version_policy { all { } }\n")
    (folder / "2").mkdir()
    return folder


def taken(repository):
    (repository / "m_classifier").mkdir(parents=True)
    return edited(repository)


def linked(repository):
    folder = edited(repository)
    os.rename(folder, repository.parent / "elsewhere")
    folder.symlink_to(repository.parent / "elsewhere")
    return folder


def linked_elsewhere(repository):
    folder = edited(repository)
    (repository.parent / "store").mkdir()
    os.rename(folder / "1", repository.parent / "store" / "v1")
    (folder / "1").symlink_to("../../store/v1")
    return folder


def linked_to_itself(repository):
    folder = edited(repository)
    os.rename(folder / "1" / "xgboost.json", folder / "kept.json")
    (folder / "1" / "xgboost.json").symlink_to(folder / "kept.json")
    return folder


def linked_config(repository):
    folder = edited(repository)
    os.rename(folder / "config.pbtxt", repository.parent / "m.pbtxt")
    (folder / "config.pbtxt").symlink_to(repository.parent / "m.pbtxt")
    return folder


def set_aside(repository):
    folder = edited(repository)
    (folder / "2_old").mkdir()
    return folder


def two_floats(repository):
    text = 'output [ { name: "embedding" data_type: TYPE_FP32 dims: [ 8 ] } ]\n'
    folder = edited(repository, more=text)
    path = folder / "config.pbtxt"
    path.write_text(path.read_text().replace('"scores"', '"head"'))
    return folder


def ids(repository):
    folder = edited(repository)
    path = folder / "config.pbtxt"
    text = path.read_text()
    path.write_text(text.replace('"scores" data_type: TYPE_FP32', '"scores" data_type: TYPE_INT64'))
    return folder


def optional(repository):
    folder = edited(repository)
    path = folder / "config.pbtxt"
    path.write_text(path.read_text().replace("dims: [ 6 ]", "dims: [ 6 ] optional: true"))
    return folder


def without_tensors(repository):
    folder = edited(repository)
    (folder / "config.pbtxt").write_text('name: "m"\nbackend: "fil"\n')
    return folder


def of_ensemble(old, new):
    def make(repository):
        folder = pipeline(repository, backend="fil")
        path = folder / "config.pbtxt"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return folder

    return make


STEP = '{ model_name: "scaling" input_map { key: "raw" value: "answer" } output_map '
STEP += '{ key: "x" value: "scaled_again" } }'


def unlabelled(repository):
    return edited(repository, output='label_filename: "labels.txt"')


def escaped(repository):
    folder = unlabelled(repository)
    (folder / "labels.txt").touch()
    path = folder / "config.pbtxt"
    path.write_text(path.read_text().replace('"scores"', r'"sc\157res"'))
    return folder


CASES = {
    "no model": (lambda repository: repository / "nothing", "no such model"),
    "no config": (without_config, "config.pbtxt: no such file, and the embedded Triton does not"),
    "neither config nor version": (nothing, "no config.pbtxt and no version"),
    "a broken config": (more("what?"), "config.pbtxt: 7: "),
    "another name": (lambda r: edited(r, name="other"), "expected the folder's, m, got other"),
    "decoupled": (more("model_transaction_policy { decoupled: true }\n"), "decoupled"),
    "stateful": (more("sequence_batching { }\n"), "sequence_batching"),
    "a parameter that names its folder": (
        more(
            'parameters { key: "EXECUTION_ENV_PATH" '
            'value: { string_value: "/models/m/env.tar.gz" } }\n'
        ),
        "EXECUTION_ENV_PATH: /models/m/env.tar.gz: names the model's own folder",
    ),
    "no floats": (ids, "no output of floats"),
    "no tensors": (without_tensors, "declares no input"),
    "an optional input": (optional, "input x: optional"),
    "several outputs of floats": (two_floats, "--output head"),
    "no version": (without_versions, "no version folder"),
    "two versions served": (two_versions, "versions 1, 2 are served at a time"),
    "protected already": (protected, "protected already"),
    "a classifier behind": (behind, "stands behind m, which is protected already"),
    "a defence": (defence, "a defence itself"),
    "a step of an ensemble": (inner, "the ensemble pipe has it as a step"),
    "an ensemble whose scores feed a step": (
        of_ensemble("  step [", f"  step [ {STEP},"), "its step scaling reads the scores answer"
    ),
    "an ensemble that gives more than scores": (
        of_ensemble(
            "ensemble_scheduling",
            'output [ { name: "more" data_type: TYPE_INT64 dims: [ 4 ] } ]\nensemble_scheduling',
        ),
        "take it out of the ensemble's outputs first",
    ),
    "an ensemble of a model that is not there": (
        of_ensemble('"inner"', '"gone"'), "its step gone is no model of"
    ),
    "a labels file that is not there": (unlabelled, "got labels.txt, which is not there"),
    "a place that is taken": (taken, "m_classifier exists"),
    "a link": (linked, "a link, which cannot be moved"),
    "a relative link out of it": (linked_elsewhere, "make it an absolute one"),
    "an absolute link into it": (linked_to_itself, "make it a relative one"),
    "a link for its config": (linked_config, "a link, and a file would take its place"),
    "a version set aside": (set_aside, "2_old: Triton takes it for the version that its name"),
    "a form that is not known": (escaped, "written in a form that cannot be edited"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_model_is_refused_in_one_line_and_nothing_changes(tmp_path, case):
    make, said = CASES[case]
    folder = make(tmp_path / "models")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        protecting.protect(folder, SHIPPED, TOLD)
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value) or "--output" in str(refused.value)
    assert contents(tmp_path) == before


NOT_TOLD = {
    "nothing": ({}, "--scores logits or --scores probabilities"),
    "labels or classes": ({"scores": "logits"}, "--multi-label or --no-multi-label"),
    "an output that is none": ({"scores": "logits", "output": ("x",)}, "no such output of floats"),
    "two outputs": ({"output": ("scores", "scores")}, "--output scores: given twice"),
}


@pytest.mark.parametrize("case", NOT_TOLD)
def test_what_cannot_be_asked_has_to_be_told(tmp_path, case):
    options, said = NOT_TOLD[case]
    folder = edited(tmp_path / "models")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=re.escape(said)):
        protecting.protect(folder, SHIPPED, ProtectOptions(**options))
    assert contents(tmp_path) == before


def test_an_axis_that_is_not_clear_has_to_be_told(tmp_path):
    folder = edited(tmp_path / "models", dims="5, 7")
    with pytest.raises(InputError, match="say it, for example --class-axis"):
        protecting.protect(folder, SHIPPED, TOLD)


def test_a_file_system_that_cannot_link_or_exchange_is_refused(tmp_path, monkeypatch):
    folder = edited(tmp_path / "models")
    before = contents(tmp_path)

    def refuse(*_, **__):
        raise OSError(95, "Operation not supported", "here")

    with monkeypatch.context() as patch:
        patch.setattr(placing_in, "exchange", refuse)
        with pytest.raises(InputError, match=r"cannot exchange two folders.*give --repository OUT"):
            protecting.protect(folder, SHIPPED, TOLD)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        with pytest.raises(InputError, match=r"no second name.*give --repository OUT"):
            protecting.protect(folder, SHIPPED, TOLD)
        assert contents(tmp_path) == before
        protecting.protect(folder, SHIPPED, TOLD, out=tmp_path / "out")
    assert {path: data for path, data in contents(tmp_path).items() if path[:3] != "out"} == before
    assert (tmp_path / "out" / "m_classifier" / "1" / "xgboost.json").is_file()


OPTIONS = {
    "--name other": "--name: a model that stands in a repository keeps its name",
    "--max-batch-size 3": "--max-batch-size: it is as the model's config.pbtxt says",
    "--layout fused": "--layout fused: the model's files stay as they are",
    "--force": "--force: with a folder",
    "--scores maybe": "--scores: expected logits or probabilities",
    "--undo --scores logits": "--scores: not with --undo",
    "--undo --repository out": "--repository: not with --undo",
    "--repository models": "the model's own; leave it out",
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_do_not_apply_are_refused(tmp_path, options):
    folder = linear(tmp_path / "models")
    before = contents(tmp_path)
    done = call_command("protect", folder, *options.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert OPTIONS[options] in " ".join(done.stderr.split())
    assert contents(tmp_path) == before


@pytest.mark.parametrize("options", ["--undo", "--url 127.0.0.1:1", ""])
def test_a_file_takes_no_options_of_folders(tmp_path, options):
    file = linear(tmp_path / "models") / "1" / "model.onnx"
    done = call_command("protect", file, *options.split(), cwd=tmp_path)
    assert done.returncode == 1
    assert "option '--repository'" in done.stderr or "not with a file" in done.stderr

"""`protect REPOSITORY/NAME` as files: what is written of any backend."""

import shutil

import pytest
from commands import call_command
from existing_models import (
    ELSEWHERE,
    GOLDEN,
    config,
    contents,
    elsewhere,
    parsed,
    pipeline,
    protect,
    undo,
)

from deploy.existing import placing_in, protecting, staging
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from exporters.repository.versions import folders
from postprocess.errors import InputError


@pytest.mark.parametrize("backend", ELSEWHERE)
def test_the_configs_of_a_backend_that_does_not_run_here_equal_golden_files(tmp_path, backend):
    folder = elsewhere(tmp_path / "models", backend)
    original = parsed(folder / "config.pbtxt")
    protect(folder, backend)
    repository = folder.parent
    written = {"public": "m", "classifier": "m_classifier"}
    for golden, name in written.items():
        assert (repository / name / "config.pbtxt").read_text() == (
            GOLDEN / backend / f"{golden}.pbtxt"
        ).read_text(), name
    public, victim, defence = (
        parsed(repository / f"m{end}" / "config.pbtxt")
        for end in ("", "_classifier", "_reverse_sigmoid")
    )
    # All but the name and the labels file of the scores is the owner's.
    victim.name = original.name
    for one, before in zip(victim.output, original.output, strict=True):
        one.label_filename = before.label_filename
    assert victim == original
    assert public.max_batch_size == original.max_batch_size == defence.max_batch_size
    assert public.version_policy == original.version_policy
    tensors = ("name", "data_type", "dims", "label_filename")
    for mine, theirs in zip(
        (*public.input, *public.output), (*original.input, *original.output), strict=True
    ):
        for one in tensors:
            assert getattr(mine, one, "") == getattr(theirs, one, "")
    assert [one.model_name for one in public.ensemble_scheduling.step] == [
        "m_classifier", "m_reverse_sigmoid",
    ]  # fmt: skip
    (given,), (made,) = defence.input, defence.output
    (scores,) = original.output
    assert list(given.dims) == list(made.dims) == list(scores.dims)
    assert given.data_type == made.data_type == scores.data_type
    assert made.name == scores.name
    assert defence.parameters["scores"].string_value == ELSEWHERE[backend][1][1]


def test_the_public_model_has_the_versions_and_the_labels_of_the_original(tmp_path):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    (folder / "4").mkdir()
    (folder / "config.pbtxt").write_text(
        (folder / "config.pbtxt").read_text() + "version_policy { specific { versions: 1 } }\n"
    )
    inode = (folder / "1" / "model.plan").stat().st_ino
    protect(folder, "tensorrt")
    assert [one.name for one in folders(folder)] == ["1", "4"]
    assert (folder / "labels.txt").read_text() == "cat\ndog\nbird\nfish\n"
    behind = folder.parent / "m_classifier"
    assert (behind / "1" / "model.plan").stat().st_ino == inode
    assert not (folder / "1" / "model.plan").exists()


#: Configs as people write them, of one model.
WRITTEN = {
    "line ends of another system": lambda text: text.replace("\n", "\r\n"),
    "one line": lambda text: text.replace("# Ours.\n", "").replace("\n", " "),
    "nothing after the last line": lambda text: text.rstrip("\n") + " # end",
    "a folder of labels": lambda text: text.replace("labels.txt", "all/labels.txt"),
    "tabs, quotes, comments that look like fields": lambda text: (
        """\
\t# name: "x" {
name\t:\t'm.v1' # }

backend:"fil"
max_batch_size :  64
input[{name:"x",data_type:TYPE_FP32,dims:[6]}]
output<name:'scores' # "
 data_type:TYPE_FP32 dims:4 label_filename :
"labels.txt">"""
    ),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_config_may_be_written_in_any_way_and_comes_back_as_it_was(tmp_path, way):
    """The model's name has a dot, its repository is a link, and its labels end in CR LF."""
    folder = elsewhere(tmp_path / "disk", "fil", "m.v1")
    text = config("m.v1", backend="fil", output='label_filename: "labels.txt"')
    (folder / "config.pbtxt").write_bytes(WRITTEN[way](text).encode())
    (folder / "all").mkdir()
    for labels in ("labels.txt", "all/labels.txt"):
        (folder / labels).write_bytes(b"a\r\nb\r\nc\r\nd\r\n")
    (tmp_path / "models").symlink_to(tmp_path / "disk")
    before, linked = contents(tmp_path), tmp_path / "models" / "m.v1"
    told = ProtectOptions(scores="logits", multi_label=False)
    protecting.protect(linked, SHIPPED, told)
    public = parsed(folder / "config.pbtxt")
    assert (folder / public.output[0].label_filename).read_bytes().startswith(b"a\r\n")
    done = call_command("check", tmp_path / "models", cwd=tmp_path)
    assert "0 errors" in done.stdout, done.stdout
    undo(linked, poll_s=0)
    assert contents(tmp_path) == before


def test_links_are_followed_and_so_are_ways_back_and_forth(tmp_path):
    """As a model's version often lies elsewhere, and a path is typed in any way."""
    folder = elsewhere(tmp_path / "models", "fil")
    (folder / "1").rename(tmp_path / "store")
    (folder / "1").symlink_to(tmp_path / "store")
    before = contents(tmp_path)
    told = ProtectOptions(scores="logits", multi_label=False)
    protecting.protect(folder, SHIPPED, told, out=tmp_path / "out")
    copy = tmp_path / "out" / "m_classifier" / "1"
    assert not copy.is_symlink()
    assert (copy / "xgboost.json").is_file()
    shutil.rmtree(tmp_path / "out")

    protecting.protect(folder / ".." / "m", SHIPPED, told)
    assert (tmp_path / "models" / "m_classifier" / "1").readlink() == tmp_path / "store"
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before
    assert (folder / "1").is_symlink()


def test_the_command_says_what_was_told_and_what_was_not_verified(tmp_path):
    folder = elsewhere(tmp_path / "models", "fil")
    options = ELSEWHERE["fil"][1]
    done = call_command("protect", folder, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "told, not verified" in done.stdout
    assert "backend fil does not run in the embedded Triton" in done.stderr
    again = call_command("protect", folder, *options, cwd=tmp_path)
    assert again.returncode == 1
    assert "protected already" in again.stderr
    checked = call_command("check", tmp_path / "models", cwd=tmp_path)
    assert "0 errors" in checked.stdout, checked.stdout


def test_an_ensemble_gets_the_defence_as_its_last_step(tmp_path):
    folder = pipeline(tmp_path / "models", backend="fil")
    before, original = contents(tmp_path), folder.joinpath("config.pbtxt").read_text()
    protect(folder, "fil")
    lines = (folder / "config.pbtxt").read_text().splitlines()
    changed = [one for one in original.splitlines() if one not in lines]
    assert changed == ['      output_map { key: "scores" value: "answer" }']
    steps = parsed(folder / "config.pbtxt").ensemble_scheduling.step
    assert [one.model_name for one in steps] == ["scaling", "inner", "pipe_reverse_sigmoid"]
    assert dict(steps[1].output_map) == {"scores": "victim_scores"}
    assert dict(steps[2].input_map) == {"victim_scores": "victim_scores"}
    assert dict(steps[2].output_map) == {"answer": "answer"}
    assert not (folder.parent / "pipe_classifier").exists()
    with pytest.raises(InputError, match="protected already"):
        protect(folder, "fil")
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before


def test_the_steps_of_an_ensemble_come_along_to_another_repository(tmp_path):
    folder = pipeline(tmp_path / "models", backend="fil")
    before = contents(folder.parent)
    protect(folder, "fil", out=tmp_path / "out")
    assert contents(folder.parent) == before
    with (tmp_path / "out" / "inner" / "config.pbtxt").open("a") as config:
        config.write("# edited in its place\n")
    assert contents(folder.parent) == before
    there = sorted(one.name for one in (tmp_path / "out").iterdir())
    assert there == ["inner", "pipe", "pipe_reverse_sigmoid", "scaling"]
    with pytest.raises(InputError, match="exists; remove it"):
        protect(folder, "fil", out=tmp_path / "out")
    assert not (tmp_path / "out" / "pipe_reverse_sigmoid" / ".reverse_sigmoid").exists()


def test_a_version_that_comes_while_a_model_is_being_protected_is_not_lost(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    write = staging.write_record

    def deploy(model, staged):
        kept = write(model, staged)
        (folder / "2").mkdir()
        (folder / "2" / "xgboost.json").write_bytes(b"newer")
        return kept

    monkeypatch.setattr(staging, "write_record", deploy)
    with pytest.raises(InputError, match="changed while it was being protected; try again"):
        protect(folder, "fil")
    assert sorted(one.name for one in folder.parent.iterdir()) == ["m"]
    assert (folder / "2" / "xgboost.json").read_bytes() == b"newer"


@pytest.mark.parametrize("moment", ["before the exchange", "at the exchange"])
def test_a_version_that_comes_while_a_model_is_moved_in_is_not_lost(tmp_path, monkeypatch, moment):
    folder = elsewhere(tmp_path / "models", "fil")

    def deploy(*arguments):
        if not (folder / "2").exists():
            (folder / "2").mkdir()
            (folder / "2" / "xgboost.json").write_bytes(b"newer")
        if arguments[1:]:
            exchange(*arguments)

    with monkeypatch.context() as patch:
        if moment == "at the exchange":
            exchange = placing_in.exchange
            patch.setattr(placing_in, "refuse_without_exchange", lambda _: None)
            patch.setattr(placing_in, "exchange", deploy)
        else:
            patch.setattr(placing_in.time, "sleep", deploy)
        with pytest.raises(InputError, match=r"changed while it was .* try again, after --undo"):
            protect(folder, "fil")
    assert (folder / "2" / "xgboost.json").read_bytes() == b"newer"
    assert parsed(folder / "config.pbtxt").backend == "fil"
    undo(folder, poll_s=0)
    assert sorted(one.name for one in folder.parent.iterdir()) == ["m"]
    assert (folder / "2" / "xgboost.json").read_bytes() == b"newer"


def test_retune_changes_a_model_that_was_protected_in_place(tmp_path):
    folder = elsewhere(tmp_path / "models", "fil")
    protect(folder, "fil")
    done = call_command("retune", folder, "--beta", "0.7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    defence = parsed(folder.parent / "m_reverse_sigmoid" / "config.pbtxt")
    assert defence.parameters["beta"].string_value == "0.7"
    assert undo(folder, poll_s=0).removed == ["m_classifier", "m_reverse_sigmoid"]


@pytest.mark.parametrize("brackets", ["{}", "<>"])
def test_steps_that_are_written_one_by_one_are_understood(tmp_path, brackets):
    folder = pipeline(tmp_path / "models", backend="fil")
    config, (opened, closed) = folder / "config.pbtxt", brackets
    text = config.read_text().replace("step [\n", "").replace("\n  ]\n}", "\n}")
    text = text.replace("    {\n", f"  step {opened}\n").replace("    },", f"    {closed}")
    text = text.replace('"answer" }\n    }', f"'answer'; }}\n    {closed};")
    config.write_text(text)
    before = parsed(config)
    protect(folder, "fil")
    after = parsed(config)
    last = after.ensemble_scheduling.step.pop()
    assert last.model_name == "pipe_reverse_sigmoid"
    assert after.ensemble_scheduling.step[1].output_map.pop("scores") == "victim_scores"
    assert before.ensemble_scheduling.step[1].output_map.pop("scores") == "answer"
    assert after == before

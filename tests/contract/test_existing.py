"""`protect REPOSITORY/NAME` as files: what is written of any backend, and what is given back."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import victims
from commands import COMMAND, call_command
from existing_models import (
    ELSEWHERE,
    GOLDEN,
    contents,
    elsewhere,
    linear,
    parsed,
    pipeline,
    protect,
)

from deploy.existing import placing_in, staging, undoing
from exporters.repository.versions import folders
from postprocess.errors import InputError


@pytest.fixture(autouse=True)
def no_server_polls(monkeypatch):
    monkeypatch.setattr(placing_in, "SCAN_S", 0)


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


@pytest.mark.parametrize("backend", ELSEWHERE)
def test_undo_gives_every_backend_back_byte_for_byte(tmp_path, backend):
    folder = elsewhere(tmp_path / "models", backend)
    (folder / "empty").mkdir()
    before = contents(tmp_path)
    protect(folder, backend)
    assert contents(tmp_path) != before
    undoing.undo(folder, poll_s=0)
    assert contents(tmp_path) == before


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


MOST_KIB = 200 * 1024


def peak_kib(*arguments, cwd):
    """Return what the command or one of its children held at most."""
    # Linux counts for a process what its parent held when it was started: here a small one.
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", code, COMMAND, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd)
    return int(done.stdout)


@pytest.mark.slow
def test_weights_beside_an_onnx_file_are_copied_without_being_read(tmp_path):
    """An embedding of 2 GiB, of which each request reads some rows."""
    rows, width = 2**22, 128
    weights = {"W": victims.rng().normal(size=(width + 3, 4)).astype(np.float32)}
    path = victims.graph_file(
        tmp_path / "big.onnx",
        [
            victims.node("Gather", ["E", "ids"], ["each"]),
            victims.node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=0),
            victims.node("Concat", ["mean", "x"], ["both"], axis=1),
            victims.node("MatMul", ["both", "W"], ["scores"]),
        ],
        [("ids", victims.INT64, ("N", "L")), ("x", victims.FLOAT, ("N", 3))],
        [("scores", victims.FLOAT, ("N", 4))],
        weights,
    )
    model = onnx.load(path)
    big = model.graph.initializer.add(name="E", data_type=victims.FLOAT, dims=[rows, width])
    big.data_location = onnx.TensorProto.EXTERNAL
    big.external_data.add(key="location", value="big.data")
    path.write_bytes(model.SerializeToString())
    data = tmp_path / "big.data"
    data.touch()
    os.truncate(data, rows * width * 4)
    assert peak_kib("protect", path, "--repository", "models", cwd=tmp_path) < MOST_KIB
    taken = tmp_path / "models" / "big_classifier" / "1" / "big.data"
    assert not taken.samefile(data)
    assert taken.stat().st_size == data.stat().st_size
    taken.unlink()
    # The same model as it would stand in a repository, asked through the embedded Triton.
    folder = tmp_path / "own" / "big"
    os.makedirs(folder / "1")
    for file, name in ((path, "model.onnx"), (data, "big.data")):
        os.link(file, folder / "1" / name)
    config = (tmp_path / "models" / "big_classifier" / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config.replace("big_classifier", "big"))
    assert peak_kib("protect", folder, cwd=tmp_path) < MOST_KIB
    assert (tmp_path / "own" / "big_classifier" / "1" / "big.data").samefile(data)


def test_weights_of_gigabytes_are_moved_and_never_read(tmp_path):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    weights = folder / "1" / "model.plan"
    os.truncate(weights, 2 * 2**30)
    inode = weights.stat().st_ino
    assert peak_kib("protect", folder, *ELSEWHERE["tensorrt"][1], cwd=tmp_path) < MOST_KIB
    assert (tmp_path / "models" / "m_classifier" / "1" / "model.plan").stat().st_ino == inode


#: Protects or undoes, and is killed before one of its 3 moves into or out of the repository, the
#: first being 1, or as the 4th after the last.
KILLED = """\
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from deploy.existing import placing_in, undoing
from existing_models import protect
folder, moves = Path(sys.argv[2]), 0
placing_in.SCAN_S = 0

def killed_at(moves):
    if moves == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

def counted(move):
    def moved(one, other):
        global moves
        here = folder.parent in (Path(one).parent, Path(other).parent)
        moves += here
        killed_at(moves)
        move(one, other)
        if here and moves == 3:
            moves = 4
            killed_at(moves)
    return moved

os.rename, placing_in.exchange = counted(os.rename), counted(placing_in.exchange)
protect(folder, "fil") if sys.argv[3] == "protect" else undoing.undo(folder, poll_s=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moves", range(1, 5))
@pytest.mark.parametrize("command", ["protect", "undo"])
def test_a_kill_at_any_step_leaves_a_whole_model_and_nothing_that_stays(tmp_path, command, moves):
    folder = elsewhere(tmp_path / "models", "fil")
    before = contents(tmp_path)
    if command == "undo":
        protect(folder, "fil")
    script = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), folder, command, moves]
    killed = subprocess.run(list(map(str, script)), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [one for one in os.listdir(tmp_path) if one.startswith(".reverse-sigmoid-")]
    config = parsed(folder / "config.pbtxt")
    holder = "m_classifier" if config.ensemble_scheduling.step else "m"
    assert (folder.parent / holder / "1" / "xgboost.json").read_bytes() == b"fil 1/xgboost.json"
    for step in config.ensemble_scheduling.step:
        assert (folder.parent / step.model_name / "config.pbtxt").is_file()
    if (folder.parent / "m_reverse_sigmoid").exists():
        undoing.undo(folder, poll_s=0)
    else:
        protect(folder, "fil")
        undoing.undo(folder, poll_s=0)
    assert contents(tmp_path) == before


STATES = {
    "the defence alone": ["m_reverse_sigmoid"],
    "all steps": ["m_reverse_sigmoid", "m_classifier"],
}


@pytest.mark.parametrize("state", STATES)
def test_an_attempt_that_stopped_half_way_is_refused_and_undone(tmp_path, state, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    before = contents(tmp_path)

    def stop(staged, repository, steps, name):
        assert steps == STATES["all steps"]
        for step in STATES[state]:
            os.rename(staged / step, repository / step)
        raise InputError("stopped")

    monkeypatch.setattr(placing_in, "move_in", stop)
    with pytest.raises(InputError, match="stopped"):
        protect(folder, "fil")
    half = contents(tmp_path)
    with pytest.raises(InputError, match="an earlier protect was not finished: give --undo first"):
        protect(folder, "fil")
    assert contents(tmp_path) == half
    undoing.undo(folder, poll_s=0)
    assert contents(tmp_path) == before


def test_an_undo_that_stopped_half_way_is_undone_again(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    before = contents(tmp_path)
    protect(folder, "fil")
    with monkeypatch.context() as patch:
        patch.setattr(placing_in, "take_away", lambda *_: None)
        undoing.undo(folder, poll_s=0)
    assert contents(folder) == {
        path.removeprefix("models/m/"): data
        for path, data in before.items()
        if path.startswith("models/m/")
    }
    undoing.undo(folder, poll_s=0)
    assert contents(tmp_path) == before


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
    undoing.undo(folder, poll_s=0)
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


def test_undo_keeps_versions_that_came_since_and_refuses_to_lose_an_edit(tmp_path):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    protect(folder, "tensorrt")
    behind = tmp_path / "models" / "m_classifier"
    (behind / "2").mkdir()
    (behind / "2" / "model.plan").write_bytes(b"newer")
    (behind / "1" / "__pycache__").mkdir()
    (behind / "1" / "__pycache__" / "x.pyc").write_bytes(b"")
    config = behind / "config.pbtxt"
    config.write_text(config.read_text() + "# edited\n")
    with pytest.raises(InputError, match="edited since it was protected"):
        undoing.undo(folder, poll_s=0)
    done = undoing.undo(folder, force=True, poll_s=0)
    assert done.kept == ["2/model.plan"]
    assert (folder / "2" / "model.plan").read_bytes() == b"newer"
    assert not (folder / "1" / "__pycache__").exists()
    assert not behind.exists()


def test_undo_of_what_was_never_protected_changes_nothing(tmp_path):
    folder = linear(tmp_path / "models")
    before = contents(tmp_path)
    done = call_command("protect", folder, "--undo", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing to undo: it was not protected in place" in done.stderr
    assert contents(tmp_path) == before


def test_a_version_that_comes_while_a_model_is_being_protected_is_not_lost(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    write = staging.write_record

    def deploy(model, staged):
        write(model, staged)
        (folder / "2").mkdir()
        (folder / "2" / "xgboost.json").write_bytes(b"newer")

    monkeypatch.setattr(staging, "write_record", deploy)
    with pytest.raises(InputError, match="changed while it was being protected; try again"):
        protect(folder, "fil")
    assert sorted(one.name for one in folder.parent.iterdir()) == ["m"]
    assert (folder / "2" / "xgboost.json").read_bytes() == b"newer"


class Index:
    """A server's answers about the models of a repository, of which it has loaded some."""

    def __init__(self, repository, states):
        self.repository, self.states = repository, states

    def get_model_config(self, name, **_):
        return SimpleNamespace(config=parsed(self.repository / name / "config.pbtxt"))

    def is_model_ready(self, *_, **__):
        return True

    def get_model_repository_index(self, **_):
        models = [SimpleNamespace(name=name, state=state) for name, state in self.states.items()]
        return SimpleNamespace(models=models)


LOADING = "it may be loading m_reverse_sigmoid"


@pytest.mark.parametrize(
    ("state", "old", "said"),
    [
        ("READY", True, ""),
        ("UNAVAILABLE", True, ""),
        ("LOADING", True, LOADING),
        ("", True, LOADING),  # it has not seen it, and will
        ("READY", False, LOADING),  # it may load again what has changed
    ],
)
def test_a_defence_is_not_taken_away_while_a_server_may_be_loading_it(tmp_path, state, old, said):
    folder = elsewhere(tmp_path / "models", "fil")
    original = (folder / "config.pbtxt").read_text()
    protect(folder, "fil")
    served = shutil.copytree(folder.parent, tmp_path / "served")
    steps = ["m_classifier", "m_reverse_sigmoid"]
    for step in steps if old else steps[:1]:
        for path in (folder.parent / step, *(folder.parent / step).rglob("*")):
            os.utime(path, (time.time() - 60,) * 2)
    restored = undoing.Restored(folder, steps, [])
    client = Index(served, {"m_classifier": "READY", "m_reverse_sigmoid": state})
    assert undoing.not_yet(client, restored) == "it still serves the protected model"
    (served / "m" / "config.pbtxt").write_text(original)
    assert undoing.not_yet(client, restored) == said


def test_undo_changes_nothing_of_a_defence_that_a_server_would_load_again(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    protect(folder, "fil")
    step = folder.parent / "m_reverse_sigmoid"
    times = {path: path.lstat().st_mtime_ns for path in (step, *step.rglob("*"))}
    monkeypatch.setattr(placing_in, "take_away", lambda *_: None)
    undoing.undo(folder, poll_s=0)
    assert not parsed(folder / "config.pbtxt").ensemble_scheduling.step
    assert {path: path.lstat().st_mtime_ns for path in (step, *step.rglob("*"))} == times


def test_retune_changes_a_model_that_was_protected_in_place(tmp_path):
    folder = elsewhere(tmp_path / "models", "fil")
    protect(folder, "fil")
    done = call_command("retune", folder, "--beta", "0.7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    defence = parsed(folder.parent / "m_reverse_sigmoid" / "config.pbtxt")
    assert defence.parameters["beta"].string_value == "0.7"
    assert undoing.undo(folder, poll_s=0).removed == ["m_classifier", "m_reverse_sigmoid"]


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

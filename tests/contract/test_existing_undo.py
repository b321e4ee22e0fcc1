"""`protect REPOSITORY/NAME --undo`, and what an attempt that was cut short leaves."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import victims
from commands import call_command
from existing_models import (
    ELSEWHERE,
    contents,
    elsewhere,
    linear,
    parsed,
    protect,
    undo,
)

from deploy.existing import placing_in, undoing
from postprocess.errors import InputError


@pytest.mark.parametrize("backend", ELSEWHERE)
def test_undo_gives_every_backend_back_byte_for_byte(tmp_path, backend):
    folder = elsewhere(tmp_path / "models", backend)
    (folder / "empty").mkdir()
    before = contents(tmp_path)
    protect(folder, backend)
    assert contents(tmp_path) != before
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before


#: Protects or undoes, and is killed before one of its 3 moves into or out of the repository, the
#: first being 1, or as the 4th after the last.
KILLED = """\
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from deploy.existing import placing_in
from existing_models import protect, undo
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
protect(folder, "fil") if sys.argv[3] == "protect" else undo(folder, poll_s=0)
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
        undo(folder, poll_s=0)
    else:
        protect(folder, "fil")
        undo(folder, poll_s=0)
    assert contents(tmp_path) == before


STATES = {
    "the defence alone": ["m_reverse_sigmoid"],
    "all steps": ["m_reverse_sigmoid", "m_classifier"],
}


@pytest.mark.parametrize("state", STATES)
def test_an_attempt_that_stopped_half_way_is_refused_and_undone(tmp_path, state, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    before = contents(tmp_path)

    def stop(staged, repository, steps, name, *, look):
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
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before


def test_an_undo_that_stopped_half_way_is_undone_again(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    before = contents(tmp_path)
    protect(folder, "fil")
    with monkeypatch.context() as patch:
        patch.setattr(placing_in, "take_away", lambda *_: None)
        undo(folder, poll_s=0)
    assert contents(folder) == {
        path.removeprefix("models/m/"): data
        for path, data in before.items()
        if path.startswith("models/m/")
    }
    undo(folder, poll_s=0)
    assert contents(tmp_path) == before


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
        undo(folder, poll_s=0)
    done = undo(folder, force=True, poll_s=0)
    assert done.kept == ["2/model.plan"]
    assert (folder / "2" / "model.plan").read_bytes() == b"newer"
    assert not (folder / "1" / "__pycache__").exists()
    assert not behind.exists()


def test_undo_keeps_what_came_into_the_public_folder(tmp_path):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    protect(folder, "tensorrt")
    (folder / "2").mkdir()
    (folder / "2" / "model.plan").write_bytes(b"newer")
    (folder / "NOTES.txt").write_text("ours")
    (folder / "1" / "model.plan").write_bytes(b"another")
    with pytest.raises(InputError, match=r"m/1/model.plan: came or was edited since .* move one"):
        undo(folder, poll_s=0)
    (folder / "1" / "model.plan").unlink()
    done = undo(folder, poll_s=0)
    assert done.kept == ["2/model.plan", "NOTES.txt"]
    assert done.changed == []
    assert (folder / "2" / "model.plan").read_bytes() == b"newer"
    assert (folder / "NOTES.txt").read_text() == "ours"


def test_undo_names_what_was_written_since(tmp_path):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    protect(folder, "tensorrt")
    (tmp_path / "models" / "m_classifier" / "1" / "model.plan").write_bytes(b"trained again")
    done = call_command("protect", folder, "--undo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "changed    1/model.plan, written since, stays as it is now" in done.stdout
    assert (folder / "1" / "model.plan").read_bytes() == b"trained again"


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("name", ["m", "m_classifier"])
def test_a_file_does_not_replace_a_model_that_was_protected_in_place(tmp_path, layout, name):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    protect(folder, "tensorrt")
    before = contents(tmp_path / "models")
    victims.linear_file(tmp_path / f"{name}.onnx")
    done = call_command(
        "protect", f"{name}.onnx", "--repository", "models", "--layout", layout, "--force",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "models/m: protected in place" in done.stderr
    assert "reverse-sigmoid protect models/m --undo" in done.stderr
    assert contents(tmp_path / "models") == before


def test_undo_of_what_was_never_protected_changes_nothing(tmp_path):
    folder = linear(tmp_path / "models")
    before = contents(tmp_path)
    done = call_command("protect", folder, "--undo", cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing to undo: it was not protected in place" in done.stderr
    assert contents(tmp_path) == before


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


MAY_BE = "it may be loading m_reverse_sigmoid"


@pytest.mark.parametrize(
    ("state", "old", "said"),
    [
        ("READY", True, ""),
        ("UNAVAILABLE", True, ""),
        ("LOADING", True, "it is loading m_reverse_sigmoid"),
        ("", True, MAY_BE),  # it has not seen it, and will
        ("READY", False, MAY_BE),  # it may load again what has changed
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
    restored = undoing.Undone(folder, steps, [], [])
    client = Index(served, {"m_classifier": "READY", "m_reverse_sigmoid": state})
    assert undoing.not_yet(client, restored) == "it still serves the protected model"
    (served / "m" / "config.pbtxt").write_text(original)
    assert undoing.not_yet(client, restored) == said


def test_a_server_that_is_seen_to_be_slow_is_given_longer(tmp_path, monkeypatch):
    """Python writes beside model.py while it is loaded, which is seen by the scan after that."""
    folder = elsewhere(tmp_path / "models", "fil")
    served = shutil.copytree(folder.parent, tmp_path / "served")
    protect(folder, "fil")
    step, asked = folder.parent / "m_reverse_sigmoid", []

    class Slow(Index):
        def get_model_repository_index(self, **_):
            asked.append(time.monotonic())
            if asked[-1] < asked[0] + 1:
                os.utime(step)
                return Index(served, {"m_reverse_sigmoid": "LOADING"}).get_model_repository_index()
            return super().get_model_repository_index()

    client = Slow(served, {"m_classifier": "READY", "m_reverse_sigmoid": "READY"})
    monkeypatch.setattr(undoing, "connect", lambda url: nullcontext(client))
    monkeypatch.setattr(placing_in, "POLL_S", 0.5)
    undo(folder, url="127.0.0.1:1")
    loading = [at for at in asked if at < asked[0] + 1]  # the change is there from the last on
    assert asked[-1] > loading[-1] + 0.45 + (loading[-1] - asked[0])
    assert [one.name for one in folder.parent.iterdir()] == ["m"]


def test_undo_changes_nothing_of_a_defence_that_a_server_would_load_again(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    protect(folder, "fil")
    step = folder.parent / "m_reverse_sigmoid"
    times = {path: path.lstat().st_mtime_ns for path in (step, *step.rglob("*"))}
    monkeypatch.setattr(placing_in, "take_away", lambda *_: None)
    undo(folder, poll_s=0)
    assert not parsed(folder / "config.pbtxt").ensemble_scheduling.step
    assert {path: path.lstat().st_mtime_ns for path in (step, *step.rglob("*"))} == times


def test_an_interrupted_wait_is_not_begun_anew_long_after(tmp_path, monkeypatch):
    folder = elsewhere(tmp_path / "models", "fil")
    before = contents(folder)
    protect(folder, "fil")
    said = []

    def interrupted(seconds):
        assert 0 < seconds <= 20
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            undo(folder, tell=said.append)
    (line,) = said
    assert line.startswith("m: back in place. A server that polls the repository may take ")
    assert contents(folder) == before
    assert (folder.parent / "m_reverse_sigmoid").is_dir()
    for path in folder.parent.rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)
    undo(folder, tell=said.append)
    assert len(said) == 1
    assert [one.name for one in folder.parent.iterdir()] == ["m"]

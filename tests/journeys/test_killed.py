"""Trainings that are killed, or find a full disk, wherever: one line, and the next call goes on."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from commands import (
    COMMAND,
    Running,
    call_command,
    processes_naming,
    run_on_a_full_disk,
    wait_for_no_process_naming,
)

pytestmark = pytest.mark.slow

PART = ("paper", "figure7", "--scale", "smoke", "--jobs", 1, "--out")
#: So many that a first can be seen, and the command be killed, long before the last is made.
MORE, RUNS = ("paper", "table4", *PART[2:]), 13
FRONTIER = (sys.executable, "-m", "deploy.benchmarks.frontier", "--data", "digits", "--seeds", 1)


def worker(out):
    """Return the id of the process that makes the runs of a folder, None while there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"load_tests.runs.worker" in words and str(out / "smoke" / "victims").encode() in words:
            return int(entry.name)
    return None


def one_line(done, *said):
    """Assert that a command failed with one line of its own, and what it says."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert all(each in last for each in said), done.stderr


def test_the_paper_goes_on_wherever_it_was_killed(tmp_path):
    out = tmp_path / "o"
    victims, runs = out / "smoke" / "victims", out / "smoke" / "runs"

    def trained():
        return list(victims.glob("*/victim.json"))

    with Running(*MORE, out, cwd=tmp_path) as running:
        running.wait_until(lambda: worker(out) is not None)
        os.kill(worker(out), signal.SIGKILL)
        running.wait_for("FAILED: its process ended; stderr may say why; it is made again")
        running.wait_until(trained)
        running.stop(signal.SIGKILL)
    wait_for_no_process_naming(out)
    before = {path: path.stat().st_mtime_ns for path in trained()}
    kept = len(list(runs.glob("*.json")))
    left = victims / "digits-mlp-200-s0" / ".logits.npz.abc.part"
    left.write_bytes(b"half")

    done = run_on_a_full_disk(1, COMMAND, *MORE, out, cwd=tmp_path)
    one_line(done, f"reverse-sigmoid: {runs}", ".json: File too large")
    assert not left.exists()

    done = call_command(*MORE, out, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == RUNS - kept
    assert len(list(runs.glob("*.json"))) == RUNS
    after = {path: path.stat().st_mtime_ns for path in trained()}
    assert before.items() <= after.items()
    assert not list(out.rglob(".*.part"))


def test_a_victim_that_finds_the_disk_full_is_trained_by_the_next_call(tmp_path):
    done = run_on_a_full_disk(8, COMMAND, *PART, "o", cwd=tmp_path)
    one_line(done, "2 runs failed", "o/smoke/victims/digits-mlp-200-s0/weights.npz: File too")
    assert not list(tmp_path.rglob("victim.json"))
    assert not list(tmp_path.rglob(".*.part"))
    done = run_on_a_full_disk(4, *FRONTIER, "--kinds", 1, "--out", "f", cwd=tmp_path)
    one_line(done, "frontier: ", "runs failed", "weights.npz: File too large")


@pytest.mark.parametrize("words", [(COMMAND, *PART), (*FRONTIER, "--out")])
def test_a_folder_that_takes_no_files_is_one_line(words, tmp_path):
    done = run_on_a_full_disk(9999, *words, "/sys/o", cwd=tmp_path)
    one_line(done, ": /sys/o")
    assert not processes_naming("/sys/o")

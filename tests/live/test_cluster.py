"""Runs made by Dask's workers, which are lost, as are their scheduler and the command."""

import json
import signal

import numpy as np
import pytest
from clusters import DaskCluster
from commands import (
    PATIENCE_S,
    Running,
    call_command,
    processes_naming,
    run_command,
    wait_for_no_process_naming,
)
from onnx import TensorProto, helper
from victims import graph_file

from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED

pytestmark = pytest.mark.slow

PART = ("paper", "figure7", "--scale", "smoke", "--out", "o")
#: Its runs among so many that the first can be seen long before the last is made.
MORE = ("paper", "table4", *PART[2:])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("cluster"), workers=2) as started:
        yield started


@pytest.fixture
def cluster(shared):
    """Two workers, whatever became of those of the test before."""
    shared.fill(2)
    return shared


def runs(folder):
    return sorted((folder / "o" / "smoke" / "runs").glob("*.json"))


def working(cluster):
    """Return the worker whose process is at work, None while there is none."""
    found = [at for at in cluster.living() if at_work(cluster.home(at))]
    return found[0] if found else None


def at_work(home):
    return any("load_tests.runs.worker" in command for command in processes_naming(home))


def begun(cluster, tmp_path, part=PART):
    """Start a command, and return it when a worker is at work for it."""
    running = Running(*part, "--scheduler", cluster.address, cwd=tmp_path)
    running.wait_until(lambda: working(cluster) is not None)
    return running


def told_lost(running):
    """Return what a command said of workers that were lost."""
    said = running.stderr.read_text().splitlines()
    lost = [line for line in said if "made again" in line]
    assert all("FAILED: its worker tcp://127.0.0.1:" in line for line in lost)
    return lost


def test_what_a_lost_worker_did_is_made_again_and_without_any_it_is_said_what_to_do(
    cluster, tmp_path
):
    with begun(cluster, tmp_path) as running:
        cluster.kill(working(cluster))
        running.wait_until(lambda: runs(tmp_path))  # the other trained their victim again
        assert told_lost(running)
        running.wait_until(lambda: working(cluster) is not None)  # at the next of them
        cluster.kill(working(cluster))
        assert running.process.wait(PATIENCE_S) == 1
    said = running.stderr.read_text()
    assert "Traceback" not in said
    assert said.count(f"--scheduler {cluster.address}: all its workers were lost; what had") == 1
    assert f"dask worker {cluster.address}; then the same command goes on" in said
    kept = {path: path.read_bytes() for path in runs(tmp_path)}
    cluster.fill(2)
    with begun(cluster, tmp_path) as running:
        lost = working(cluster)
        cluster.kill(lost)
        assert running.process.wait(PATIENCE_S) == 0, running.stderr.read_text()
    assert len(told_lost(running)) == 1
    assert len(runs(tmp_path)) == 4
    assert all(path.read_bytes() == content for path, content in kept.items())
    wait_for_no_process_naming(cluster.home(lost))


def test_a_command_that_ends_leaves_nothing_at_the_workers(cluster, tmp_path):
    before = sessions(cluster)
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        with begun(cluster, tmp_path) as running:
            assert running.stop(number) == code
        for at in cluster.living():
            wait_for_no_process_naming(cluster.home(at) / "dask-scratch-space")
        if number == signal.SIGINT:
            assert "interrupted; the same command goes on" in running.stderr.read_text()
            assert sessions(cluster) == before
    given = ("--jobs", 1, "--scheduler", cluster.address, "--json")
    done = run_command(*PART, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == len(runs(tmp_path)) == 4


def sessions(cluster):
    """Return the folders of commands at the workers."""
    return set(cluster.folder.rglob("reverse-sigmoid-*"))


def test_a_lost_scheduler_is_one_line_and_what_it_leaves_goes_on_without_it(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    with DaskCluster(folder, workers=1) as own:
        with begun(own, tmp_path, MORE) as running:
            running.wait_until(lambda: runs(tmp_path))
            own.scheduler.kill()
            assert running.process.wait(PATIENCE_S) == 1
        wait_for_no_process_naming(own.home(0) / "dask-scratch-space")
    said = running.stderr.read_text()
    assert "Traceback" not in said
    assert said.count(f"--scheduler {own.address}: was lost; what had finished is kept") == 1
    kept = {path: path.read_bytes() for path in runs(tmp_path)}
    # Victim and runs of this machine beside those.
    done = run_command(*PART, "--jobs", 1, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == len(runs(tmp_path)) - len(kept) < 4
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_tune_has_its_trainings_made_of_a_file_that_only_this_machine_has(cluster, tmp_path):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(600, 6)).astype("f4"), rng.integers(0, 3, 600)
    rows[np.arange(600), labels] += 3
    np.savez(tmp_path / "own.npz", x_train=rows[:450], y_train=labels[:450],
             x_test=rows[450:], y_test=labels[450:])  # fmt: skip
    graph_file(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["rows"], ["scores_"]),
         helper.make_node("Gemm", ["scores_", "W"], ["scores"])],
        [("rows", TensorProto.FLOAT, ("N", 6))], [("scores", TensorProto.FLOAT, ("N", 3))],
        {"W": np.eye(6, 3, dtype=np.float32)},
    )  # fmt: skip
    protect(tmp_path / "m.onnx", tmp_path / "models", SHIPPED, ProtectOptions())
    done = run_command(
        *("tune", "--repository", "models", "--data", "own.npz", "--out", "o", "--json"),
        *("--queries", 64, "--steps", 2, "--betas", "1.5", "--gammas", "0.2,0.4"),
        *("--scheduler", cluster.address),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["candidates"] == 2
    assert "2 workers, a run of 1 threads each" in done.stderr
    made = [json.loads(path.read_text()) for path in (tmp_path / "o" / "runs").glob("*.json")]
    assert {one["made_with"]["threads"] for one in made} == {1}
    assert len({one["victim_digest"] for one in made}) == 1


def test_a_scheduler_that_is_none_is_one_line(tmp_path):
    for given, said in (
        ("127.0.0.1:8786", "--scheduler: expected tcp://HOST:PORT or tls://HOST:PORT"),
        ("tcp://127.0.0.1:9", "--scheduler tcp://127.0.0.1:9: "),
        ("tls://127.0.0.1:9", "needs Dask's certificates of a client: DASK_DISTRIBUTED__COMM"),
    ):
        done = call_command(*PART, "--scheduler", given, cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1

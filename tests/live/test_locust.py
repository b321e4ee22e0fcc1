"""The real Locust, as a person runs it, against the real server."""

import csv
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from commands import run_command

from exporters import datasets
from load_tests.transfer_set_file import TransferSetFile

LOCUSTFILE = Path(__file__).parents[2] / "load_tests" / "locustfile.py"
POOL = datasets.hold_off(datasets.load("digits"), seed=0).adversary_images
THIEVES = ("--sample-thieves", 2, "--random-thieves", 1, "--jacobian-thieves", 1)
BUDGET, BATCH = 64, 16


def locust(*options, cwd):
    """Start locust in a folder of its own; what it says is in its file locust.txt."""
    cwd.mkdir(exist_ok=True)
    with (cwd / "locust.txt").open("wb") as said:
        command = [Path(sys.prefix) / "bin" / "locust", "-f", LOCUSTFILE, *options]
        return subprocess.Popen(
            list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )


def load(server, transfer_sets, *, seconds, thieves=THIEVES):
    return (
        *("--host", server.grpc_url, "--headless", "-u", 8, "-r", 8, "--run-time", f"{seconds}s"),
        *("--csv", "load", "--html", "load.html", "--transfer-sets", transfer_sets, *thieves),
        *("--query-budget", BUDGET, "--thief-batch", BATCH, "--think-time", 0.2),
    )


def ended(process, *, timeout_s=90):
    """Wait for it to end by itself, and never for good."""
    try:
        return process.wait(timeout_s)
    finally:
        process.kill()


def statistics(folder):
    """Return Locust's own counts: name to (requests, failures)."""
    with (folder / "load_stats.csv").open(newline="") as file:
        return {
            row["Name"]: (int(row["Request Count"]), int(row["Failure Count"]))
            for row in csv.DictReader(file)
        }


def test_normal_users_and_thieves_are_told_apart_and_thieves_spend_their_budgets(server, tmp_path):
    folder, sets = tmp_path / "run", tmp_path / "sets"
    process = locust(*load(server, sets, seconds=25), cwd=folder)
    assert ended(process) == 0, (folder / "locust.txt").read_text()
    counts = statistics(folder)
    assert set(counts) == {
        *("digits normal", "digits thief sample", "digits thief random", "digits thief jacobian"),
        "Aggregated",
    }
    assert all(failures == 0 for _, failures in counts.values())
    assert counts["digits normal"][0] > 10
    assert counts["digits thief sample"][0] == 2 * BUDGET / BATCH
    assert counts["digits thief random"][0] == BUDGET / BATCH
    page = (folder / "load.html").read_text()
    assert all(name in page for name in counts)
    taken = {}
    for one in ("sample-0-0", "sample-0-1", "random-0-0", "jacobian-0-0"):
        about = json.loads((sets / one / "attack.json").read_text())
        assert about["attack"] == one.partition("-")[0]
        assert about["queries"] == BUDGET
        taken[one] = TransferSetFile(sets / one, POOL).read()
        assert len(taken[one]) == BUDGET
        assert np.abs(taken[one].scores.sum(axis=1) - 1).max() < 1e-5
    assert not np.array_equal(taken["sample-0-0"].images, taken["sample-0-1"].images)

    report = run_command(
        *("attack", "sample", "--from-transfer-set", sets / "sample-0-0", "--steps", 1),
        *("--url", server.grpc_url, "--model", "digits", "--out", "theft", "--json"),
        cwd=tmp_path,
    )
    assert report.returncode == 0, report.stderr
    (result,) = json.loads(report.stdout)["results"]
    assert result["queries"] == BUDGET


def test_two_workers_steal_what_their_master_counts(server, tmp_path):
    sets = tmp_path / "sets"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = ("--expect-workers", 2, "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    thieves = ("--sample-thieves", 2, "--random-thieves", 2)
    options = load(server, sets, seconds=10, thieves=thieves)
    master = locust("--master", *workers, *options, cwd=tmp_path / "master")
    distant = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
    others = [locust(*distant, cwd=tmp_path / f"worker-{number}") for number in (0, 1)]
    try:
        assert ended(master) == 0, (tmp_path / "master" / "locust.txt").read_text()
        assert [ended(worker) for worker in others] == [0, 0]
    finally:
        for process in (master, *others):
            process.kill()
    counts = statistics(tmp_path / "master")
    assert all(failures == 0 for _, failures in counts.values())
    folders = [folder.name for folder in sets.iterdir()]
    assert sorted(name.partition("-")[0] for name in folders) == ["random"] * 2 + ["sample"] * 2
    assert {name.split("-")[1] for name in folders} == {"0", "1"}  # both workers had thieves
    requests = {"sample": 0, "random": 0}
    for name in folders:
        lines = (sets / name / "requests.log").read_text().splitlines()
        assert len(TransferSetFile(sets / name, POOL).read()) == BUDGET
        requests[name.partition("-")[0]] += len(lines)
    for attack, sent in requests.items():
        assert counts[f"digits thief {attack}"] == (sent, 0)


def test_what_cannot_be_loaded_is_refused_at_once(tmp_path):
    options = ("--headless", "-u", 1, "--run-time", "5s", "--host", "127.0.0.1:9")
    process = locust(*options, "--data", "mnits", cwd=tmp_path)
    assert ended(process, timeout_s=30) == 2
    assert "locust: unknown data set 'mnits'" in (tmp_path / "locust.txt").read_text()

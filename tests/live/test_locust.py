"""The real Locust, as a person runs it, against the real server."""

import json
import signal
import time

import numpy as np
from commands import PATIENCE_S, call_command, wait_until
from locusts import ended, locust, statistics, stopped_when_spent
from ports import free_port

from exporters.training import datasets
from load_tests.stealing.transfer_set_file import TransferSetFile

POOL = datasets.hold_off(datasets.load("digits"), seed=0).adversary_images
THIEVES = ("--sample-thieves", 2, "--random-thieves", 1, "--jacobian-thieves", 1)
BUDGET, BATCH = 64, 16


def load(server, transfer_sets, *, thieves=THIEVES):
    return (
        *("--host", server.grpc_url, "--headless", "-u", 8, "-r", 8),
        *("--run-time", f"{PATIENCE_S}s"),  # it is stopped before, see ``stopped_when``
        *("--csv", "load", "--html", "load.html", "--transfer-sets", transfer_sets, *thieves),
        *("--query-budget", BUDGET, "--thief-batch", BATCH, "--think-time", 0.2),
    )


def test_normal_users_and_thieves_are_told_apart_and_thieves_spend_their_budgets(server, tmp_path):
    folder, sets = tmp_path / "run", tmp_path / "sets"
    process = locust(*load(server, sets), cwd=folder)
    code = stopped_when_spent(process, folder, requests=4 * BUDGET / BATCH)
    assert code == 0, (folder / "locust.txt").read_text()
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
    assert not np.array_equal(taken["sample-0-0"].rows, taken["sample-0-1"].rows)

    report = call_command(
        *("attack", "sample", "--from-transfer-set", sets / "sample-0-0", "--steps", 1),
        *("--url", server.grpc_url, "--model", "digits", "--out", "theft", "--json"),
        cwd=tmp_path,
    )
    assert report.returncode == 0, report.stderr
    (result,) = json.loads(report.stdout)["results"]
    assert result["queries"] == BUDGET


def test_two_workers_steal_what_their_master_counts(server, tmp_path):
    sets = tmp_path / "sets"
    port = free_port()
    workers = ("--expect-workers", 2, "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    thieves = ("--sample-thieves", 2, "--random-thieves", 2)
    options = load(server, sets, thieves=thieves)
    master = locust("--master", *workers, *options, cwd=tmp_path / "master")
    distant = ("--worker", "--master-host", "127.0.0.1", "--master-port", port)
    others = [locust(*distant, cwd=tmp_path / f"worker-{number}") for number in (0, 1)]
    said = tmp_path / "master" / "locust.txt"
    try:
        wait_until(lambda: "2 workers connected" in said.read_text())
        for number, pause in ((signal.SIGSTOP, 6), (signal.SIGCONT, 0)):  # as on a busy machine
            for worker in others:
                worker.send_signal(number)
            time.sleep(pause)
        code = stopped_when_spent(master, tmp_path / "master", requests=4 * BUDGET / BATCH)
        assert code == 0, said.read_text()
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
    assert ended(process) == 2
    assert "locust: unknown data set 'mnits'" in (tmp_path / "locust.txt").read_text()

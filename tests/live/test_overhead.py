"""What the defence costs, measured on the real server; never how fast it is."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from commands import SOON_S, Running, call_command, run_command
from ports import free_ports

from deploy.triton.server import TritonServer
from load_tests.asking.endpoint import EndpointError, connect
from load_tests.timing.closed_loop import ClosedLoop
from load_tests.timing.flood import Flood, FloodOptions
from load_tests.timing.prepared import Preparer

LATENCIES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
RATES = ("requests_per_second", "rows_per_second")


def models(url):
    return "--url", url, "--protected", "digits", "--unprotected", "digits_classifier"


def thieves(folder):
    """Return the living processes that a measurement has started in its folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                started = b"--multiprocessing-fork" in (entry / "cmdline").read_bytes()
                if started and (entry / "cwd").readlink() == folder:
                    found.append(entry.name)
    return found


def has_begun(thief):
    """Return whether it has been told what to do: it has a connection beside its parent's pipe."""
    with contextlib.suppress(OSError):
        files = [os.readlink(one) for one in (Path("/proc") / thief / "fd").iterdir()]
        return sum(one.startswith("socket:") for one in files) > 1
    return False


def wait_until_none(processes):
    deadline = time.monotonic() + SOON_S
    while found := processes():
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("overhead")
    short = ("--seconds", "0.4", "--rounds", "4", "--seed", "3")
    return folder, run_command(
        *("overhead", *models(server.grpc_url), "--batch", "1,300,8", "--concurrency", "1,3"),
        *(*short, "--data", "digits", "--under-attack", "--json", "--out", "overhead.json"),
        cwd=folder,
    )


@pytest.fixture(scope="module")
def report(run):
    _, done = run
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_report_says_how_to_run_it_again(run, report, server):
    folder, _ = run
    assert json.loads((folder / "overhead.json").read_text()) == report
    assert report["command"].startswith("reverse-sigmoid overhead --url 127.0.0.1:")
    said = {"protected": "digits", "unprotected": "digits_classifier", "data": "digits"}
    said |= {"seed": 3, "seconds": 0.4, "rounds": 4, "cpu_count": os.cpu_count()}
    assert said.items() <= report.items()
    assert report["triton_version"] == server.version()


@pytest.mark.parametrize("cells", ["cells", "cells_under_attack"])
def test_every_cell_is_measured_for_both_models(report, cells):
    grid = [(one["batch"], one["concurrency"]) for one in report[cells]]
    assert grid == [(1, 1), (1, 3), (8, 1), (8, 3)]
    for cell in report[cells]:
        for role in ("protected", "unprotected"):
            model = cell[role]
            assert 0 < model["latency_p50_ms"] <= model["latency_p95_ms"] <= model["latency_p99_ms"]
            assert model["requests"] >= 4 * cell["concurrency"]
            assert model["errors"] == 0
            assert model["rows_per_second"] == pytest.approx(
                cell["batch"] * model["requests_per_second"]
            )
            assert model["requests_per_second"] > 0


@pytest.mark.parametrize("cells", ["cells", "cells_under_attack"])
def test_ratios_are_protected_to_unprotected_and_within_their_intervals(report, cells):
    for cell in report[cells]:
        for measure in (*LATENCIES, *RATES):
            ratio = cell["ratio"][measure]
            assert ratio["value"] == pytest.approx(
                cell["protected"][measure] / cell["unprotected"][measure]
            )
            assert 0 < ratio["low"] <= ratio["high"]


def test_the_measuring_overhead_is_reported(report):
    overhead = report["measuring_overhead"]
    assert (overhead["batch"], overhead["concurrency"]) == (1, 1)
    assert overhead["model"] == "digits_classifier"
    assert overhead["latency_p50_ms"] == report["cells"][0]["unprotected"]["latency_p50_ms"]
    assert overhead["ratio"]["value"] == pytest.approx(
        overhead["latency_p50_ms"] / overhead["bare_latency_p50_ms"]
    )
    assert overhead["ratio"]["low"] <= overhead["ratio"]["high"]


def test_a_refused_batch_is_said_to_be_skipped(report):
    assert [(one["batch"], one["concurrency"]) for one in report["skipped"]] == [(300, 1), (300, 3)]
    assert (
        "digits refuses it: inference request batch-size must be <= 256"
        in (report["skipped"][0]["why"])
    )


def test_the_thief_queried_and_is_gone(run, report):
    assert report["thief"]["rows_per_second"] > 0
    assert report["thief"]["errors"] == 0
    assert (report["thief"]["concurrency"], report["thief"]["batch"]) == (4, 8)
    assert thieves(run[0]) == []


def test_progress_goes_to_stderr_and_the_table_to_stdout(server, tmp_path):
    done = run_command(
        *("overhead", *models(server.grpc_url), "--batch", "2,999", "--concurrency", "2"),
        *("--seconds", "0.2", "--rounds", "2"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "[2/2] batch 2, 2 at once: " in done.stderr
    for text in ("p50, ms", "p95, ms", "p99, ms", "requests/s", "rows/s", "unprotected"):
        assert text in done.stdout
    assert "skipped batch 999, 2 at once: digits refuses it: " in done.stdout
    assert "Measuring overhead: p50 " in done.stdout
    assert "random input, seed 0, 0.2 s of each model in up to 2 rounds" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--protected", "digit"), "model digit: Request for unknown model: 'digit' is not found"),
        (("--unprotected", "raw"), "model raw: Request for unknown model: 'raw' is not found"),
        (("--batch", "300,999"), "no batch is left to measure; batch 300: digits refuses it: "),
    ],
)
def test_bad_input_is_refused_in_one_line(server, tmp_path, arguments, said):
    done = call_command("overhead", *models(server.grpc_url), *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_each_client_has_a_connection_of_its_own(server):
    def sockets():
        found = 0
        for entry in Path("/proc/self/fd").iterdir():
            if entry.is_symlink() and str(entry.readlink()).startswith("socket:"):
                found += 1
        return found

    with closing(connect(server.grpc_url)) as client, ClosedLoop(server.grpc_url, 6) as loop:
        request = Preparer(client, server.grpc_url, "digits").request(
            1, rng=np.random.default_rng(0)
        )
        before = sockets()
        loop.run([request], clients=6, seconds=0.05)
        assert sockets() - before == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_thief_goes_with_a_measurement_that_is_stopped(server, tmp_path, number):
    arguments = ("--batch", "1", "--concurrency", "1", "--rounds", "2", "--under-attack")
    command = ("overhead", *models(server.grpc_url), *arguments)
    # The thief comes after the first cell, which is as long as the second.
    with Running(*command, "--seconds", "2", cwd=tmp_path) as measuring:
        measuring.wait_for("[1/2]")
        measuring.wait_until(lambda: any(map(has_begun, thieves(tmp_path))))
        code = measuring.stop(number)
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    wait_until_none(lambda: thieves(tmp_path))
    assert "Traceback" not in measuring.stderr.read_text()


def test_the_thief_ends_by_itself_in_the_end(server):
    """Were its parent to forget it, it would still be bounded."""
    flood = Flood(FloodOptions(server.grpc_url, "digits", seed=0, bound_s=0.5))
    with flood:
        wait_until_none(multiprocessing.active_children)
    assert flood.done["requests"] > 0
    assert 0.5 <= flood.done["seconds"] < 10


def test_a_thief_that_dies_is_noticed(server):
    flood = Flood(FloodOptions(server.grpc_url, "digits", seed=0, bound_s=600))
    with pytest.raises(EndpointError, match="did not say what it did"), flood:
        saw_it_die(flood)


def saw_it_die(flood):
    flood.check()
    (thief,) = multiprocessing.active_children()
    thief.kill()
    thief.join()
    with pytest.raises(EndpointError, match="the thief ended early: exit code -9"):
        flood.check()


def test_a_thief_that_cannot_begin_says_why(server):
    with pytest.raises(EndpointError, match=r"ended early: .*model digit: Request for unknown"):
        Flood(FloodOptions(server.grpc_url, "digit", seed=0, bound_s=600)).__enter__()
    assert multiprocessing.active_children() == []


def test_a_server_that_goes_away_is_counted_as_errors(repository, tmp_path):
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server:
        arguments = ("--batch", "1", "--concurrency", "1,2", "--seconds", "1", "--rounds", "2")
        command = ("overhead", *models(server.grpc_url), *arguments, "--json")
        with Running(*command, cwd=tmp_path) as measuring:
            measuring.wait_for("[1/2]")
            os.kill(server.pid, signal.SIGKILL)  # while the second cell is measured
            code = measuring.process.wait(SOON_S)
    assert code == 0, measuring.stderr.read_text()
    first, second = json.loads(measuring.stdout.read_text())["cells"]
    assert first["protected"]["errors"] == 0
    assert second["protected"]["errors"] + second["unprotected"]["errors"] > 0

"""Every way to defend, built and measured; and what serving holds in memory."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import call_command, run_command, wait_for_no_process_naming
from onnx import TensorProto, helper
from ports import free_ports
from victims import graph_file

from deploy.benchmarks import rivals, serving
from deploy.triton.server import TritonServer
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from load_tests.asking.endpoint import connect
from load_tests.timing.closed_loop import ClosedLoop

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def test_every_way_is_measured_beside_the_victim_alone(exported, tmp_path):
    out = tmp_path / "benchmark.json"
    least = ("--batch", 2, "--concurrency", 2, "--seconds", 0.2, "--rounds", 2)
    options = ("--model", "digits", "--data", "digits", "--out", out)
    done = run_command("benchmark", "--repository", exported, *options, *least, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    (cell,) = report["cells"]
    assert tuple(cell["ways"]) == rivals.WAYS
    for way, found in cell["ways"].items():
        assert found["errors"] == 0, way
        assert found["requests"] > 0
        assert found["latency_p50_ms"] > 0
        assert found["cpu_seconds_per_1000_rows"] >= 0
        assert way.split()[0] in done.stdout  # long names are broken over lines
    assert cell["ways"][rivals.VICTIM]["ratio"]["latency_p50_ms"]["value"] == 1
    assert report["machine"]["cpu_count"] == os.cpu_count()
    wait_for_no_process_naming(tmp_path)


def test_what_a_way_refuses_is_named_and_the_rest_is_kept(exported, tmp_path):
    out, models = tmp_path / "benchmark.json", tmp_path / "models"
    onnx = exported / "digits_classifier" / "1" / "model.onnx"
    made = call_command("protect", onnx, "--name", "digits", "--repository", models,
                        "--max-client-batch", 1, cwd=tmp_path)  # fmt: skip
    assert made.returncode == 0, made.stderr
    least = ("--batch", "1,2,300", "--concurrency", 1, "--seconds", 0.2, "--rounds", 2)
    options = ("--model", "digits", "--ways", "ensemble,labels only", "--out", out)
    done = call_command("benchmark", "--repository", models, *options, *least, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert [(one["batch"], sorted(one["ways"])) for one in report["cells"]] == [
        (1, ["ensemble", "labels only", "victim alone"]),
        (2, ["labels only", "victim alone"]),
    ]
    assert [(one["batch"], one["way"]) for one in report["skipped"]] == [
        (2, "ensemble"), (300, "victim alone"),
    ]  # fmt: skip
    for one in report["skipped"]:
        assert "batch-size must be <=" in one["why"]
        assert f"skipped {one['way']}, batch {one['batch']}, 1 at once: {one['why']}" in done.stderr
    assert report["command"].startswith("reverse-sigmoid benchmark")
    assert "2 x 1" in done.stdout
    assert max(map(len, done.stdout.split("Ratios to")[0].splitlines())) <= 100
    nothing = call_command("benchmark", "--repository", models, "--model", "digits", *least[2:],
                           "--batch", 300, "--ways", "ensemble", cwd=tmp_path)  # fmt: skip
    assert nothing.returncode == 1
    assert nothing.stderr.endswith("benchmark: no cell could be measured, see above\n")


class Overwhelmed(ClosedLoop):
    """Clients of whom the second gets no answer of one model, as from one that is too slow."""

    def run(self, requests, *, clients, seconds):
        made = super().run(requests, clients=clients, seconds=seconds)
        late = clients > 1 and requests[0].model == "digits"
        return replace(made, errors=1, error="Deadline Exceeded") if late else made


def test_a_way_that_is_too_slow_for_so_many_costs_no_other_cell(exported, monkeypatch):
    monkeypatch.setattr(serving, "ClosedLoop", Overwhelmed)
    asked = serving.ServingOptions(
        repository=exported, model="digits", ways=(rivals.VICTIM, rivals.ENSEMBLE, *rivals.THREADS),
        batches=(1,), concurrencies=(1, 2), seconds=0.2, rounds=2, seed=0,
    )  # fmt: skip
    kept = []
    report = serving.run(
        asked, stages=lambda _: nullcontext, keep=lambda report: kept.append(len(report["cells"]))
    )
    others = ["default threads", "instance a core", "no spinning", "one thread"]
    assert [sorted(cell["ways"]) for cell in report["cells"]] == [
        [*others[:1], "ensemble", *others[1:], "victim alone"],
        [*others, "victim alone"],
    ]
    why = "1 of 2 clients got no answer: Deadline Exceeded"
    assert report["skipped"] == [{"batch": 1, "concurrency": 2, "way": "ensemble", "why": why}]
    assert kept == [1, 2]


def test_threads_are_chosen_by_measurement_and_remembered_where_they_are_served(exported, tmp_path):
    models, out = tmp_path / "models", tmp_path / "benchmark.json"
    shutil.copytree(exported, models)
    least = ("--batch", 1, "--concurrency", 2, "--seconds", 0.2, "--rounds", 2)
    options = ("--repository", models, "--model", "digits", "--choose-threads", "--out", out)
    done = call_command("benchmark", *options, *least, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(out.read_text())["cells"]
    # What the file says already is not measured twice.
    assert list(cell["ways"]) == ["victim alone", "one thread", "no spinning", "instance a core"]
    chosen = (models / "digits_classifier" / "config.pbtxt").read_text()
    reason = " ".join(chosen.partition("# Threads: ")[2].replace("#  ", "").split())
    assert "by `benchmark --choose-threads`" in reason
    assert reason.partition(" parameters {")[0].split("CPUs")[0] in " ".join(done.stderr.split())
    with TritonServer(models, ports=free_ports(), log=tmp_path / "log") as server:
        assert all(model.ready for model in server.models())


def test_two_servers_are_compared_by_turns(exported, tmp_path):
    out = tmp_path / "servers.json"
    with TritonServer(exported, ports=free_ports(), log=tmp_path / "log") as server:
        url = server.grpc_url
        asked = (url, url, "--model", "digits", "--model", "digits_classifier", "--data", "digits")
        done = subprocess.run(
            [sys.executable, "-m", "deploy.benchmarks.servers", *asked, "--out", out,
             "--seconds", "0.2", "--rounds", "2"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert [(one["batch"], one["concurrency"]) for one in report["cells"]] == [
        (1, 1), (1, 8), (1, 32), (32, 8),
    ]  # fmt: skip
    for cell in report["cells"]:
        for model in ("digits", "digits_classifier"):
            found = cell["models"][model]
            before, after = (found[name]["rows_per_second"] for name in ("before", "after"))
            assert found["ratio"]["rows_per_second"]["value"] == pytest.approx(after / before)
            assert found["before"]["requests"] > 0
            assert f"| {cell['batch']} x {cell['concurrency']} | {model} |" in done.stdout


def test_the_ways_that_defend_give_the_same_answers(exported, tmp_path):
    ways = (rivals.VICTIM, rivals.ENSEMBLE, rivals.FUSED, rivals.ONE_PROCESS, rivals.BLS)
    models = rivals.build(exported, "digits", (*ways, rivals.LABELS), tmp_path / "models")
    rng = np.random.default_rng(0)
    image = rng.random((16, 8, 8, 1)).astype(np.float32)
    with (
        TritonServer(tmp_path / "models", ports=free_ports(), log=tmp_path / "log") as server,
        connect(server.grpc_url) as client,
    ):
        answers = {way: ask(client, model, "image", image) for way, model in models.items()}
    labels = answers.pop(rivals.LABELS)
    logits = answers.pop(rivals.VICTIM)
    assert (labels[:, 0] == logits.argmax(axis=1)).all()
    for way, answer in answers.items():
        assert np.abs(answer - answers[rivals.ENSEMBLE]).max() <= 1e-6, way


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--ways", "fused,faster"),
            "--ways: expected some of victim alone, ensemble, empty step, fused",
        ),
        (
            ("--choose-threads", "--ways", "fused"),
            "--ways: expected some of default threads, one thread, no spinning, instance a core",
        ),
        (("--batch", "0"), "--batch: expected whole numbers from 1 to 65536"),
        (("--model", "digits_classifier"), "expected a protected model"),
    ],
)
def test_what_cannot_be_measured_is_refused(exported, tmp_path, options, said):
    given = ("--repository", exported, "--model", "digits", *options)
    done = call_command("benchmark", *given, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


def ask(client, model, name, array):
    from tritonclient.grpc import InferInput

    tensor = InferInput(name, array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    result = client.infer(model, [tensor])
    return result.as_numpy(result.get_response().outputs[0].name)


def resident_mib(server):
    """Triton's and its Python processes' memory, but for what they share with each other."""
    pids = [server.pid, *(pid for pids in server.stubs().values() for pid in pids)]
    held = 0
    for pid in pids:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        held += int(resident) - int(shared)
    return held * PAGE_MIB


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_a_thousand_big_requests_leave_memory_flat(tmp_path, layout, monkeypatch):
    path = graph_file(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["x"], ["scores"])],
        [("x", TensorProto.FLOAT, ("N", 1000))],
        [("scores", TensorProto.FLOAT, ("N", 1000))],
    )
    asked = ProtectOptions(layout=layout, scores="logits")
    protect(path, tmp_path / "models", SHIPPED, asked)
    rows = np.random.default_rng(0).normal(size=(128, 1000)).astype(np.float32) * 3
    # What is freed goes back to the system at once: by itself glibc keeps a heap for each thread,
    # and they grow for 1500 requests before they stand still.
    for name, value in (("ARENA_MAX", 1), ("MMAP_THRESHOLD_", 2**16), ("TRIM_THRESHOLD_", 2**16)):
        monkeypatch.setenv(f"MALLOC_{name}", str(value))
    with (
        TritonServer(tmp_path / "models", ports=free_ports(), log=tmp_path / "log") as server,
        connect(server.grpc_url) as client,
    ):

        def least_mib(requests):
            held = []
            for number in range(requests):
                answer = ask(client, "m", "x", rows)
                assert answer.shape == rows.shape
                if number % 10 == 0:
                    held.append(resident_mib(server))
            return min(held)

        least_mib(200)
        windows = [least_mib(100)]
        while len(windows) < 4 and (
            len(windows) < 2 or windows[-1] - windows[-2] > 0.05 * windows[-2]
        ):
            least_mib(800)  # on a busy machine a heap may grow once more, a leak does so each time
            windows.append(least_mib(100))
    # A request is half a MiB, and a hundredth of each kept would be 4.5 MiB, of some 68.
    assert windows[-1] - windows[-2] <= 0.05 * windows[-2], windows

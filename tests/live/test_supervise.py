"""Processes that die or fall silent while they are served."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from commands import SOON_S, processes_naming, wait_until
from ports import free_port, free_ports
from serving import CLASSIFIER, DEFENCE, IMAGES, Load
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from deploy.supervision.supervisor import Supervisor
from deploy.triton.server import Ports, ServerError, TritonServer
from exporters.files.atomic_file import write_text
from load_tests.asking.endpoint import Endpoint, EndpointError

RAISES = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        error = pb_utils.TritonError("broken")
        return [pb_utils.InferenceResponse([], error) for _ in requests]
"""


MEMORY = Path("/dev/shm")  # noqa: S108
KILLED, STOPPED = signal.SIGKILL, signal.SIGSTOP
#: Now and then Triton 2.51 does not survive the death of a process that shares its memory.
ABORTED = "Triton stopped by itself with exit code -6"


@pytest.mark.parametrize(
    ("mode", "outages"),
    [
        ("poll", [(CLASSIFIER, KILLED), (DEFENCE, KILLED), (DEFENCE, STOPPED)]),
        ("explicit", [(DEFENCE, KILLED)]),
    ],
)
def test_dead_and_silent_models_are_loaded_again_without_a_raw_answer(serve, mode, outages):
    with serve("--model-control-mode", mode) as serving, Load(serving) as clients:
        regions = serving.shared_memory()
        assert list(MEMORY.glob(regions))
        for number, (model, how) in enumerate(outages, 1):
            for stub in serving.settled_stubs(model):
                os.kill(stub, how)
            serving.wait_for_recovery(number)
            (down, *_) = [x for x in serving.said.splitlines() if "digits: DOWN" in x][number - 1 :]
            assert f"at fault: {model}" in down or ABORTED in down
            serving.wait_until(lambda: serving.answers_with(beta=1.5))
        # On a busy machine the reload may take too long, and Triton is restarted after it.
        aborts = serving.said.count(f"digits: DOWN: {ABORTED}")
        assert serving.said.count("touched the files of ") == len(outages) - aborts
        clients.__exit__()
        assert clients.errors
        assert clients.raw_answers() == 0
        assert clients.answers_other_than(1.5) == 0
        serving.wait_until(lambda: serving.status["state"] == "ready")
        assert serving.status["recoveries"] == len(outages)
        assert serving.stop() == 0
    assert list(MEMORY.glob(regions)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_triton_that_stops_or_falls_silent_is_restarted(serve, number):
    with serve() as serving, Load(serving) as clients:
        first = serving.status["triton_pid"]
        os.kill(first, number)
        serving.wait_for_recovery()
        assert "restarting Triton, 1 of at most 5" in serving.said
        serving.wait_until(lambda: serving.answers_with(beta=1.5))
        before = len(clients.answers)
        serving.wait_until(lambda: len(clients.answers) > before)
        clients.__exit__()
        assert clients.errors
        assert clients.raw_answers() == 0
        assert clients.answers_other_than(1.5) == 0
        serving.wait_until(lambda: serving.status["state"] == "ready")
        assert serving.status["triton_pid"] != first
        assert serving.status["restarts"] == 1
        assert serving.stop() == 0


def test_a_triton_that_computes_is_given_time_to_answer(serve, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools\nfrom deploy.processes import cpu\n"
        "counted = itertools.count()\ncpu.nanoseconds = lambda pid: next(counted)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with serve() as serving:
        first = serving.status["triton_pid"]

        def said_of_it():
            assert "DOWN" not in serving.said
            return serving.status["models"]["digits"]["reason"] or ""

        os.kill(first, signal.SIGSTOP)  # and to serve it computes
        serving.wait_until(lambda: "but it computes" in said_of_it())
        os.kill(first, signal.SIGCONT)
        serving.wait_until(lambda: serving.answers_with(beta=1.5))
        serving.wait_until(lambda: not said_of_it())
        assert (serving.status["triton_pid"], serving.status["restarts"]) == (first, 0)
        assert serving.stop() == 0


def test_memory_of_a_request_that_is_cut_short_costs_a_restart_and_no_raw_answer(serve):
    whole = IMAGES.tobytes()
    with (
        tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="request_") as memory,
        serve() as serving,
        Load(serving) as clients,
        grpc.InferenceServerClient(serving.url) as client,
    ):
        memory.write(whole)
        memory.flush()
        client.register_system_shared_memory("request", f"/{Path(memory.name).name}", len(whole))
        tensor = grpc.InferInput("image", IMAGES.shape, "FP32")
        tensor.set_shared_memory("request", len(whole))

        def ask():
            return client.infer("digits", [tensor], client_timeout=60).as_numpy("scores")

        assert np.abs(ask() - serving.expected(beta=1.5)).max() <= 1e-5
        memory.truncate(len(whole) // 2)  # the kernel fills its last page with zeros
        with Endpoint(serving.url, CLASSIFIER) as victim:
            rest = victim(np.concatenate([IMAGES[:4], np.zeros_like(IMAGES[4:])]))
        assert np.abs(ask() - serving.expected(beta=1.5, logits=rest)).max() <= 1e-5
        memory.truncate(0)  # Triton reads it where it is and is killed by SIGBUS
        with pytest.raises(InferenceServerException):
            ask()
        serving.wait_for_recovery()
        assert "Triton stopped by itself with exit code -7" in serving.said
        serving.wait_until(lambda: serving.answers_with(beta=1.5))
        clients.__exit__()
        assert clients.errors
        assert clients.raw_answers() == 0
        assert clients.answers_other_than(1.5) == 0
        assert serving.stop() == 0


def test_a_model_that_no_reload_mends_is_restarted_and_then_given_up(serve):
    with serve("--max-restarts", 1, "--model-control-mode", "none") as serving:
        (serving.repository / DEFENCE / "1" / "model.py").write_text(RAISES)
        os.kill(serving.stubs(DEFENCE)[0], signal.SIGKILL)
        assert serving.process.wait(SOON_S) == 1
        assert "restarting Triton, 1 of at most 1" in serving.said
        last = serving.said.splitlines()[-1]
        assert last.startswith(
            "reverse-sigmoid: giving up after 1 restarts of Triton within 10 minutes: digits: "
        )
        assert "broken" in last
        assert serving.status["state"] == "failed"


def test_a_dead_defence_whose_file_is_refused_waits_for_the_repair(serve):
    with serve() as serving:
        serving.edit('"1.5"', '"-1"')
        serving.wait_for("EDIT REFUSED")
        os.kill(serving.status["triton_pid"], signal.SIGKILL)
        serving.wait_for("digits: STAYS DOWN until this is mended: ")
        serving.wait_until(lambda: serving.status["state"] == "failed")
        assert serving.status["restarts"] == 1
        serving.edit('"-1"', '"0.5"')
        serving.wait_for_recovery()
        serving.wait_until(lambda: serving.answers_with(beta=0.5))
        assert serving.stop() == 0


def test_ctrl_c_while_triton_restarts_leaves_nothing_behind(serve):
    with serve() as serving:
        os.kill(serving.status["triton_pid"], signal.SIGKILL)
        serving.wait_for("restarting Triton")
        assert serving.stop() == 0
        assert processes_naming(serving.repository) == []


def test_without_supervision_serve_ends_with_triton(serve, tmp_path):
    with serve("--no-supervise") as serving:
        (triton,) = {os.getpgid(stub) for stub in serving.stubs(DEFENCE)}
        os.kill(triton, signal.SIGKILL)
        assert serving.process.wait(SOON_S) == 1
        assert "Triton stopped by itself with exit code -9" in serving.said
        assert not serving.status_file.exists()


def test_a_triton_that_dies_before_it_is_first_asked_is_one_clear_error(repository, tmp_path):
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server:
        os.kill(server.pid, KILLED)
        with pytest.raises(ServerError, match="Triton stopped by itself with exit code -9"):
            Supervisor(server, print)


def test_a_repository_that_was_never_served_is_loaded_once(repository, tmp_path):
    for written in repository.rglob("__pycache__"):  # where others have served what it is a copy of
        shutil.rmtree(written)
    log, ports = tmp_path / "triton.log", free_ports()
    with TritonServer(repository, ports=ports, log=log, control_mode="poll"):
        time.sleep(5)  # it looks for changes every second
        assert log.read_text().count(f"loading: {DEFENCE}:1") == 1


def refusal(url):
    """What digits answers where it answers with an error."""
    try:
        with Endpoint(url, "digits") as endpoint:
            endpoint(IMAGES[:1])
    except EndpointError as error:
        return str(error)
    return ""


def test_a_refusal_right_after_a_reload_is_not_laid_on_the_process_that_it_ended(
    repository, tmp_path
):
    said, log, config = [], tmp_path / "triton.log", repository / DEFENCE / "config.pbtxt"
    with TritonServer(repository, ports=free_ports(), log=log, control_mode="poll") as server:
        supervisor = Supervisor(server, said.append)
        write_text(config, config.read_text().replace('"logits"', '"probabilities"'))
        wait_until(lambda: "set up anew" in refusal(f"127.0.0.1:{server.ports.grpc}"))
        # As on a busy machine, where several rounds see the old process beside the new one.
        supervisor._watched["digits"]._stubs[DEFENCE] = [0, 0, 0]
        supervisor._round()
        assert supervisor._status().models["digits"].reason.startswith("REFUSED by its defence: ")
        assert not [line for line in said if "touched" in line]


@pytest.mark.parametrize("late", ["http", "metrics"])
def test_a_triton_is_live_once_it_listens_at_all_its_ports(server, tmp_path, late):
    """It opens that of gRPC first; who asked at another just then was refused."""
    ports = vars(server.ports)
    for expected, asked in ((True, ports), (False, ports | {late: free_port()})):
        same = TritonServer(server.repository, ports=Ports(**asked), log=tmp_path / "triton.log")
        assert same._is_live() is expected

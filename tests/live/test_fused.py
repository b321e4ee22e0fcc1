"""The fused layout on the real server: one model, retuned, hurt and exchanged while it answers."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
import oracle
import pytest
from commands import Running, call_command, wait_for_no_process_naming
from gateways import Gated, write_files
from ports import free_ports
from serving import IMAGES, PAUSE_S, port_options, stubs_of

from exporters.files.atomic_file import atomic_file
from exporters.repository.model_repository import onnx_path
from load_tests.asking.endpoint import Endpoint, EndpointError, connect

SHIPPED, OTHER = {"beta": 1.5, "gamma": 0.2}, {"beta": 0.9, "gamma": 0.1}


@pytest.fixture(scope="module")
def protected(exported, tmp_path_factory):
    """A repository of the fused layout; not to be changed."""
    folder = tmp_path_factory.mktemp("fused")
    classifier = onnx_path(exported, "digits")
    options = ("--repository", "models", "--name", "digits", "--layout", "fused")
    done = call_command("protect", classifier, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "models"


@pytest.fixture
def repository(protected, tmp_path):
    import shutil

    return Path(shutil.copytree(protected, tmp_path / "models"))


@pytest.fixture
def logits(exported):
    session = onnxruntime.InferenceSession(
        str(onnx_path(exported, "digits")), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": IMAGES})[0]


@pytest.fixture
def serving(repository, tmp_path):
    ports = free_ports()
    status = tmp_path / "status.json"
    options = (*port_options(ports), "--model-control-mode", "poll", "--status-file", status)
    with Running("serve", repository, *options, cwd=tmp_path) as server:
        server.wait_for("Ctrl-C stops")
        server.url, server.status = f"127.0.0.1:{ports.grpc}", status
        yield server
    wait_for_no_process_naming(repository)


def expected(logits, setting):
    return oracle.protected(logits, kind="logits", margin=0.01, preserve_top1=True, **setting)


def ask(server):
    with Endpoint(server.url, "digits", timeout_s=60) as endpoint:
        return endpoint(IMAGES)


def answers(server, wanted):
    try:
        return np.abs(ask(server) - wanted).max() <= 1e-5
    except EndpointError:
        return False


class Client(threading.Thread):
    """Asks all the time; keeps answers and errors."""

    def __init__(self, server):
        super().__init__()
        self.endpoint, self.answers, self.errors = Endpoint(server.url, "digits"), [], []
        self.stopped = threading.Event()

    def run(self):
        with self.endpoint:
            while not self.stopped.is_set():
                try:
                    self.answers.append(self.endpoint(IMAGES))
                except EndpointError as error:
                    self.errors.append(str(error))
                time.sleep(PAUSE_S)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def in_force(server):
    parameters = json.loads(server.status.read_text())["models"]["digits"]["parameters"]
    return {key: float(parameters[key]) for key in ("beta", "gamma")}


def near(rows, wanted):
    return np.abs(np.array(rows) - wanted).max(axis=(1, 2)) <= 1e-5


def test_one_model_is_served_and_no_other_name_or_output_can_be_asked_for(serving, logits):
    from tritonclient.grpc import InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    assert np.abs(ask(serving) - expected(logits, SHIPPED)).max() <= 1e-6
    assert "raw" not in serving.stdout.read_text()
    image = InferInput("image", IMAGES.shape, "FP32")
    image.set_data_from_numpy(IMAGES)
    with connect(serving.url) as client:
        assert [one.name for one in client.get_model_repository_index().models] == ["digits"]
        for output in ("reverse_sigmoid/victim_scores", "logits", "victim_scores"):
            with pytest.raises(InferenceServerException, match="unexpected inference output"):
                client.infer("digits", [image], outputs=[InferRequestedOutput(output)])


def test_retuned_under_load_no_request_fails_and_each_answer_is_the_old_or_the_new(
    serving, repository, logits
):
    before, after = expected(logits, SHIPPED), expected(logits, OTHER)
    assert in_force(serving) == SHIPPED
    with Client(serving) as client:
        serving.wait_until(lambda: len(client.answers) > 20)
        options = ("--beta", OTHER["beta"], "--gamma", OTHER["gamma"])
        done = call_command("retune", repository / "digits", *options, cwd=repository)
        assert done.returncode == 0, done.stderr
        serving.wait_until(lambda: answers(serving, after))
    assert client.errors == []
    old, new = near(client.answers, before), near(client.answers, after)
    assert (old | new).all()
    assert old[0]
    serving.wait_for("digits: new parameters in force: ")
    serving.wait_until(lambda: in_force(serving) == OTHER)
    said = serving.stderr.read_text()
    assert said.count("in force") == 1
    assert "DOWN" not in said


def test_a_dead_process_is_brought_back_and_answers_the_same(serving, repository, logits):
    for stub in stubs_of(repository, "digits"):
        os.kill(stub, signal.SIGKILL)
    serving.wait_for("answers again")
    assert answers(serving, expected(logits, SHIPPED))


def test_a_graph_without_its_defence_does_not_take_the_place_of_one_with_it(
    serving, repository, exported, logits
):
    path = repository / "digits" / "1" / "model.onnx"
    with Client(serving) as client:
        with atomic_file(path) as part:
            part.write_bytes(onnx_path(exported, "digits").read_bytes())
        serving.wait_until(
            lambda: "it holds none" in (Path(serving.stdout.parent) / "triton.log").read_text()
        )
        time.sleep(2)
    assert client.answers
    assert near(client.answers, expected(logits, SHIPPED)).all()
    serving.wait_for(
        f"digits: EDIT REFUSED: {path}: expected a fused defence, the graph holds none"
    )
    assert in_force(serving) == SHIPPED
    done = call_command("check", repository, cwd=repository)
    assert done.returncode == 1
    assert f"{path}: expected a fused defence, the graph holds none" in done.stdout


def test_an_ensemble_that_ends_in_a_fused_model_is_watched_too(repository, tmp_path):
    (repository / "wrapped" / "1").mkdir(parents=True)
    (repository / "wrapped" / "config.pbtxt").write_text(
        'name: "wrapped" platform: "ensemble" max_batch_size: 256 '
        'input { name: "image" data_type: TYPE_FP32 dims: [ 8, 8, 1 ] } '
        'output { name: "scores" data_type: TYPE_FP32 dims: [ 10 ] } '
        'ensemble_scheduling { step { model_name: "digits" model_version: -1 '
        'input_map { key: "image" value: "image" } output_map { key: "scores" value: "scores" } } }'
    )
    with Running("serve", repository, *port_options(free_ports()), cwd=tmp_path) as server:
        server.wait_for("Ctrl-C stops")
        assert "Asked every 1 s: digits, wrapped\n" in server.stdout.read_text()
        assert server.stop() == 0


def test_a_gateway_lets_clients_reach_a_fused_model(repository, tmp_path, logits):
    files = write_files(tmp_path, more="queries_per_request: 256\n")
    with Gated(repository, files, cwd=tmp_path) as gated:
        with Endpoint(files.url, "digits", access=files.access("bob")) as endpoint:
            assert np.abs(endpoint(IMAGES) - expected(logits, SHIPPED)).max() <= 1e-6
        assert gated.stop() == 0

"""Reasons read out of a made-up log of Triton's, which begins as every one without a GPU."""

import threading

import pytest

from deploy.triton import server as triton_server
from deploy.triton import server_log
from deploy.triton.server import ModelError, Ports, ServedModel, TritonServer

NOISE = [
    'E0101 10:00:00.000001 7 server.cc:241] "CudaDriverHelper has not been initialized."',
    'W0101 10:00:00.000002 7 server.cc:251] "failed to enable peer access for some device pairs"',
    "Error: Failed to initialize NVML",
]
CONFIG = "/models/defence/config.pbtxt"
LOAD = (
    "E0101 10:00:02.000001 7 model_lifecycle.cc:642] \"failed to load 'defence' version 1: "
    f"Internal: TritonModelException: {CONFIG}: parameter beta: expected a number, got -1"
    '\\n\\nAt:\\n  /site/postprocess/triton_model.py(50): initialize\\n"'
)
STEP = (
    "E0101 10:00:02.000002 7 model_repository_manager.cc:703] \"Invalid argument: ensemble 'digits'"
    " depends on 'defence' which has no loaded version. Model 'defence' loading failed\""
)
PARSE = [
    "[libprotobuf ERROR text_format.cc:337] Error parsing text-format inference.ModelConfig: "
    "35:49: Expected string, got: 1.5",
    "E0101 10:00:01.000001 7 model_repository_manager.cc:1460] \"Poll failed for model directory "
    f"'defence': failed to read text proto from {CONFIG}\"",
    'E0101 10:00:01.000002 7 model_repository_manager.cc:703] "Invalid argument: ensemble digits '
    'contains models that are not available or ambiguous: defence"',
]  # fmt: skip
SHAPE = (
    'E0101 10:00:01.000003 7 model_repository_manager.cc:703] "Invalid argument: in ensemble '
    'digits, ensemble tensor victim_scores: inconsistent shape"'
)
SOCKET = (
    'E0101 10:00:03.000001 7 main.cc:203] "failed to start GRPC service: Unavailable - '
    "Socket '127.0.0.1:8001' already in use \""
)


@pytest.fixture
def log(tmp_path):
    def write(*lines):
        path = tmp_path / "triton.log"
        path.write_text("\n".join([*NOISE, *lines]) + "\n")
        return path

    return write


def test_a_model_is_refused_for_its_own_reason_and_for_no_other_line(log):
    reason = f"{CONFIG}: parameter beta: expected a number, got -1"
    assert server_log.refusal(log(LOAD, STEP), 0, "defence") == reason
    assert server_log.refusal(log(STEP, LOAD, SOCKET), 0, "defence") == reason
    for other in ("digits", "defenc", "defence2", "classifier", "."):
        assert server_log.refusal(log(LOAD, STEP), 0, other) is None


@pytest.mark.parametrize("find", [server_log.refusal, server_log.missing_step])
def test_a_model_that_the_log_does_not_name_has_no_reason_yet(log, find):
    assert find(log(), 0, "defence") is None
    assert find(log(SOCKET), 0, "defence") is None
    assert find(log().with_name("absent.log"), 0, "defence") is None


def test_the_last_reason_since_the_start_counts(log):
    path = log(LOAD)
    start = server_log.size(path)
    assert server_log.refusal(path, start, "defence") is None
    with path.open("a") as file:
        file.write(LOAD.replace("got -1", "got -2") + "\n" + LOAD.replace("got -1", "got -3"))
    assert server_log.refusal(path, start, "defence").endswith("got -3")


def test_a_config_that_does_not_parse_is_refused_with_its_place(log):
    reason = f"failed to read text proto from {CONFIG}: 35:49: Expected string, got: 1.5"
    assert server_log.refusal(log(*PARSE), 0, "defence") == reason
    assert server_log.refusal(log(*PARSE[1:]), 0, "defence") == reason.partition(": 35")[0]


def test_an_ensemble_is_refused_for_its_tensors_or_for_the_want_of_a_step(log):
    assert "inconsistent shape" in server_log.refusal(log(SHAPE), 0, "digits")
    assert server_log.missing_step(log(SHAPE), 0, "digits") is None
    for lines in ([LOAD, STEP], PARSE):
        assert server_log.refusal(log(*lines), 0, "digits") is None
        assert "defence" in server_log.missing_step(log(*lines), 0, "digits")


def test_what_ends_triton_is_its_first_error_that_means_something(log):
    said = server_log.first_error(log(SOCKET), 0)
    assert said == (
        "failed to start GRPC service: Unavailable - Socket '127.0.0.1:8001' already in use"
    )
    path = log()
    assert server_log.first_error(path, 0) == f"see {path}"


@pytest.fixture
def server(log, monkeypatch):
    """A Triton that has tried all models and says of none why it is not ready."""
    path = log()
    made = TritonServer(path.parent, ports=Ports(), log=path)
    made._log_start = 0
    models = [
        ServedModel(name, "", ready=False, reason="", summary="") for name in ("digits", "defence")
    ]
    monkeypatch.setattr(made, "models", lambda: models)
    return made


def test_a_reason_that_comes_late_is_waited_for(server):
    def write_late():
        with server.log.open("a") as file:
            file.write(f"{LOAD}\n{STEP}\n")

    late = threading.Timer(0.1, write_late)
    late.start()
    with pytest.raises(ModelError) as refusal:
        server._refuse_models_not_ready()
    late.join()
    assert str(refusal.value) == (
        f"model defence did not load: {CONFIG}: parameter beta: expected a number, got -1"
    )


def test_a_reason_that_never_comes_is_not_made_up(server, monkeypatch):
    monkeypatch.setattr(triton_server, "REASON_TIMEOUT_S", 0.2)
    with pytest.raises(ModelError) as refusal:
        server._refuse_models_not_ready()
    assert str(refusal.value) == f"model digits did not load; see {server.log}"

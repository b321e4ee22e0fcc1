import os
import re
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import Running, processes_naming, run_command, wait_for_no_process_naming
from gateways import write_files
from ports import free_ports
from serving import port_options

from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.operator_file import Address, read
from deploy.gateway.process import Gateway
from deploy.processes import die_with_parent
from deploy.triton.server import TritonServer
from load_tests.asking.endpoint import Endpoint

DEFENCE = "digits_reverse_sigmoid"


@pytest.fixture
def ports():
    return free_ports()


@pytest.fixture
def serving(repository, ports, tmp_path, monkeypatch):
    # As on many company machines; nothing here may go through it.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Running("serve", repository, *port_options(ports), cwd=tmp_path) as running:
        running.wait_for("Ctrl-C stops")
        yield running
    wait_for_no_process_naming(repository)


def test_serve_prints_endpoints_and_models_and_logs_to_a_file(serving, ports, tmp_path):
    said = serving.stdout.read_text()
    assert re.search(r"Triton 2\.\d+\.\d+ is ready", said)
    assert f"127.0.0.1:{ports.grpc}" in said
    assert f"http://127.0.0.1:{ports.http}" in said
    assert f"http://127.0.0.1:{ports.metrics}/metrics" in said
    for model in ("digits", "digits_classifier", DEFENCE):
        assert model in said
    assert "beta 1.5" in said
    assert "can also call the victim behind an ensemble, raw; --gateway operator.yaml" in said
    assert "Started GRPCInferenceService" in (tmp_path / "triton.log").read_text()
    with Endpoint(f"127.0.0.1:{ports.grpc}", "digits") as endpoint:
        assert endpoint.model == "digits"


def test_a_triton_that_aborts_while_it_loads_models_is_started_again(repository, ports, tmp_path):
    server = TritonServer(repository, ports=ports, log=tmp_path / "triton.log")

    def abort():
        while not (server.log.exists() and "loading: " in server.log.read_text()):
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGABRT)
        return server.pid

    with ThreadPoolExecutor(1) as pool:
        aborted = pool.submit(abort)
        with server:
            assert {model.name for model in server.models() if model.ready} >= {"digits", DEFENCE}
            assert server.pid != aborted.result()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_serve_stops_cleanly(serving, repository, number):
    assert serving.stop(number) == 0
    assert processes_naming(repository) == []
    assert serving.stderr.read_text().endswith("stopping Triton\n")


@pytest.fixture
def interrupted(monkeypatch):
    """Interrupt this process as soon as a server is started, before anybody holds its handle."""
    start, started = subprocess.Popen, []

    def interrupting(command, *arguments, **options):
        process = start(command, *arguments, **options)
        if die_with_parent.__file__ in command:
            started.append(process)
            signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield started
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_triton_is_being_started_leaves_nothing(
    repository, ports, tmp_path, interrupted
):
    with (
        pytest.raises(KeyboardInterrupt),
        TritonServer(repository, ports=ports, log=tmp_path / "triton.log"),
    ):
        pass
    assert len(interrupted) == 1
    assert processes_naming(repository) == []


def test_an_interrupt_while_envoy_is_being_started_leaves_nothing(tmp_path, interrupted):
    files = write_files(tmp_path, tls=False)
    upstream = Upstream(Address("127.0.0.1", 9), Address("127.0.0.1", 9))
    with (
        pytest.raises(KeyboardInterrupt),
        Gateway(read(files.path), upstream, "no secret", log=tmp_path / "envoy.log"),
    ):
        pass
    (envoy,) = interrupted
    assert not Path(f"/proc/{envoy.pid}").exists()


def test_triton_goes_when_serve_is_killed(serving, repository):
    serving.process.kill()
    serving.process.wait()
    wait_for_no_process_naming(repository)


def refusal(repository, *options, cwd):
    """Return the one line that serve says before it exits with 1."""
    done = run_command("serve", repository, *options, cwd=cwd)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    wait_for_no_process_naming(repository)
    (line,) = done.stderr.splitlines()
    return line


def set_parameter(repository, name, text):
    """Rewrite one parameter of the defence; None takes it out."""
    config = repository / DEFENCE / "config.pbtxt"
    lines = config.read_text().splitlines(keepends=True)
    (index,) = [i for i, line in enumerate(lines) if f'parameters {{ key: "{name}"' in line]
    lines[index] = re.sub(r'string_value: ".*?"', f'string_value: "{text}"', lines[index])
    if text is None:
        del lines[index]
    config.write_text("".join(lines))


NUMBER = "expected a number from 0.001 to 100"


@pytest.mark.parametrize("name", ["beta", "gamma"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-1", "got -1"),
        ("0", "got 0"),
        ("nan", "got 'nan'"),
        ("abc", "got 'abc'"),
        (None, "but it is missing"),
    ],
)
def test_a_bad_parameter_stops_the_load_in_one_line(repository, ports, tmp_path, name, text, said):
    # The defence alone: what refuses it refuses the ensemble, and Triton starts sooner.
    shutil.rmtree(repository / "digits")
    shutil.rmtree(repository / "digits_classifier")
    set_parameter(repository, name, text)
    assert refusal(repository, *port_options(ports), cwd=tmp_path) == (
        f"reverse-sigmoid: model {DEFENCE} did not load: {repository / DEFENCE / 'config.pbtxt'}: "
        f"parameter {name}: {NUMBER}, {said}"
    )


def test_an_unknown_parameter_stops_the_ensemble_and_names_the_nearest(repository, ports, tmp_path):
    config = repository / DEFENCE / "config.pbtxt"
    config.write_text(config.read_text().replace('"beta"', '"bata"'))
    said = refusal(repository, *port_options(ports), cwd=tmp_path)
    assert f"model {DEFENCE} did not load: {config}: unknown parameter 'bata'; " in said
    assert "did you mean beta?" in said


def test_a_repository_without_its_onnx_file_is_refused(repository, ports, tmp_path):
    onnx = repository / "digits_classifier" / "1" / "model.onnx"
    onnx.unlink()
    assert refusal(repository, *port_options(ports), cwd=tmp_path) == (
        f"reverse-sigmoid: model digits_classifier did not load: {onnx}: no such file; "
        "export the model first"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dims: [ 10 ]", "dims: [ 11 ]", "inconsistent shape"),
        ('name: "digits_reverse_sigmoid"', 'name: "digits_reverse_sigmoid', "failed to read text"),
        ("TYPE_FP32", "TYPE_FP16", "inconsistent data type: TYPE_FP32 is inferred from model"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(repository, ports, tmp_path, old, new, said):
    config = repository / DEFENCE / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new))
    assert said in refusal(repository, *port_options(ports), cwd=tmp_path)


def test_a_port_in_use_is_refused_by_its_option(repository, ports, tmp_path):
    with socket.create_server(("127.0.0.1", ports.grpc)):
        assert refusal(repository, *port_options(ports), cwd=tmp_path) == (
            f"reverse-sigmoid: --grpc-port {ports.grpc}: cannot listen on "
            f"127.0.0.1:{ports.grpc}: address already in use"
        )


def test_a_repository_whose_path_triton_hangs_on_is_refused(repository, tmp_path):
    spaced = repository.rename(tmp_path / "my models")
    assert "hangs on a path with white space" in refusal(spaced, cwd=tmp_path)


def test_a_config_that_does_not_parse_is_refused_with_its_line(repository, ports, tmp_path):
    config = repository / DEFENCE / "config.pbtxt"
    config.write_text(config.read_text().replace('string_value: "1.5"', "string_value: 1.5"))
    said = refusal(repository, *port_options(ports), cwd=tmp_path)
    (line,) = [n for n, text in enumerate(config.read_text().splitlines(), 1) if ": 1.5 }" in text]
    assert f"{config}: {line}:" in said
    assert said.endswith("Expected string, got: 1.5")


def test_a_log_that_is_no_file_is_refused(repository, ports, tmp_path):
    said = refusal(repository, *port_options(ports), "--log", "/dev/stdout", cwd=tmp_path)
    assert said == "reverse-sigmoid: /dev/stdout: expected a regular file for Triton's log"


def test_what_is_no_repository_is_refused(tmp_path, ports):
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    empty.mkdir()
    assert refusal(absent, cwd=tmp_path) == f"reverse-sigmoid: {absent}: no such model repository"
    assert refusal(empty, *port_options(ports), cwd=tmp_path) == (
        f"reverse-sigmoid: {empty}: no model there that Triton can read"
    )

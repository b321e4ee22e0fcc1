"""Calls that are cancelled in mid-flight: the real Triton goes on, with and without Envoy."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import grpc
import psutil
import pytest
from commands import run_command
from gateways import KEYS, Gated, write_files
from ports import free_ports
from serving import IMAGES, port_options
from tritonclient.grpc import service_pb2, service_pb2_grpc

from deploy.triton import cancel_guard, stub_processes
from deploy.triton.server import TritonServer
from load_tests.asking.endpoint import Endpoint

#: An unguarded Triton seldom survives that many; 133 were enough once.
CANCELLATIONS = 10_000
SECONDS = 20
THREADS = 8


def question():
    request = service_pb2.ModelInferRequest(model_name="digits")
    tensor = request.inputs.add(name="image", datatype="FP32")
    tensor.shape.extend([1, 8, 8, 1])
    request.raw_input_contents.append(IMAGES[:1].tobytes())
    return request


class Cancelling:
    """Clients that give up about when the answer comes, by a deadline or by cancelling.

    That is when Triton's own bookkeeping can go wrong.
    """

    def __init__(self, url, *, key=None):
        self.url, self.cancelled, self.until = url, 0, time.monotonic() + SECONDS
        self.metadata = [("x-api-key", KEYS[key])] if key else []
        self._counting = threading.Lock()

    def run(self, alive):
        """Return once enough was cancelled, the time is up, or the server is not alive."""
        threads = [threading.Thread(target=self._ask, args=(i, alive)) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, number, alive):
        asked, request, edge, random = 0, question(), 0.003, Random(number)  # noqa: S311
        with grpc.insecure_channel(self.url) as channel:
            infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            while self.cancelled < CANCELLATIONS and time.monotonic() < self.until and alive():
                asked += 1
                patience = edge * random.uniform(0.2, 1.8)
                call = infer.future(
                    request, metadata=self.metadata, timeout=patience if asked % 4 else 30
                )
                if not asked % 4:
                    time.sleep(patience)
                    call.cancel()
                with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
                    call.result()
                    edge *= 0.9
                    continue
                edge *= 1.08
                with self._counting:
                    self.cancelled += 1


def answers(url, **options):
    with Endpoint(url, "digits", timeout_s=30, **options) as endpoint:
        return endpoint(IMAGES[:1])


def test_thousands_of_cancelled_calls_leave_triton_running(repository, tmp_path):
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server:
        clients = Cancelling(server.grpc_url)
        clients.run(lambda: server.running)
        assert server.running
        assert clients.cancelled > 500
        assert answers(server.grpc_url).shape == (1, 10)


def client_that_is_cut_off(url, how):
    """Have a process ask over and over with many calls at once, then end it in mid-flight."""
    code = (
        "import sys, grpc\n"
        "from tritonclient.grpc import service_pb2, service_pb2_grpc\n"
        "request = service_pb2.ModelInferRequest.FromString(sys.stdin.buffer.read())\n"
        "infer = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(sys.argv[1]))\n"
        "infer.ModelInfer(request); print('asked', flush=True)\n"
        "while True:\n"
        "    calls = [infer.ModelInfer.future(request) for _ in range(20)]\n"
        "    [call.result() for call in calls]\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        client.stdin.write(question().SerializeToString())
        client.stdin.close()
        assert client.stdout.readline() == b"asked\n"
        time.sleep(how)
        client.kill()


def cut(url, calls):
    """Send requests by hand and reset the connection at once."""
    host, port = url.split(":")
    body = question().SerializeToString()
    body = b"\0" + struct.pack(">I", len(body)) + body
    headers = b"\x83\x86" + b"".join(
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in (
            (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
            (b":authority", b"triton"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, b"", 0, 0)
    for stream in range(1, 2 * calls, 2):
        sent += frame(1, headers, stream, 4) + frame(0, body, stream, 1)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(sent)
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def frame(kind, payload, stream, flags):
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def test_clients_that_die_in_mid_flight_leave_triton_running(repository, tmp_path):
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server:
        for number in range(4):
            client_that_is_cut_off(server.grpc_url, 0.02 * number)
        for number in range(100):
            cut(server.grpc_url, 1 + number % 20)
        assert answers(server.grpc_url).shape == (1, 10)
        assert server.running


def test_a_gateway_that_cancels_or_dies_in_mid_flight_leaves_triton_running(repository, tmp_path):
    config = repository / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 256", "max_batch_size: 1"))
    files = write_files(tmp_path, tls=False)
    with Gated(repository, files, cwd=tmp_path) as gated:
        before = gated.children("tritonserver")
        (envoy,) = gated.children("envoy")
        clients = Cancelling(files.url, key="bob")
        killing = threading.Timer(3, os.kill, (envoy, signal.SIGKILL))
        killing.start()
        clients.run(lambda: all(map(psutil.pid_exists, before)))
        killing.join()
        assert gated.children("tritonserver") == before
        assert clients.cancelled > 500
        gated.wait_for("the gateway listens again")
        assert answers(files.url, access=files.access("bob")).shape == (1, 10)
        assert gated.stop(signal.SIGTERM) == 0


def test_the_guard_is_in_triton_and_in_none_of_its_models(repository, tmp_path):
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server:
        loaded = [
            "cancel_guard" in Path(f"/proc/{pid}/maps").read_text()
            for pid in (server.pid, *(pid for pids in server.stubs().values() for pid in pids))
        ]
    assert loaded == [True, False, False]


@pytest.fixture
def not_compiled(tmp_path):
    """An environment in which the guard is not found."""
    (tmp_path / "sitecustomize.py").write_text(
        "from deploy.triton import cancel_guard\ncancel_guard.find = lambda: None\n"
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_without_the_guard_the_gateway_is_refused_with_a_way_out(
    repository, not_compiled, tmp_path
):
    done = run_command(
        *("serve", repository, "--gateway", write_files(tmp_path).path),
        *port_options(free_ports()),
        cwd=tmp_path,
        env=not_compiled,
    )
    assert done.returncode == 1
    assert done.stderr == f"reverse-sigmoid: --gateway: {cancel_guard.MISSING}\n"
    assert "apt install gcc" in cancel_guard.MISSING


def test_memory_of_killed_models_is_gone_after_a_stop(repository, tmp_path):
    server = TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log")
    with server:
        prefix = server.shared_memory
        (killed,), (stopped,) = server.stubs().values()
        os.kill(killed, signal.SIGKILL)
        os.kill(stopped, signal.SIGSTOP)
        assert list(stub_processes.SHARED_MEMORY.glob(f"{prefix}*"))
    assert not list(stub_processes.SHARED_MEMORY.glob(f"{prefix}*"))

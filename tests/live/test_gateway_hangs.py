"""Envoy that hangs or is slow: what ``serve`` makes of it."""

import ctypes
import json
import os
import signal
import time
from pathlib import Path

import pytest
from gateways import Gated, write_files


def told(status):
    """Return what ``serve`` has written to its status file."""
    return json.loads(status.read_text())


def test_a_gateway_that_is_frozen_is_named_and_started_again(repository, tmp_path):
    files = write_files(tmp_path, more="queries_per_request: 256\n")
    status = tmp_path / "status.json"
    options = ("--status-file", status, "--probe-timeout-seconds", 1)
    with Gated(repository, files, *options, cwd=tmp_path) as gated:
        wait = lambda state: gated.wait_until(  # noqa: E731
            lambda: told(status)["gateway"]["last_probe_at"] is not None
            and told(status)["gateway"]["state"] == state, 60)  # fmt: skip
        wait("ready")
        (envoy,) = gated.children("envoy")
        os.kill(envoy, signal.SIGSTOP)
        gated.wait_for("the GATEWAY is at fault, Triton answers: it does not answer")
        gated.wait_for("the gateway listens again")
        gated.wait_for("the gateway answers again")
        wait("ready")
        said = told(status)
        assert said["gateway"]["restarts"] == 1
        assert said["restarts"] == 0
        assert gated.stop() == 0


#: waitpid's, for threads too.
WAIT_ALL = 0x40000000


def freeze(thread):
    """Stop one thread, and none beside it, as one that hangs stands still."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for request in (0x4206, 0x4207):  # PTRACE_SEIZE, PTRACE_INTERRUPT
        if libc.ptrace(request, thread, None, None):
            pytest.skip(f"no thread may be stopped here: {os.strerror(ctypes.get_errno())}")
    os.waitpid(thread, WAIT_ALL)


def has_ended(thread):
    """Return whether a frozen thread was killed; until this is asked its process stays a zombie."""
    return os.waitpid(thread, WAIT_ALL | os.WNOHANG)[0] == thread


def test_a_thread_of_the_gateways_that_hangs_takes_no_client_with_it(repository, tmp_path):
    files = write_files(tmp_path, more="queries_per_request: 256\n")
    with Gated(repository, files, cwd=tmp_path) as gated:
        (envoy,) = gated.children("envoy")
        (thread, *_) = (
            int(entry.parent.name)
            for entry in Path(f"/proc/{envoy}/task").glob("*/comm")
            if entry.read_text().startswith("wrk:")
        )
        freeze(thread)
        gated.wait_until(lambda: has_ended(thread))
        gated.wait_for("starting it again")
        gated.wait_for("the gateway listens again")
        assert gated.stop() == 0


def test_a_gateway_that_is_only_slow_is_left_to_it(repository, tmp_path):
    files = write_files(tmp_path, more="queries_per_request: 256\n")
    status = tmp_path / "status.json"
    options = ("--status-file", status, "--probe-timeout-seconds", 0.5)
    with Gated(repository, files, *options, cwd=tmp_path) as gated:
        (envoy,) = gated.children("envoy")
        until = time.monotonic() + 20
        while time.monotonic() < until:  # it runs for a thousandth of the time
            os.kill(envoy, signal.SIGSTOP)
            time.sleep(1)
            os.kill(envoy, signal.SIGCONT)
            time.sleep(0.001)
        gated.wait_until(lambda: told(status)["gateway"]["state"] == "ready")
        assert gated.children("envoy") == [envoy]
        assert told(status)["gateway"]["restarts"] == 0
        assert gated.stop() == 0

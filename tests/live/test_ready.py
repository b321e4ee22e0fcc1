"""The health check of a container, against the real Triton."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ports import free_ports

from deploy.triton.server import TritonServer

SECRET = "s" * 32


def ready(ports, *models, **variables):
    """Run it as a container does, away from the source tree."""
    return subprocess.run(
        [sys.executable, "-m", "postprocess.ready", *models,
         "--url", f"http://127.0.0.1:{ports.http}"],
        capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture
def shut(exported, tmp_path):
    """A Triton that demands a key."""
    log = tmp_path / "triton.log"
    with TritonServer(exported, ports=free_ports(), log=log, secret=SECRET) as running:
        yield running


def test_ready_is_an_answer_and_a_dead_defence_is_not_ready(shut, tmp_path):
    key = tmp_path / "key"
    key.write_text(SECRET)
    done = ready(shut.ports, "digits", TRITON_KEY_FILE=str(key))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Forbidden" in ready(shut.ports, "digits").stderr
    (stub,) = shut.stubs()["digits_reverse_sigmoid"]
    os.kill(stub, signal.SIGKILL)
    time.sleep(0.5)
    done = ready(shut.ports, "digits", TRITON_KEY_FILE=str(key))
    assert done.returncode == 1
    assert done.stderr.startswith("not ready: digits/infer: HTTP Error 500")


@pytest.mark.parametrize("model", ["digits_classifier", "no_such_model"])
def test_what_is_no_protected_ensemble_is_not_ready(server, model):
    done = ready(server.ports, model)
    assert done.returncode == 1
    assert done.stderr.startswith("not ready: ")

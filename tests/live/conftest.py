import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy.triton_server import TritonServer, free_ports
from load_tests.endpoint import Endpoint

COMMAND = str(Path(sys.prefix) / "bin" / "reverse-sigmoid")


def run_command(*arguments, cwd, timeout=300):
    """Run reverse-sigmoid as a person would and return what it printed."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def processes_naming(path):
    """Return the command lines of all living processes that name a path."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(path) in command and int(entry.name) != os.getpid():
                    found.append(command)
    return found


def wait_for_no_process_naming(path, *, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while processes_naming(path):
        assert time.monotonic() < deadline, processes_naming(path)
        time.sleep(0.1)


class Running:
    """A reverse-sigmoid command in a session of its own, its two outputs in files."""

    def __init__(self, *arguments, cwd):
        self.stdout, self.stderr = cwd / "stdout.txt", cwd / "stderr.txt"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def wait_for(self, text, *, timeout_s=120):
        deadline = time.monotonic() + timeout_s
        while text not in self.stdout.read_text() + self.stderr.read_text():
            said = self.stdout.read_text() + self.stderr.read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    def stop(self, number=signal.SIGINT, *, timeout_s=30):
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A model repository with a briefly trained digits classifier; not to be changed."""
    repository = tmp_path_factory.mktemp("exported") / "model_repository"
    done = run_command(
        "export", "digits", "--repository", repository, "--steps", 100, cwd=repository.parent
    )
    assert done.returncode == 0, done.stderr
    return repository


@pytest.fixture
def repository(exported, tmp_path):
    """A copy of it that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "model_repository"))


@pytest.fixture(scope="session")
def server(exported, tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "triton.log"
    with TritonServer(exported, ports=free_ports(), log=log) as running:
        yield running


@pytest.fixture(scope="session")
def endpoint(server):
    with Endpoint(server.grpc_url, "digits") as protected:
        yield protected


@pytest.fixture(scope="session")
def victim(server):
    with Endpoint(server.grpc_url, "digits_classifier") as classifier:
        yield classifier

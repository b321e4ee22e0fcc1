"""What holds for every test, and what many of them share: one trained model, and a server of it."""

import compileall
import fcntl
import os
import shutil
import sys
from pathlib import Path

import pytest
from commands import Running, call_command
from ports import free_ports

from deploy.triton.server import TritonServer
from exporters.quiet_import import ONEDNN
from load_tests.asking.endpoint import Endpoint

TESTS = Path(__file__).parent
PACKAGES = ("postprocess", "exporters", "load_tests", "deploy")
#: The files that take minutes, in the order in which they are run, so that no worker ends alone
#: with one; and then the folders, those of longer files first.
LONGEST = (
    *("live/test_hostile.py", "live/test_existing.py", "journeys/test_readme.py"),
    *("journeys/test_demo.py", "live/test_cluster.py", "journeys/test_tune.py"),
    *("live/test_audit.py", "live/test_idle.py", "live/test_ready_layouts.py"),
    *("live/test_supervise.py", "live/test_gateway.py", "live/test_benchmark.py"),
    *("journeys/test_paper.py", "live/test_cancellation.py", "live/test_protect.py"),
    *("live/test_bounds.py", "live/test_any_input.py", "contract/test_parameter_fuzz.py"),
)
FOLDERS = ("journeys", "live", "contract", "unit")
#: By these Rich and Typer colour and break what they print, also into a pipe.
TERMINAL = (
    *("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"),
    *("COLUMNS", "LINES", "TERMINAL_WIDTH"),
)
#: One thread for each process: there are more of them than cores, and threads that wait for each
#: other wait busily. It halves what NumPy takes, and takes a fifth of what TensorFlow does.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def pytest_xdist_auto_num_workers(config):
    """Run six files at a time, also on two cores: the long ones wait most of the time.

    They wait for servers to start and to notice; the quick ones wait for nothing.
    """
    return min(6, len(os.sched_getaffinity(0))) if config.option.markexpr == "not slow" else 6


def pytest_configure(config):
    for name in (*THREADS, ONEDNN):  # before a worker starts, and whoever imports Keras
        os.environ.setdefault(name, "1")
    # The compiler of PyTorch for CUDA ends a process that has loaded TensorFlow, as soon as
    # PyTorch writes an ONNX file. Nothing here needs it: it is as if it were not installed.
    sys.modules["triton"] = None
    if not hasattr(config, "workerinput"):
        # Under PYTHONDONTWRITEBYTECODE each of hundreds of processes would compile what it imports.
        for package in PACKAGES:
            compileall.compile_dir(TESTS.parent / package, quiet=2)


def pytest_collection_modifyitems(items):
    def place(item):
        path = item.path.relative_to(TESTS)
        first = LONGEST.index(str(path)) if str(path) in LONGEST else len(LONGEST)
        return first, FOLDERS.index(path.parts[0])

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        for arguments, stderr in Running.last:
            if stderr.exists():
                title = " ".join(["stderr of", *map(str, arguments)])
                report.sections.append((title, stderr.read_text()[-4000:]))
    return report


@pytest.fixture(scope="session", autouse=True)
def no_terminal():
    """Have commands print as into a file, whatever terminal or service the tests are run in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TERMINAL:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def exported(tmp_path_factory, worker_id):
    """A model repository with a briefly trained digits classifier; not to be changed.

    All workers of a run share it: the first that asks trains, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        shared = shared.parent
    finished = shared / "exported"
    with (shared / "exported.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            folder = tmp_path_factory.mktemp("exported")
            done = call_command("export", "digits", "--repository", folder / "model_repository",
                               "--steps", 100, cwd=folder)  # fmt: skip
            assert done.returncode == 0, done.stderr
            folder.rename(finished)
    return finished / "model_repository"


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

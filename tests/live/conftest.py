import shutil
from pathlib import Path

import pytest
from commands import run_command

from deploy.triton.server import TritonServer, free_ports
from load_tests.endpoint import Endpoint


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

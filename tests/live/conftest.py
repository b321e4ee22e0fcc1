"""Files of real servers: each is slow, but for those that say in seconds whether serving works."""

import shutil
from pathlib import Path

import pytest
from commands import wait_for_no_process_naming
from ports import free_ports
from serving import Serving
from siege import Siege, single_rows, write_operator

QUICK = ("test_answers.py", "test_gateway_door.py")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in QUICK:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def serve(repository, tmp_path):
    """Start ``serve`` of a repository of the test's own with some options; it leaves nothing."""

    def start(*options):
        return Serving(repository, free_ports(), *options, cwd=tmp_path)

    yield start
    wait_for_no_process_naming(repository)


@pytest.fixture(scope="module")
def besieged(exported, tmp_path_factory):
    """One gateway for all attacks of a file."""
    folder = tmp_path_factory.mktemp("besieged")
    repository = shutil.copytree(exported, folder / "model_repository")
    single_rows(repository)
    with Siege(repository, write_operator(folder), cwd=folder) as running:
        yield running
        assert running.stop() == 0

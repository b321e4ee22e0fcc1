"""Each known attack on the real gateway and the real Triton: others do not notice."""

import shutil

import pytest
from siege import Siege, every_order, single_rows, write_operator


@pytest.fixture(scope="module")
def besieged(exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("besieged")
    repository = shutil.copytree(exported, folder / "model_repository")
    single_rows(repository)
    with Siege(repository, write_operator(folder), cwd=folder) as running:
        yield running
        assert running.stop() == 0


@pytest.mark.parametrize(("name", "by"), every_order())
def test_an_attack_changes_nothing_for_others(besieged, name, by):
    besieged.survive((name, by))

"""Finished files put in their places: all of them or none, and those of one process."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from commands import PATIENCE_S

from exporters.files.placing import place

NAMES = ["model/1/model.onnx", "model/config.pbtxt"]


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "new" / "models"


def staged(folder, text):
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_who_places_files_waits_for_who_does_so_already(tmp_path, repository):
    one, other = (staged(tmp_path / text, text) for text in ("one", "other"))
    begun, go_on, seen = Event(), Event(), []

    def look():
        begun.set()
        assert go_on.wait(PATIENCE_S)

    def look_again():
        seen.append([(repository / name).read_text() for name in NAMES])

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(place, one, repository, NAMES, look=look)
        assert begun.wait(PATIENCE_S)
        second = threads.submit(place, other, repository, NAMES, look=look_again)
        time.sleep(0.2)
        assert not seen
        go_on.set()
        first.result(PATIENCE_S)
        second.result(PATIENCE_S)
    assert seen == [["one", "one"]]
    assert [(repository / name).read_text() for name in NAMES] == ["other", "other"]


def test_what_is_found_at_the_last_moment_leaves_no_folder(tmp_path, repository):
    def look():
        raise ValueError("another was quicker")

    with pytest.raises(ValueError, match="another was quicker"):
        place(staged(tmp_path / "one", "one"), repository, NAMES, look=look)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "one"]

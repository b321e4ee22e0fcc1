import pytest

from exporters.files.atomic_file import atomic_file, told, write_text


def test_of_a_copy_that_failed_the_target_is_told():
    full = OSError(28, "No space left on device", "source", None, "target")
    assert told(full) == "target: No space left on device"


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "text")
    (tmp_path / "plain").write_text("")
    assert path.read_text() == "text"
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, stop):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def interrupted():
        with atomic_file(path) as part:
            part.write_text("half")
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]

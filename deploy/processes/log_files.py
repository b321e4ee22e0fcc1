"""Logs that cannot fill a disk: a few files of a bounded size."""

import contextlib
import shutil
from pathlib import Path

#: A file that has grown to this gives way to a new one.
MOST_BYTES = 64 * 2**20
#: Older files that stay: ``access.jsonl.1`` is younger than ``access.jsonl.2``.
KEPT = 4


def outgrown(path: Path) -> bool:
    """Return whether the file has to give way."""
    with contextlib.suppress(OSError):
        return path.stat().st_size >= MOST_BYTES
    return False


def move_away(path: Path) -> None:
    """Rename a log, so that its writer makes a new one when told to open it again."""
    _make_room(path)
    with contextlib.suppress(OSError):
        path.replace(_older(path, 1))


def copy_away(path: Path) -> None:
    """Copy a log and empty it: for a writer that only ever appends and opens nothing again."""
    _make_room(path)
    with contextlib.suppress(OSError):
        shutil.copyfile(path, _older(path, 1))
    with contextlib.suppress(OSError), path.open("r+b") as file:  # also where no copy finds room
        file.truncate()


def _make_room(path: Path) -> None:
    for number in range(KEPT - 1, 0, -1):
        with contextlib.suppress(OSError):
            _older(path, number).replace(_older(path, number + 1))


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")

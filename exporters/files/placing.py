"""Putting finished files in their places, all of them or none."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from exporters.files.atomic_file import atomic_file


def place(
    staged: Path, repository: Path, relative: list[str], *, look: Callable[[], object]
) -> None:
    """Move files from one folder to another in the order given, replacing what is there.

    Each file is whole or absent at any moment. If one cannot be placed, those before it are
    taken back and what they replaced stands there again. Several processes do this one after the
    other, so that the files of one stand there and no mixture.

    Args:
        staged: a folder, best on the same file system; the files leave it.
        repository: where they go; folders are created.
        relative: their paths, the same in both.
        look: called when no other process places files; what it raises comes through.

    Raises:
        OSError: a file cannot be written.
    """
    saved: list[tuple[Path, Path | None]] = []
    made = _missing(repository.parent)
    repository.parent.mkdir(parents=True, exist_ok=True)
    with _in_turn(repository.resolve().parent):
        try:
            look()
            for index, name in enumerate(relative):
                path = repository / name
                made += [folder for folder in _missing(path.parent) if folder not in made]
                old = staged / f".old-{index}" if path.exists() else None
                if old is not None:
                    _keep(path, old)
                saved.append((path, old))
                _move(staged / name, path)
        except BaseException:
            for path, old in reversed(saved):
                if old is not None:
                    os.replace(old, path)
                else:
                    path.unlink(missing_ok=True)
            for folder in sorted(made, key=lambda folder: len(folder.parts), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise


def _missing(folder: Path) -> list[Path]:
    return [each for each in (folder, *folder.parents) if not each.exists()]


@contextlib.contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Wait for whoever holds the folder's lock, and hold it; some file systems have none."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, held)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _move(file: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(file, path)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another file system
            raise
        with atomic_file(path) as part:
            shutil.move(file, part)


def _keep(path: Path, old: Path) -> None:
    try:
        os.link(path, old)
    except OSError:  # another file system, or one without links
        shutil.copy2(path, old)

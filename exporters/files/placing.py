"""Putting finished files in their places, all of them or none."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from exporters.files.atomic_file import atomic_file


def place(staged: Path, repository: Path, relative: list[str]) -> None:
    """Move files from one folder to another in the order given, replacing what is there.

    Each file is whole or absent at any moment. If one cannot be placed, those before it are
    taken back and what they replaced stands there again.

    Args:
        staged: a folder, best on the same file system; the files leave it.
        repository: where they go; folders are created.
        relative: their paths, the same in both.

    Raises:
        OSError: a file cannot be written.
    """
    saved: list[tuple[Path, Path | None]] = []
    made: list[Path] = []
    try:
        for index, name in enumerate(relative):
            path = repository / name
            missing = [path.parent, *path.parent.parents]
            made += [folder for folder in missing if not folder.exists() and folder not in made]
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

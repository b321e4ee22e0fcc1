"""Files that are either whole or absent."""

import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from postprocess.errors import InputError

#: Of a file that is not whole yet.
_SUFFIX = ".part"


def told(error: OSError) -> str:
    """Return an error in one line: which file, and what is wrong with it."""
    if error.filename:  # of a copy that failed, the second
        return f"{error.filename2 or error.filename}: {error.strerror}"
    return " ".join(str(error).split())


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have the block's OSErrors name a path where they name none, as when a disk is full.

    Raises:
        OSError: the block does.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or not str(error.filename or _SUFFIX).endswith(_SUFFIX):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, moved onto it when the block succeeds.

    If the block raises, Ctrl-C included, the temporary file is removed and whatever stood at
    ``path`` still stands there. The folder is created if need be. Where ``path`` is a link, the
    file that it leads to is replaced; the new file has the permissions of the old one. A
    ``private`` file takes a link's own place, and nobody else may read it.
    """
    if path.is_symlink() and not private:
        path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX
        )
        os.close(descriptor)
        part = Path(name)
        try:
            yield part
            if not private:  # as it was made
                umask = os.umask(0)
                os.umask(umask)
                part.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~umask)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def refuse_unwritable(path: Path, where: str) -> None:
    """Refuse a file that could not be written, before long work is done for it.

    Args:
        path: of the file; its folder is created if need be.
        where: what names it, for the message.

    Raises:
        InputError: it is a folder, or nothing can be written beside it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{where} {path}: cannot be written: {error.strerror}") from None
    if path.is_dir():
        raise InputError(f"{where} {path}: expected a file, got a folder")


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left of their files, in a folder and below.

    Nobody else may be writing there.
    """
    for part in folder.rglob(f".*{_SUFFIX}"):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_arrays(path: Path, *arrays: Any, **named: Any) -> None:
    """Write arrays to ``path``, an .npz file, whole or not at all."""
    import numpy as np

    packed = io.BytesIO()  # what cannot be written is no half of a ZIP file then
    np.savez(packed, *arrays, **named)
    with atomic_file(path) as part:
        part.write_bytes(packed.getbuffer())


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Write ``content`` to ``path`` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=indent) + "\n")

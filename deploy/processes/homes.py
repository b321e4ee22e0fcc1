"""Temporary folders of servers that outlived a killed process of ours, keys and all."""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from pathlib import Path

#: Begins the names of all such folders.
PREFIX = "reverse-sigmoid-"
_OWNER = ".owner"


def own(folder: Path) -> io.IOBase:
    """Return the lock that says that a folder is in use; it lasts as long as this is open.

    It has its name only once it is locked, so that no other start takes it for an orphan's.
    """
    unnamed = folder / f"{_OWNER}.new"
    lock = unnamed.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / _OWNER)
    return lock


def remove_orphans() -> None:
    """Remove this user's folders whose owner was killed; what has no lock is left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _OWNER).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)

"""Temporary folders that their process removes, and where it was killed the next one's start."""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_OWNER = ".owner"


@contextlib.contextmanager
def owned_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder in another, gone after the block; those of killed processes go before."""
    remove_orphans(parent, prefix)
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as name, own(Path(name)):
        yield Path(name)


def own(folder: Path) -> io.IOBase:
    """Return the lock that says that a folder is in use; it lasts as long as this is open.

    It has its name only once it is locked, so that no other start takes it for an orphan's.
    """
    unnamed = folder / f"{_OWNER}.new"
    lock = unnamed.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / _OWNER)
    return lock


def remove_orphans(parent: Path, prefix: str) -> None:
    """Remove this user's folders whose owner was killed; what has no lock is left alone."""
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / _OWNER).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)

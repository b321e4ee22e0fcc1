"""A folder that one process at a time works in."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporters.files.atomic_file import remove_parts
from postprocess.errors import InputError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with this process; what killed ones left half is removed.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{folder}: another process is at work there; wait for it, or give another --out"
            ) from None
        remove_parts(folder)
        yield

"""Keeps a client that cancels gRPC calls from crashing the embedded Triton.

``guard/guard.h`` beside this file says how. It is compiled at the install, like the defence's
kernel, and loaded into tritonserver alone with LD_PRELOAD. Every Triton that nvidia-pytriton
embeds needs it; the container's, from 25.06 on, does not.
"""

import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from postprocess.errors import InputError
from postprocess.kernel import COMPILE

#: What is said where it is not there.
MISSING = (
    "a client that cancels its calls can crash this Triton, and what keeps it from that was not "
    f"compiled when it was installed. {COMPILE}. Or put the gateway in front of a Triton of 25.06 "
    "or newer, see deploy/README.md"
)


def find() -> Path | None:
    """Return the compiled guard, None where the install found no C compiler."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_cancel_guard{suffix}")
        if path.is_file():
            return path
    return None


def refuse_missing() -> None:
    """Refuse to go on without a compiled guard.

    Raises:
        InputError: there is none, and what to do.
    """
    if find() is None:
        raise InputError(f"--gateway: {MISSING}")


def lay_out(folder: Path) -> Path | None:
    """Return a copy of the guard in a folder, None where there is no guard.

    The dynamic linker splits LD_PRELOAD at white space and colons, which the path of an
    installation may hold.
    """
    library = find()
    return None if library is None else Path(shutil.copy(library, folder / "cancel_guard.so"))


def preload(library: Path, variables: dict[str, str]) -> dict[str, str]:
    """Return environment variables with the guard as the first library to load.

    It takes itself out again once it is in tritonserver, so that Triton's children go without.
    """
    others = variables.get("LD_PRELOAD")
    return {**variables, "LD_PRELOAD": f"{library}:{others}" if others else str(library)}


def is_loaded(library: Path, pid: int) -> bool:
    """Return whether a process has the guard: the dynamic linker skips what it cannot load."""
    return f" {library}\n" in (Path("/proc") / str(pid) / "maps").read_text()

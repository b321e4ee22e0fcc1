"""The processes that one Triton's Python backend runs its models in, and what they share."""

import contextlib
import os
from pathlib import Path

#: Where the Python backend and its stubs share memory.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def find(prefix: str, repository: Path) -> dict[str, list[int]]:
    """Return model name to the process ids of its living instances."""
    found: dict[str, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):  # pathlib's glob takes three times that
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{entry}/cmdline") as file:
            program, path, region, *_ = file.read().split("\0")
            if "triton_python_backend_stub" in program and region.startswith(prefix):
                model = Path(path).relative_to(repository.resolve()).parts[0]
                found.setdefault(model, []).append(int(entry))
    return {model: sorted(pids) for model, pids in found.items()}


def remove_memory(prefix: str) -> None:
    """Remove what a killed Triton and its killed stubs leave behind; it has to be gone."""
    for left_behind in SHARED_MEMORY.glob(f"{prefix}*"):
        left_behind.unlink(missing_ok=True)

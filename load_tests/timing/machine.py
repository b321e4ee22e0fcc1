"""What a benchmark was measured on."""

import os
import platform
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return the processor and how many of it there are."""
    return {"cpu": cpu(), "cpu_count": os.cpu_count()}


def cpu() -> str:
    """Return what the processor calls itself, or its architecture."""
    return _told("model name") or platform.machine()


def vector_instructions() -> str:
    """Return the sets of vector instructions that the processor has, empty where it is unknown."""
    names = sorted((_told("flags") or _told("Features")).split())
    return " ".join(name for name in names if name.startswith(("avx", "amx", "fma", "sve")))


def _told(what: str) -> str:
    """Return what the system says of the first processor, empty where it says nothing."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(what)), "")

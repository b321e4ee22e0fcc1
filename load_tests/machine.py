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
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""Ending a program with all that it has started."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

#: How long the kernel may take over processes that were killed; some hold much memory.
GONE_AFTER_S = 10


def kill(leader: "subprocess.Popen[bytes]") -> None:
    """Kill a program that leads a group, and all in it; return once none of them runs.

    Args:
        leader: started with ``start_new_session``; it may have ended.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    deadline = time.monotonic() + GONE_AFTER_S
    while _runs(leader.pid) and time.monotonic() < deadline:
        time.sleep(0.01)


def _runs(group: int) -> bool:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group, *_ = entry.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state not in "ZX":
                return True
    return False

"""Run a program that the kernel tells to stop (SIGTERM) once our parent is gone.

Called as ``python die_with_parent.py PARENT_PID PROGRAM ARGUMENT ...``, so that not even
SIGKILL on the parent leaves the program behind. A script of its own rather than code between
fork and exec, which is not safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):  # it went before the kernel was asked
        sys.exit(f"parent {sys.argv[1]} is gone")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606

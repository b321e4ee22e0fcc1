"""What asking every second costs."""

import os
import time
from pathlib import Path

from serving import IMAGES

WINDOWS, PROBES = 3, 20
#: Of CPU, Triton and all its models together.
MOST_MS = 5


def cpu_s(server):
    """Return the CPU time of Triton and of the processes of its models."""
    ticks = 0
    for pid in [server.pid, *(pid for pids in server.stubs().values() for pid in pids)]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def ms_each(server, endpoint):
    """Return what some probes cost, each."""
    before = cpu_s(server)
    for _ in range(PROBES):
        endpoint(IMAGES[:1])
        time.sleep(0.1)  # threads that wait busily show after the answer
    return (cpu_s(server) - before) * 1000 / PROBES


def test_a_probe_costs_little_cpu(server, endpoint):
    endpoint(IMAGES[:1])
    time.sleep(1)  # whatever a start leaves to be done
    # What waits busily does so in every window; what a busy machine adds is not in all.
    assert min(ms_each(server, endpoint) for _ in range(WINDOWS)) < MOST_MS

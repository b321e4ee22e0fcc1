"""The memory of a command and of all processes that it has started, over time."""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psutil

#: Between two looks at the memory.
LOOK_S = 10.0
#: How much of the run is warm-up.
WARM_UP_SHARE = 1 / 6
MIB = 2**20


class Memory:
    """The resident sizes of a process and all under it."""

    def __init__(self, root: psutil.Process, seconds: float) -> None:
        """Say whose memory is looked at, and how long."""
        self._root, self._seconds = root, seconds
        self._seen: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)

    def watch(self, also: Callable[[], str] = lambda: "") -> None:
        """Look until the time is over; say on stderr how much is left, and what ``also`` says."""
        start = time.monotonic()
        while (at := time.monotonic() - start) < self._seconds:
            self.look(at)
            left = (self._seconds - at) / 60
            print(f"{left:.1f} min left{also()}", file=sys.stderr, flush=True)
            time.sleep(min(LOOK_S, max(0.1, self._seconds - at)))

    def look(self, at: float) -> None:
        """Look once."""
        for process in (self._root, *self._root.children(recursive=True)):
            try:
                name = process.name(), process.pid
                self._seen[name].append((at, process.memory_info().rss))
            except psutil.NoSuchProcess:
                continue

    def report(self) -> list[dict[str, Any]]:
        """Return, for each process, its size after the warm-up, at the end, and at most."""
        rows = []
        for (name, pid), looks in self._seen.items():
            warm = [size for at, size in looks if at >= WARM_UP_SHARE * self._seconds]
            if len(warm) < 2:
                warm = [size for _, size in looks]  # it lived for a moment only
            few = max(1, len(warm) // 10)
            before, after = statistics.fmean(warm[:few]), statistics.fmean(warm[-few:])
            rows.append(
                {
                    "process": name,
                    "pid": pid,
                    "mib_after_warm_up": before / MIB,
                    "mib_at_the_end": after / MIB,
                    "mib_at_most": max(size for _, size in looks) / MIB,
                    "ratio": after / before if before else None,
                }
            )
        return rows

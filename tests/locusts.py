"""The real Locust, as a person runs it: started, stopped, and what it counted."""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

from commands import SOON_S, signals_of_a_terminal

LOCUSTFILE = Path(__file__).parents[1] / "load_tests" / "locustfile.py"


def locust(*options, cwd):
    """Start locust in a folder of its own; what it says is in its file locust.txt."""
    cwd.mkdir(exist_ok=True)
    with (cwd / "locust.txt").open("wb") as said, signals_of_a_terminal():
        command = [Path(sys.prefix) / "bin" / "locust", "-f", LOCUSTFILE, *options]
        return subprocess.Popen(
            list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )


def ended(process):
    """Wait for it to end by itself, and never for good."""
    try:
        return process.wait(SOON_S)
    finally:
        process.kill()


def stopped_when_spent(process, folder, *, requests, model="digits"):
    """Wait until Locust counts so many requests of thieves, stop it, and return its exit code."""

    def spent():
        counts = statistics(folder) if (folder / "load_stats.csv").is_file() else {}
        normal = counts.pop(f"{model} normal", (0, 0))[0]
        stolen = sum(count for name, (count, _) in counts.items() if "thief" in name)
        return normal > 10 and stolen >= requests

    deadline = time.monotonic() + SOON_S
    try:
        while not spent() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        return process.wait(SOON_S)
    finally:
        process.kill()


def statistics(folder):
    """Return Locust's own counts: name to (requests, failures)."""
    with (folder / "load_stats.csv").open(newline="") as file:
        return {
            row["Name"]: (int(row["Request Count"]), int(row["Failure Count"]))
            for row in csv.DictReader(file)
        }

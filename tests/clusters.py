"""A Dask scheduler and workers, each a process of its own, on loopback and free ports."""

import json
import os
import signal
import subprocess
import sys
import time

from commands import SOON_S


class DaskCluster:
    """A scheduler with so many workers, each with a folder and so many threads of its own."""

    def __init__(self, folder, *, workers, threads=1):
        self.folder, self._threads = folder, threads
        told = folder / "scheduler.json"  # a free port of its own choice, which nobody takes first
        words = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))
        self.scheduler = self._start("scheduler", *words)
        self.address = self._until(lambda: json.loads(told.read_text())["address"])
        self.workers = []
        self.fill(workers)

    def fill(self, workers):
        """Start workers until so many live."""
        for _ in range(workers - len(self.living())):
            self.add_worker()
        self._until(lambda: self._has(workers))

    def living(self):
        """Return the numbers of the workers that have not been killed."""
        return [at for at, worker in enumerate(self.workers) if worker.poll() is None]

    def add_worker(self):
        home = self.folder / f"worker-{len(self.workers)}"
        words = ("--nthreads", str(self._threads), "--local-directory", str(home), "--no-nanny")
        self.workers.append(self._start("worker", self.address, *words))

    def _start(self, what, *words):
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{what}", *words, "--no-dashboard"],
                cwd=self.folder,  # not where this package is
                env={**os.environ, "OMP_NUM_THREADS": "7"},  # of no concern to the runs
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _until(self, what):
        """Return what comes of a function once it fails no more."""
        deadline = time.monotonic() + SOON_S
        while True:
            try:
                return what()
            except (OSError, ValueError):  # not yet, or broken off on a busy machine
                assert self.scheduler.poll() is None, (self.folder / "scheduler.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def _has(self, workers):
        """Return once the scheduler has so many workers, and none any more that was killed."""
        from distributed import Client

        deadline = time.monotonic() + SOON_S
        with Client(self.address, timeout=SOON_S, set_as_default=False) as client:
            while len(client.nthreads()) != workers:
                assert time.monotonic() < deadline, client.nthreads()
                time.sleep(0.1)

    def home(self, at):
        """Return the folder of a worker, which its processes name."""
        return self.folder / f"worker-{at}"

    def kill(self, at):
        self.workers[at].send_signal(signal.SIGKILL)
        self.workers[at].wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

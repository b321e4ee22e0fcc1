"""A Dask scheduler and workers, each a process of its own, on loopback and free ports."""

import os
import signal
import socket
import subprocess
import sys

from distributed import Client


class DaskCluster:
    """A scheduler with so many workers, each with a folder and so many threads of its own."""

    def __init__(self, folder, *, workers, threads=1):
        self.folder, self._threads = folder, threads
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port))
        self.workers = []
        for _ in range(workers):
            self.add_worker()
        with Client(self.address, timeout=300, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=300)

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

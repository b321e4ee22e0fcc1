"""A thief in a process of its own, who queries a model for as long as the parent wants.

Run as ``python -m load_tests.timing.flood HOST:PORT MODEL``; ``Flood`` does. It asks about inputs
of its own in batches, closed loop, as the Sample attack does with real images (``--data``). Its
standard input is its life line: once that is closed, which the kernel does even for a parent
that was killed, it prints what it did as JSON and ends. ``--seconds`` bounds it besides.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import load_tests
from exporters import datasets
from load_tests.endpoint import API_KEY_VARIABLE, OPEN, Access, EndpointError, connect
from load_tests.timing.closed_loop import ClosedLoop
from load_tests.timing.prepared import Preparer, RefusedError
from postprocess.errors import ReverseSigmoidError

CONCURRENCY = 4
BATCH = 8
#: Requests with inputs of their own, asked in turn.
REQUESTS = 64
READY = "flooding"
#: How long a request that is under way when the thief has to end is waited for.
PATIENCE_S = 5


class Flood:
    """The process, as a context manager: it queries inside the block and is gone after it."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        seed: int,
        bound_s: float,
        data: tuple[str, Path | None],
        access: Access = OPEN,
    ) -> None:
        """Say whom to query.

        Args:
            url: HOST:PORT of Triton's gRPC endpoint.
            model: its name.
            seed: of the inputs.
            bound_s: the process ends by itself after this time.
            data: a data set's name, "" for random inputs, and its --data-dir.
            access: what the endpoint asks of its clients.
        """
        name, folder = data
        self._command = [
            *(sys.executable, "-m", "load_tests.timing.flood", url, model),
            *("--seed", str(seed), "--seconds", str(bound_s), "--data", name),
            *(("--data-dir", str(folder.resolve())) if folder else ()),
            *(("--tls-ca", str(access.tls_ca.resolve())) if access.tls_ca else ()),
        ]
        self._environment = dict(os.environ)  # other users may read a command line
        self._environment.pop(API_KEY_VARIABLE, None)
        if access.api_key is not None:
            self._environment[API_KEY_VARIABLE] = access.api_key
        #: What the thief did, once the block is left: batch, requests, errors, seconds.
        self.done: dict[str, Any] = {}

    def __enter__(self) -> "Flood":
        """Start it and wait until it is under way.

        Raises:
            EndpointError: it could not begin.
        """
        self._process = subprocess.Popen(
            self._command,
            cwd=Path(load_tests.__file__).parents[1],  # where -m finds this very package
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent alone
        )
        try:
            stdout = self._process.stdout
            if stdout is None or stdout.readline().strip() != READY:
                raise self._ended()
        except BaseException:
            self._kill()
            raise
        return self

    def check(self) -> None:
        """Return if the thief is still at it.

        Raises:
            EndpointError: it is not.
        """
        if self._process.poll() is not None:
            raise self._ended()

    def _ended(self) -> EndpointError:
        lines = self._process.communicate()[1].strip().splitlines()
        why = lines[-1] if lines else f"exit code {self._process.returncode}"
        return EndpointError(f"the thief ended early: {why}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it end, and kill it if it does not."""
        try:
            if kind is None:
                said, _ = self._process.communicate(timeout=2 * PATIENCE_S)  # closes its stdin
                self.done = json.loads(said)
        except (subprocess.TimeoutExpired, ValueError):
            raise EndpointError("the thief did not say what it did") from None
        finally:
            self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None and not stream.closed:
                stream.close()


def main() -> int:
    """Query until standard input is closed, or the time is over; return an exit code."""
    parser = argparse.ArgumentParser(prog="python -m load_tests.timing.flood")
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--data", default="")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tls-ca", type=Path)
    arguments = parser.parse_args()
    try:
        print(json.dumps(_flood(arguments)), flush=True)
    except ReverseSigmoidError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _flood(arguments: argparse.Namespace) -> dict[str, Any]:
    url, rng = arguments.url, np.random.default_rng(arguments.seed)
    images = datasets.load(arguments.data, arguments.data_dir).x_train if arguments.data else None
    access = Access(os.environ.get(API_KEY_VARIABLE), arguments.tls_ca)
    with ClosedLoop(url, CONCURRENCY, access) as clients, closing(connect(url, access)) as client:
        threading.Thread(target=_follow_parent, args=(clients,), daemon=True).start()
        preparer = Preparer(client, url, arguments.model, images=images)
        try:
            rows = preparer.request(BATCH, rng=rng).rows
        except RefusedError:
            rows = 1
        requests = [preparer.request(rows, rng=rng) for _ in range(REQUESTS)]
        print(READY, flush=True)
        done = clients.run(requests, clients=CONCURRENCY, seconds=arguments.seconds)
    answered = len(done.latencies_ms)
    return {
        "concurrency": CONCURRENCY,
        "batch": rows,
        "seconds": done.seconds,
        "requests": answered,
        "errors": done.errors,
        "rows_per_second": answered * rows / max(done.seconds, 1e-9),
    }


def _follow_parent(clients: ClosedLoop) -> None:
    """Stop once standard input is closed, even if the server leaves a request unanswered."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    clients.stop()
    time.sleep(PATIENCE_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())

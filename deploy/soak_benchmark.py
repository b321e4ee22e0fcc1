"""Half the load that the gateway can take, for half an hour: what fails, and whose memory grows.

Run as ``python -m deploy.soak_benchmark REPOSITORY OPERATOR MODEL``. It runs ``reverse-sigmoid
serve REPOSITORY --gateway OPERATOR``, measures in a closed loop how many requests a second that
answers, and then sends a share of them, evenly, with the API key of the first client that has no
budget. Memory is resident size, of every process that ``serve`` has started.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deploy.operator_file import Operator, read
from load_tests.closed_loop import TIMEOUT_S, ClosedLoop, Request, one_line
from load_tests.endpoint import Access, EndpointError, connect
from load_tests.prepared import Preparer
from postprocess.errors import InputError

STARTUP_S = 120.0
SATURATION_S = 20.0
#: Between two looks at the memory.
LOOK_S = 10.0
#: How much of the run is warm-up.
WARM_UP_SHARE = 1 / 6


def main() -> None:
    """Measure, and print JSON; exit 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.soak_benchmark")
    parser.add_argument("repository", type=Path)
    parser.add_argument("operator", type=Path)
    parser.add_argument("model")
    parser.add_argument("--ca", type=Path, help="certificates to trust, where the operator has TLS")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--share", type=float, default=0.5, help="of the saturation load")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    operator = read(asked.operator)
    serve = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("reverse-sigmoid")), "serve"),
            *(str(asked.repository), "--gateway", str(asked.operator)),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        report = _soak(asked, operator, serve)
    finally:
        serve.terminate()
        serve.wait()
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["failures"]))


def _soak(
    asked: argparse.Namespace, operator: Operator, serve: subprocess.Popen[bytes]
) -> dict[str, Any]:
    url = f"{operator.listen.host}:{operator.listen.port}"
    key = next((one.key for one in operator.clients if one.budget is None), None)
    if key is None:
        raise InputError(f"{asked.operator}: clients: expected one without a budget")
    access = Access(key, asked.ca)
    with connect(url, access) as client:
        request = _ready(client, url, asked, serve)
    with ClosedLoop(url, asked.clients, access) as loop:
        loop.run([request], clients=asked.clients, seconds=SATURATION_S / 4)  # warms up
        saturation = loop.run([request], clients=asked.clients, seconds=SATURATION_S)
    if saturation.errors:
        raise SystemExit(f"{saturation.errors} requests failed at once: {saturation.error}")
    rate = asked.share * len(saturation.latencies_ms) / saturation.seconds
    paced = _Paced(url, access, request, rate=rate, clients=asked.clients)
    memory = _Memory(psutil.Process(serve.pid), asked.minutes * 60)
    with ThreadPoolExecutor(asked.clients + 1) as threads:
        watching = threads.submit(memory.watch)
        sending = [threads.submit(paced.send, number) for number in range(asked.clients)]
        try:
            watching.result()
        finally:
            paced.stop.set()
        for one in sending:
            one.result()
    latencies = np.concatenate(paced.latencies_ms)
    return {
        "command": " ".join(
            [Path(sys.executable).name, "-m", "deploy.soak_benchmark", *sys.argv[1:]]
        ),
        "minutes": asked.minutes,
        "saturation_requests_per_second": len(saturation.latencies_ms) / saturation.seconds,
        "requests_per_second": len(latencies) / (asked.minutes * 60),
        "requests": len(latencies),
        "failures": paced.failures,
        **{
            f"latency_p{percentile}_ms": float(np.percentile(latencies, percentile))
            for percentile in (50, 95, 99)
        },
        "memory": memory.report(),
    }


def _ready(
    client: Any, url: str, asked: argparse.Namespace, serve: subprocess.Popen[bytes]
) -> Request:
    """Return a request that has been answered."""
    deadline = time.monotonic() + STARTUP_S
    while True:
        try:
            preparer = Preparer(client, url, asked.model)
            return preparer.request(asked.batch, rng=np.random.default_rng(asked.seed))
        except EndpointError:
            if serve.poll() is not None:
                raise SystemExit("serve has ended; what it said is above") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


class _Paced:
    """Clients that send at given times; an answer's time counts from when it was due."""

    def __init__(
        self, url: str, access: Access, request: Request, *, rate: float, clients: int
    ) -> None:
        self._url, self._access, self._request = url, access, request
        self._period, self._clients = clients / rate, clients
        self._start = time.monotonic()
        self.stop = threading.Event()
        self.failures: dict[str, int] = defaultdict(int)
        self.latencies_ms: list[list[float]] = [[] for _ in range(clients)]

    def send(self, number: int) -> None:
        from tritonclient.utils import InferenceServerException

        latencies = self.latencies_ms[number]
        due = self._start + self._period * number / self._clients
        with connect(self._url, self._access, own_connection=True) as client:
            while not self.stop.wait(max(0.0, due - time.monotonic())):
                try:
                    client.infer(
                        self._request.model, self._request.inputs, client_timeout=TIMEOUT_S
                    )
                except InferenceServerException as error:
                    self.failures[one_line(error)] += 1
                else:
                    latencies.append((time.monotonic() - due) * 1000)
                due += self._period


class _Memory:
    """The resident sizes of a process and all under it, over time."""

    def __init__(self, root: psutil.Process, seconds: float) -> None:
        self._root, self._seconds = root, seconds
        self._seen: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)

    def watch(self) -> None:
        start = time.monotonic()
        while (at := time.monotonic() - start) < self._seconds:
            for process in (self._root, *self._root.children(recursive=True)):
                try:
                    name = process.name(), process.pid
                    self._seen[name].append((at, process.memory_info().rss))
                except psutil.NoSuchProcess:
                    continue
            left = (self._seconds - at) / 60
            print(f"{left:.0f} min left", file=sys.stderr, flush=True)
            time.sleep(min(LOOK_S, max(0.1, self._seconds - at)))

    def report(self) -> list[dict[str, Any]]:
        """Return, for each process, its size after the warm-up and at the end."""
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
                    "mib_after_warm_up": before / 2**20,
                    "mib_at_the_end": after / 2**20,
                    "ratio": after / before if before else None,
                }
            )
        return rows


if __name__ == "__main__":
    main()

"""Half the load that the gateway can take, for half an hour: what fails, and whose memory grows.

Run as ``python -m deploy.benchmarks.soak REPOSITORY OPERATOR MODEL``. It runs ``reverse-sigmoid
serve REPOSITORY --gateway OPERATOR``, measures in a closed loop how many requests a second that
answers, and then sends a share of them, evenly, with the API key of the first client that has no
budget. Memory is resident size, of every process that ``serve`` has started.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deploy.gateway.operator_file import Operator, read
from deploy.processes.memory import Memory
from load_tests.endpoint import Access, EndpointError, connect
from load_tests.timing.closed_loop import TIMEOUT_S, ClosedLoop, Request, one_line
from load_tests.timing.paced import Ask, Paced
from load_tests.timing.prepared import Preparer
from postprocess.errors import InputError

STARTUP_S = 120.0
SATURATION_S = 20.0


def main() -> None:
    """Measure, and print JSON; exit 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.benchmarks.soak")
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
    memory = Memory(psutil.Process(serve.pid), asked.minutes * 60)
    client = partial(_client, url, access, request)
    with Paced([client] * asked.clients, rate=rate) as paced:
        memory.watch()
    latencies = np.concatenate(paced.latencies_ms)
    return {
        "command": " ".join(
            [Path(sys.executable).name, "-m", "deploy.benchmarks.soak", *sys.argv[1:]]
        ),
        "minutes": asked.minutes,
        "saturation_requests_per_second": len(saturation.latencies_ms) / saturation.seconds,
        "requests_per_second": len(latencies) / (asked.minutes * 60),
        "requests": len(latencies),
        "failures": dict(paced.failures),
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


@contextmanager
def _client(url: str, access: Access, request: Request) -> Iterator[Ask]:
    """Yield one client's question, over a connection of its own."""
    from tritonclient.utils import InferenceServerException

    with connect(url, access, own_connection=True) as client:

        def ask() -> str:
            try:
                client.infer(request.model, request.inputs, client_timeout=TIMEOUT_S)
            except InferenceServerException as error:
                return one_line(error)
            return ""

        yield ask


if __name__ == "__main__":
    main()

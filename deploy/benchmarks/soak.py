"""Half the load that the gateway can take, for half an hour: what fails, and whose memory grows.

Run as ``python -m deploy.benchmarks.soak REPOSITORY OPERATOR MODEL``. It runs ``reverse-sigmoid
serve REPOSITORY --gateway OPERATOR``, measures in a closed loop how many requests a second that
answers, and then sends a share of them, evenly, with the API key of the first client that has no
budget. Memory is resident size, of every process that ``serve`` has started.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import psutil

from deploy.benchmarks import arguments
from deploy.benchmarks.gateway_run import GatewayRun, run
from deploy.processes.memory import Memory
from load_tests.asking.endpoint import Access, connect
from load_tests.asking.failures import said_by
from load_tests.timing.closed_loop import TIMEOUT_S, ClosedLoop, Request
from load_tests.timing.paced import Ask, Paced
from load_tests.timing.prepared import Preparer

SATURATION_S = 20.0


def main() -> None:
    """Measure, and print JSON; exit 1 if a request failed."""
    shared = ("repository", "operator", "model", "--ca", "--minutes", "--clients", "--batch")
    parser = arguments.parser("soak", *shared, "--seed")
    parser.add_argument("--share", type=float, default=0.5, help="of the saturation load")
    asked = parser.parse_args()
    with run(asked.repository, asked.operator) as running:
        report = _soak(asked, running)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["failures"]))


def _soak(asked: argparse.Namespace, running: GatewayRun) -> dict[str, Any]:
    (honest,) = running.unlimited(1)
    url, access = running.url, Access(honest.key, asked.ca)
    running.wait(asked.model, access)
    with connect(url, access) as client:
        preparer = Preparer(client, url, asked.model)
        request = preparer.request(asked.batch, rng=np.random.default_rng(asked.seed))
    with ClosedLoop(url, asked.clients, access) as loop:
        loop.run([request], clients=asked.clients, seconds=SATURATION_S / 4)  # warms up
        saturation = loop.run([request], clients=asked.clients, seconds=SATURATION_S)
    if saturation.errors:
        raise SystemExit(f"{saturation.errors} requests failed at once: {saturation.error}")
    rate = asked.share * len(saturation.latencies_ms) / saturation.seconds
    memory = Memory(psutil.Process(running.process.pid), asked.minutes * 60)
    client = partial(_client, url, access, request)
    with Paced([client] * asked.clients, rate=rate) as paced:
        memory.watch()
    latencies = np.concatenate(paced.latencies_ms)
    return {
        "command": arguments.command("soak"),
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


@contextmanager
def _client(url: str, access: Access, request: Request) -> Iterator[Ask]:
    """Yield one client's question, over a connection of its own."""
    from tritonclient.utils import InferenceServerException

    with connect(url, access, own_connection=True) as client:

        def ask() -> str:
            try:
                client.infer(request.model, request.inputs, client_timeout=TIMEOUT_S)
            except InferenceServerException as error:
                return said_by(error)
            return ""

        yield ask


if __name__ == "__main__":
    main()

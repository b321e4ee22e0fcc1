"""What the gateway takes for an error that a client has made long.

Run as ``python -m deploy.benchmarks.scrub REPOSITORY MODEL``. Triton repeats a request's identifier
in what it says about the request, up to the 60 KiB of headers that Envoy takes from it. Each length
is asked through the real gateway and directly; the difference is the gateway's, and must not grow
faster than the length: a thread of Envoy's does nothing else meanwhile.
"""

import json
import statistics
import time
from contextlib import ExitStack
from typing import Any

import numpy as np

from deploy.benchmarks import arguments
from deploy.benchmarks.gateway import gateway_before
from deploy.triton.server import on_free_ports
from load_tests.asking.endpoint import OPEN, connect
from load_tests.timing.interleaved import turns

LENGTHS = (10, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000)


def main() -> None:
    """Measure, and print a line of JSON for each length."""
    parser = arguments.parser("scrub", "repository", "model", "--seed")
    parser.add_argument("--times", type=int, default=20, help="each length, taking turns")
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    with ExitStack() as stack:
        server = stack.enter_context(on_free_ports(asked.repository))
        url, access = stack.enter_context(gateway_before(server, asked.model))
        clients = {
            "gateway": stack.enter_context(connect(url, access)),
            "direct": stack.enter_context(connect(server.grpc_url, OPEN)),
        }
        for length in LENGTHS:
            taken: dict[str, list[float]] = {name: [] for name in clients}
            for _, name in turns(clients, asked.times, rng):
                taken[name].append(milliseconds(clients[name], asked.model, "Z" * length))
            line: dict[str, Any] = {"length": length}
            for name, ones in taken.items():
                line[f"{name}_p50_ms"] = round(statistics.median(ones), 2)
                line[f"{name}_worst_ms"] = round(max(ones), 2)
            print(json.dumps(line), flush=True)


def milliseconds(client: Any, model: str, identifier: str) -> float:
    """Return how long it takes to be told that a request without inputs is none."""
    from tritonclient.utils import InferenceServerException

    began = time.perf_counter()
    try:
        client.infer(model, [], request_id=identifier)
    except InferenceServerException:
        return (time.perf_counter() - began) * 1e3
    raise RuntimeError(f"{model}: answers a request without inputs")


if __name__ == "__main__":
    main()

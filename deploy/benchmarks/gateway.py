"""What the gateway costs: one ensemble asked directly, through Envoy, and through Envoy with TLS.

Run as ``python -m deploy.benchmarks.gateway REPOSITORY MODEL``. All routes lead to the same Triton;
in every round each gets a slice of one closed loop, in an order drawn anew. The gateways check an
API key, the model's name and a budget, as in production; the direct route checks nothing, and the
bare Envoy only forwards: the difference to it is what our checks cost.
"""

import argparse
import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.benchmarks import arguments
from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.operator_file import Budget, Client, Limits, Operator, Tls
from deploy.gateway.process import Gateway, write_private
from deploy.triton.server import TritonServer, free_ports, on_free_ports
from load_tests.asking.address import Address
from load_tests.asking.endpoint import OPEN, Access, connect
from load_tests.timing import interleaved
from load_tests.timing.closed_loop import ClosedLoop, Request, Slice
from load_tests.timing.paired_rounds import Rounds, ratios, summary
from load_tests.timing.prepared import Preparer

#: More than a run can spend, so that the bucket is asked and never empty.
BUDGET = Budget(10**9, 86400)


def main() -> None:
    """Measure, and print a line of JSON."""
    parser = arguments.parser("gateway", "repository", "model", "--ca", "--batch", "--seed")
    parser.add_argument("--certificate", type=Path, help="PEM; with --key, TLS is measured too")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--slice-seconds", type=float, default=0.1)
    asked = parser.parse_args()
    if bool(asked.certificate) != bool(asked.key):
        parser.error("--certificate and --key go together")
    with ExitStack() as stack:
        server = stack.enter_context(on_free_ports(asked.repository))
        routes = {"direct": (server.grpc_url, OPEN)}
        for name, kind, tls in _gateways(asked):
            gateway = gateway_before(server, asked.model, kind=kind, tls=tls, ca=asked.ca)
            routes[name] = stack.enter_context(gateway)
        report = _measure(asked, routes)
    print(json.dumps(report, indent=2))


class _BareEnvoy(Gateway):
    """An Envoy that forwards to the same routes without looking."""

    def _command(self, configuration: Path) -> list[str]:
        import yaml

        content = yaml.safe_load(configuration.read_bytes())
        (chain,) = content["static_resources"]["listeners"][0]["filter_chains"]
        manager = chain["filters"][-1]["typed_config"]
        manager["http_filters"] = manager["http_filters"][-1:]
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
            route.pop("typed_per_filter_config", None)
        write_private(configuration, yaml.safe_dump(content).encode())
        return super()._command(configuration)


def _gateways(asked: argparse.Namespace) -> Iterator[tuple[str, type[Gateway], Tls | None]]:
    yield "bare Envoy", _BareEnvoy, None
    yield "gateway", Gateway, None
    if asked.certificate and asked.key:
        yield "gateway with TLS", Gateway, Tls(asked.certificate.resolve(), asked.key.resolve())


@contextmanager
def gateway_before(
    server: TritonServer,
    model: str,
    *,
    kind: type[Gateway] = Gateway,
    tls: Tls | None = None,
    ca: Path | None = None,
) -> Iterator[tuple[str, Access]]:
    """Run a gateway before a server; yield where it listens and what it asks."""
    ports, key = free_ports(), secrets.token_hex(16)
    operator = Operator(
        listen=Address("127.0.0.1", ports.grpc),
        tls=tls,
        models=(model,),
        clients=(Client("benchmark", key, BUDGET, (model,)),),
        rate=None,
        limits=Limits(),
        statistics=Address("127.0.0.1", ports.http),
        ratelimit_service=None,
        queries_per_request=1,
        files=(),
    )
    upstream = Upstream(
        Address("127.0.0.1", server.ports.grpc), Address("127.0.0.1", server.ports.http)
    )
    access = Access(key, ca if tls else None)
    with kind(operator, upstream, "none", log=server.log.with_name(f"envoy{ports.grpc}.log")):
        yield f"127.0.0.1:{ports.grpc}", access


def _measure(asked: argparse.Namespace, routes: dict[str, tuple[str, Access]]) -> dict[str, Any]:
    rng = np.random.default_rng(asked.seed)
    with ExitStack() as stack:
        loops = {
            name: stack.enter_context(ClosedLoop(url, 1, access))
            for name, (url, access) in routes.items()
        }
        url, _ = routes["direct"]
        client = stack.enter_context(connect(url))
        request = Preparer(client, url, asked.model).request(asked.batch, rng=rng)
        slices = interleaved.measure(
            {name: partial(_ask, loop, request) for name, loop in loops.items()},
            seconds=asked.slice_seconds * asked.rounds,
            rounds=asked.rounds,
            rng=rng,
        )
    rounds = {name: Rounds(ones, rows=asked.batch) for name, ones in slices.items()}
    return {
        "model": asked.model,
        "batch": asked.batch,
        "rounds": len(rounds["direct"]),
        "slice_seconds": asked.slice_seconds,
        "seed": asked.seed,
        "routes": {name: summary(one) for name, one in rounds.items()},
        "ratio": {
            name: ratios(one, rounds["direct"], rng=rng)
            for name, one in rounds.items()
            if name != "direct"
        },
        "ratio_to_bare_envoy": {
            name: ratios(one, rounds["bare Envoy"], rng=rng)
            for name, one in rounds.items()
            if name.startswith("gateway")
        },
    }


def _ask(loop: ClosedLoop, request: Request, seconds: float) -> Slice:
    return loop.run([request], clients=1, seconds=seconds)


if __name__ == "__main__":
    main()

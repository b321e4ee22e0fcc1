"""Envoy's whole configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.gateway.envoy.access_log import Logs, access_logs
from deploy.gateway.envoy.bounds import Module, source_bound
from deploy.gateway.envoy.counted import CLIENT
from deploy.gateway.envoy.filters import http_filters
from deploy.gateway.envoy.overload import FLUSH, HANDSHAKE, IDLE, WATCHDOG, WINDOW, overload_manager
from deploy.gateway.envoy.replies import local_replies
from deploy.gateway.envoy.routes import virtual_host
from deploy.gateway.envoy.typed import named, typed
from deploy.gateway.operator_file import Operator
from load_tests.asking.address import Address

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
#: A connection whose client resets a hundred streams in one breath lets the others through.
_RUNTIME = {"http.max_requests_per_io_cycle": 1}


@dataclass(frozen=True)
class Upstream:
    """Where Triton listens, and what else only the server knows."""

    grpc: Address
    http: Address
    hidden: Sequence[str] = ()  #: names of inner models and tensors, to be kept from clients


def bootstrap(
    operator: Operator,
    upstream: Upstream,
    folder: Path,
    *,
    socket: Path,
    module: Module,
    logs: Logs,
) -> dict[str, Any]:
    """Return the configuration, to be written as JSON or YAML.

    Args:
        operator: who may ask what.
        upstream: where Triton is.
        folder: where Envoy finds what else ``gateway`` writes.
        socket: of Envoy's admin interface.
        module: our own filters.
        logs: where a line for each request goes.
    """
    service = operator.ratelimit_service
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        # Not a port: whoever reaches it can stop the gateway and read every key.
        "admin": {"address": {"pipe": {"path": str(socket), "mode": 0o600}}},
        "overload_manager": overload_manager(operator.limits),
        "watchdogs": dict.fromkeys(("main_thread_watchdog", "worker_watchdog"), WATCHDOG),
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RUNTIME}]},
        "static_resources": {
            "listeners": [
                _public(operator, upstream, folder, module, logs),
                _statistics(operator.statistics),
            ],
            "clusters": [
                _cluster("triton_grpc", upstream.grpc, http2=True),
                _cluster("triton_http", upstream.http),
                *([_cluster("ratelimit", service, http2=True)] if service else []),
                _admin(socket),
            ],
        },
    }


def _public(
    operator: Operator, upstream: Upstream, folder: Path, module: Module, logs: Logs
) -> dict[str, Any]:
    limits = operator.limits
    manager = named(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        stat_prefix="public",
        codec_type="AUTO",
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        use_remote_address=True,
        generate_request_id=False,  # nobody reads it
        request_headers_timeout="10s",
        drain_timeout="2s",  # of a connection that is being closed
        request_timeout=f"{limits.timeout_seconds}s",
        stream_idle_timeout=f"{limits.timeout_seconds + 5}s",
        stream_flush_timeout=FLUSH,
        common_http_protocol_options={
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": IDLE,
        },
        http2_protocol_options={
            "max_concurrent_streams": 256,
            "initial_stream_window_size": WINDOW,
            "initial_connection_window_size": 2 * WINDOW,
        },
        # Whose request it is says the key alone.
        early_header_mutation_extensions=[_without(CLIENT)],
        route_config={"name": "public", "virtual_hosts": [virtual_host(operator)]},
        local_reply_config=local_replies(operator),
        http_filters=http_filters(operator, folder, upstream.hidden, module),
        access_log=access_logs(logs),
    )
    connection_limit = named(
        "envoy.filters.network.connection_limit",
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix="public",
        max_connections=limits.connections,
    )
    chain: dict[str, Any] = {
        # In this order: Envoy's own filter counts down what closes, even what it never counted.
        "filters": [connection_limit, source_bound(operator, module), manager],
        "transport_socket_connect_timeout": HANDSHAKE,
    }
    if operator.tls is not None:
        chain["transport_socket"] = _tls(folder)
    return {
        "name": "public",
        "address": _socket(operator.listen),
        "per_connection_buffer_limit_bytes": WINDOW,
        "filter_chains": [chain],
    }


def _without(header: str) -> dict[str, Any]:
    return named(
        "envoy.http.early_header_mutation.header_mutation",
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"remove": header}],
    )


def _tls(folder: Path) -> dict[str, Any]:
    certificate = {
        "certificate_chain": {"filename": str(folder / "tls.crt")},
        "private_key": {"filename": str(folder / "tls.key")},
    }
    return named(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": [certificate],
        },
    )


def _statistics(address: Address) -> dict[str, Any]:
    """Prometheus's numbers, and nothing else of the admin interface."""
    only = {
        "match": {
            "path": "/stats/prometheus",
            "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
        },
        "route": {"cluster": "admin", "timeout": "5s"},
    }
    manager = named(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        stat_prefix="statistics",
        request_headers_timeout="10s",
        stream_idle_timeout="30s",
        common_http_protocol_options={"idle_timeout": IDLE},
        route_config={
            "name": "statistics",
            "virtual_hosts": [{"name": "statistics", "domains": ["*"], "routes": [only]}],
        },
        http_filters=[
            named("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")
        ],
    )
    return {
        "name": "statistics",
        "address": _socket(address),
        "filter_chains": [{"filters": [manager]}],
    }


def _socket(address: Address) -> dict[str, Any]:
    socket: dict[str, Any] = {"address": address.host, "port_value": address.port}
    if address.host == "::":  # as everywhere else: of both kinds
        socket["ipv4_compat"] = True
    return {"socket_address": socket}


def _cluster(name: str, address: Address, *, http2: bool = False) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": WINDOW,
        "load_assignment": _endpoint(name, _socket(address)),
    }
    if http2:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={
                    "http2_protocol_options": {
                        "initial_stream_window_size": WINDOW,
                        "initial_connection_window_size": 16 * WINDOW,
                    }
                },
            )
        }
    return cluster


def _admin(socket: Path) -> dict[str, Any]:
    return {
        "name": "admin",
        "connect_timeout": "1s",
        "load_assignment": _endpoint("admin", {"pipe": {"path": str(socket)}}),
    }


def _endpoint(name: str, address: dict[str, Any]) -> dict[str, Any]:
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }

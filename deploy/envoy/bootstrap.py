"""Envoy's whole configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.envoy.bounds import Module, source_bound
from deploy.envoy.counted import CLIENT
from deploy.envoy.filters import http_filters
from deploy.envoy.replies import local_replies
from deploy.envoy.routes import virtual_host
from deploy.envoy.typed import named, typed
from deploy.operator_file import MIB, Address, Operator

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True)
class Upstream:
    """Where Triton listens, and what else only the server knows."""

    grpc: Address
    http: Address
    hidden: Sequence[str] = ()  #: names of inner models, to be kept from clients


def bootstrap(
    operator: Operator,
    upstream: Upstream,
    folder: Path,
    *,
    socket: Path,
    module: Module,
    access_log: str | None = "/dev/stdout",
) -> dict[str, Any]:
    """Return the configuration, to be written as JSON or YAML.

    Args:
        operator: who may ask what.
        upstream: where Triton is.
        folder: where Envoy finds what else ``gateway`` writes.
        socket: of Envoy's admin interface.
        module: our own filters.
        access_log: a file for one JSON line a request, None for none.
    """
    service = operator.ratelimit_service
    return {
        "node": {"id": "gateway", "cluster": "gateway"},
        # Not a port: whoever reaches it can stop the gateway and read every key.
        "admin": {"address": {"pipe": {"path": str(socket), "mode": 0o600}}},
        "static_resources": {
            "listeners": [
                _public(operator, upstream, folder, module, access_log),
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
    operator: Operator, upstream: Upstream, folder: Path, module: Module, access_log: str | None
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
        request_timeout=f"{limits.timeout_seconds}s",
        stream_idle_timeout=f"{limits.timeout_seconds + 5}s",
        common_http_protocol_options={
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": "3600s",
        },
        http2_protocol_options={
            "max_concurrent_streams": 256,
            # The whole message has to fit, to be looked into.
            "initial_stream_window_size": limits.request_mib * MIB,
            "initial_connection_window_size": limits.request_mib * MIB,
        },
        route_config={"name": "public", "virtual_hosts": [virtual_host(operator)]},
        local_reply_config=local_replies(operator),
        http_filters=http_filters(operator, folder, upstream.hidden, module),
        access_log=[] if access_log is None else [_access_log(access_log)],
    )
    connection_limit = named(
        "envoy.filters.network.connection_limit",
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        stat_prefix="public",
        max_connections=limits.connections,
    )
    # In this order: Envoy's own filter counts down what closes, even if it has not seen it open.
    chain: dict[str, Any] = {"filters": [connection_limit, source_bound(operator, module), manager]}
    if operator.tls is not None:
        chain["transport_socket"] = _tls(folder)
    return {
        "name": "public",
        "address": _socket(operator.listen),
        "per_connection_buffer_limit_bytes": limits.request_mib * MIB,
        "filter_chains": [chain],
    }


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


def _access_log(path: str) -> dict[str, Any]:
    line = {
        "time": "%START_TIME%",
        "client": f"%REQ({CLIENT})%",
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "why": "%RESPONSE_CODE_DETAILS%",
        "bytes": "%BYTES_RECEIVED%",
        "milliseconds": "%DURATION%",
    }
    return named(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": line},
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
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _cluster(name: str, address: Address, *, http2: bool = False) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 64 * MIB,
        "load_assignment": _endpoint(name, _socket(address)),
    }
    if http2:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}},
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

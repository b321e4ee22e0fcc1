"""What is let through: inference and metadata of public models, and health. Nothing else."""

import re
from typing import Any

from deploy.gateway.envoy.counted import CLIENT, counted, counts_here
from deploy.gateway.envoy.typed import typed
from deploy.gateway.operator_file import Operator
from load_tests.asking.endpoint import SERVICE

#: Method to the field of its request that names the model.
MODEL_FIELD = {"ModelInfer": "model_name", "ModelMetadata": "name", "ModelReady": "name"}
HEALTH_METHODS = ("ServerLive", "ServerReady")
#: Of everything but inference: seconds, and bytes, which are asked for before a key is.
QUICK = "5s"
SMALL_KIB = 64
#: What Envoy takes for gRPC and answers in kind.
GRPC_CONTENT = {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}
STREAMING = f"{SERVICE}/ModelStreamInfer"
API_KEY, BUFFER, GUARD, EXTRACTION, ALLOWED, AT_ONCE, BUDGET, SHARED_BUDGET = (
    "envoy.filters.http.api_key_auth",
    "envoy.filters.http.buffer",
    "envoy.filters.http.dynamic_modules.message",
    "envoy.filters.http.grpc_field_extraction",
    "envoy.filters.http.rbac",
    "envoy.filters.http.dynamic_modules.at_once",
    "envoy.filters.http.dynamic_modules.budget",
    "envoy.filters.http.ratelimit",
)


def path_of(*models: str) -> str:
    """Return a pattern of what the paths of these models begin with, over HTTP."""
    return f"/v2/models/({'|'.join(map(re.escape, models))})(/versions/[0-9]+)?"


def virtual_host(operator: Operator) -> dict[str, Any]:
    """Return the routes, the last of which forbids whatever no other one takes."""
    infer_timeout = f"{operator.limits.timeout_seconds}s"
    model = path_of(*operator.models, *operator.raw_models)
    off = _off(*_limits(operator)) | _small()
    open_to_all = off | _off(API_KEY, AT_ONCE)
    shared = {"rate_limits": [counted(operator)]} if operator.ratelimit_service else {}
    return shared | {
        "name": "all",
        "domains": ["*"],
        # A deadline of the client's would let it cancel work inside Triton.
        "request_headers_to_remove": ["grpc-timeout"],
        # Of no effect on routing: queries of each client, for Prometheus.
        "virtual_clusters": [
            {
                "name": client.name,
                "headers": [
                    {"name": CLIENT, "string_match": {"exact": client.name}},
                    {"name": ":path", "string_match": {"safe_regex": {"regex": ".*[Ii]nfer$"}}},
                ],
            }
            for client in operator.clients
        ],
        "routes": [
            *_refused(operator),
            _grpc("ModelInfer", infer_timeout),
            _grpc("ModelMetadata", QUICK, off),
            _grpc("ModelReady", QUICK, off),
            *(_grpc(method, QUICK, open_to_all) for method in HEALTH_METHODS),
            _http("infer", f"{model}/infer", "POST", infer_timeout),
            _http("model", f"{model}(/ready)?", "GET", QUICK, off),
            _http("health", "/v2/health/(live|ready)", "GET", QUICK, open_to_all),
            _refuse("forbidden", 403, {"prefix": "/"}, operator),
        ],
    }


def _refused(operator: Operator) -> list[dict[str, Any]]:
    """Return routes for what looks open and is not, each with a status that has its own reason."""
    grpc = {"name": "content-type", "string_match": GRPC_CONTENT}
    packed = {"name": "content-encoding", "present_match": True}
    packed_message = {
        "name": "grpc-encoding",
        "string_match": {"exact": "identity"},
        "invert_match": True,
        "treat_missing_header_as_empty": False,
    }
    return [
        _refuse("streaming", 403, {"path": STREAMING}, operator),
        # Nobody here can see which model a packed message names.
        _refuse("packed message", 404, {"prefix": SERVICE, "headers": [packed_message]}, operator),
        _refuse("grpc over http", 415, {"prefix": "/v2/", "headers": [grpc]}, operator),
        # Triton would unpack a small body to any size.
        _refuse("packed body", 415, {"prefix": "/v2/", "headers": [packed]}, operator),
    ]


def _refuse(name: str, status: int, match: dict[str, Any], operator: Operator) -> dict[str, Any]:
    """Return a route that refuses at the headers: neither waits for a body nor costs a query."""
    return {
        "name": name,
        "match": match,
        "direct_response": {"status": status},
        "typed_per_filter_config": _off(*_limits(operator), BUFFER, GUARD, EXTRACTION, ALLOWED),
    }


def _limits(operator: Operator) -> list[str]:
    shared = [SHARED_BUDGET] if operator.ratelimit_service else []
    return shared + ([BUDGET] if counts_here(operator) else [])


def _off(*filters: str) -> dict[str, Any]:
    """Return filters switched off, for a route."""
    return {name: typed("envoy.config.route.v3.FilterConfig", disabled=True) for name in filters}


def _small() -> dict[str, Any]:
    """Return the bound of a body where inference is not asked for, for a route."""
    per_route = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    return {BUFFER: typed(per_route, buffer={"max_request_bytes": SMALL_KIB * 1024})}


def _grpc(method: str, timeout: str, filters: dict[str, Any] | None = None) -> dict[str, Any]:
    match = {"path": f"{SERVICE}/{method}", "grpc": {}}
    return _route(method, match, "triton_grpc", timeout, filters)


def _http(
    name: str, path: str, method: str, timeout: str, filters: dict[str, Any] | None = None
) -> dict[str, Any]:
    match = {
        "safe_regex": {"regex": path},
        "headers": [{"name": ":method", "string_match": {"exact": method}}],
    }
    return _route(name, match, "triton_http", timeout, filters)


def _route(
    name: str, match: dict[str, Any], cluster: str, timeout: str, filters: dict[str, Any] | None
) -> dict[str, Any]:
    route = {
        "name": name,
        "match": match,
        "route": {"cluster": cluster, "timeout": timeout},
    }
    return route | ({"typed_per_filter_config": filters} if filters else {})

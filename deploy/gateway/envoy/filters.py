"""The chain of HTTP filters: the key, the budget, the body, the model, the secret, then Triton."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.gateway.envoy.bounds import SEEN, Module, http_bounds, message_guard
from deploy.gateway.envoy.counted import CLIENT, CLIENT_METADATA
from deploy.gateway.envoy.routes import (
    ALLOWED,
    API_KEY,
    BUFFER,
    EXTRACTION,
    HEALTH_METHODS,
    MODEL_FIELD,
    SHARED_BUDGET,
    path_of,
)
from deploy.gateway.envoy.scrub import scrubber
from deploy.gateway.envoy.typed import HTTP, named, typed
from deploy.gateway.operator_file import MIB, Operator
from load_tests.asking.endpoint import API_KEY_HEADER, SERVICE, TRITON_KEY_HEADER
from postprocess.ready import KEY_HEADER

#: Triton's names of the header that its restricted APIs demand, over HTTP and gRPC.
SECRET_HEADERS = (KEY_HEADER, TRITON_KEY_HEADER)
DOMAIN = "reverse_sigmoid"
#: Follows, in the access log, the name of a model that only ``raw: true`` lets ask.
RAW = " (raw)"


def http_filters(
    operator: Operator, folder: Path, hidden: Sequence[str], module: Module
) -> list[dict[str, Any]]:
    """Return the filters in the order that a request passes them; ``folder`` holds their files."""
    return [
        scrubber(hidden),  # the last that a response passes: it sees what all others have added
        _api_keys(operator),
        _known_client(),
        # Before the body: nobody makes the gateway keep one that will not be answered.
        *http_bounds(operator, module),
        *([_shared_budgets()] if operator.ratelimit_service else []),
        # Also makes one piece of a body sent in very many.
        named(
            BUFFER,
            f"{HTTP}.buffer.v3.Buffer",
            max_request_bytes=operator.limits.request_mib * MIB,
        ),
        message_guard(operator, module),
        _model_names(folder),
        _allowed(operator),
        *(_secret(header, folder) for header in SECRET_HEADERS),
        # Without the headers that tell a client how long the model took.
        named("envoy.filters.http.router", f"{HTTP}.router.v3.Router", suppress_envoy_headers=True),
    ]


def _api_keys(operator: Operator) -> dict[str, Any]:
    return named(
        API_KEY,
        f"{HTTP}.api_key_auth.v3.ApiKeyAuth",
        key_sources=[{"header": API_KEY_HEADER}],
        forwarding={"header": CLIENT, "hide_credentials": True},
        credentials=[
            {"key": client.key, "client": client.name} for client in operator.clients if client.key
        ],
    )


def _known_client() -> dict[str, Any]:
    """Keep the name that belongs to the key where no client can write: for the access log."""
    namespace, key = CLIENT_METADATA
    rule = {
        "header": CLIENT,
        "on_header_present": {"metadata_namespace": namespace, "key": key, "type": "STRING"},
    }
    return named(
        "envoy.filters.http.header_to_metadata",
        f"{HTTP}.header_to_metadata.v3.Config",
        request_rules=[rule],
    )


def _model_names(folder: Path) -> dict[str, Any]:
    return named(
        EXTRACTION,
        f"{HTTP}.grpc_field_extraction.v3.GrpcFieldExtractionConfig",
        descriptor_set={"filename": str(folder / "triton.pb")},
        extractions_by_method={
            f"{SERVICE[1:]}.{method}": {"request_field_extractions": {field: {}}}
            for method, field in MODEL_FIELD.items()
        },
    )


def _allowed(operator: Operator) -> dict[str, Any]:
    """Let each client name the models of its list, by a policy for each model.

    Only what the guard of messages has let pass goes on: a gateway without it lets nothing through.
    Who asks is read from where no client can write; health alone is for everybody.
    """
    health = [f"{SERVICE}/{method}" for method in HEALTH_METHODS]
    health += ["/v2/health/live", "/v2/health/ready"]
    policies = {"(health)": _policy([{"any": True}], [_path({"exact": path}) for path in health])}
    for model in (*operator.models, *operator.raw_models):
        names = [one.name for one in operator.clients if model in one.models]
        mark = RAW if model in operator.raw_models else ""
        if names:
            clients = [_is(CLIENT_METADATA, name) for name in names]
            policies[f"{model}{mark}"] = _policy(clients, _asking(model))
    return named(
        ALLOWED,
        f"{HTTP}.rbac.v3.RBAC",
        rules={"action": "ALLOW", "policies": policies},
    )


def _policy(who: list[dict[str, Any]], what: list[dict[str, Any]]) -> dict[str, Any]:
    rules = [_is(SEEN, "yes"), {"or_rules": {"rules": what}}]
    return {"principals": who, "permissions": [{"and_rules": {"rules": rules}}]}


def _asking(model: str) -> list[dict[str, Any]]:
    """Return the ways to ask for a model, each as a permission."""
    name = {"list_match": {"one_of": {"string_match": {"exact": model}}}}
    ways = [
        [_path({"exact": f"{SERVICE}/{method}"}), _metadata(EXTRACTION, field, name)]
        for method, field in MODEL_FIELD.items()
    ]
    path = f"{path_of(model)}(/infer|/ready)?"
    over_grpc = [{"and_rules": {"rules": rules}} for rules in ways]
    return [*over_grpc, _path({"safe_regex": {"regex": path}})]


def _path(match: dict[str, Any]) -> dict[str, Any]:
    return {"url_path": {"path": match}}


def _is(where: tuple[str, str], value: str) -> dict[str, Any]:
    return _metadata(*where, {"string_match": {"exact": value}})


def _metadata(namespace: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    matcher = {"filter": namespace, "path": [{"key": key}], "value": value}
    return {"sourced_metadata": {"metadata_source": "DYNAMIC", "metadata_matcher": matcher}}


def _shared_budgets() -> dict[str, Any]:
    """Ask the rate limit service, which counts for all gateways; without an answer, refuse."""
    return named(
        SHARED_BUDGET,
        f"{HTTP}.ratelimit.v3.RateLimit",
        domain=DOMAIN,
        failure_mode_deny=True,
        timeout="0.25s",
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        rate_limit_service={
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit"}},
        },
    )


def _secret(header: str, folder: Path) -> dict[str, Any]:
    """Add the header that Triton demands, over whatever a client has sent by that name."""
    source = {"path_config_source": {"path": str(folder / "triton_key.yaml")}}
    credential = typed(
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        header=header,
        credential={"name": "triton_key", "sds_config": source},
    )
    return named(
        f"envoy.filters.http.credential_injector.{header}",
        f"{HTTP}.credential_injector.v3.CredentialInjector",
        overwrite=True,
        credential={
            "name": "envoy.http.injected_credentials.generic",
            "typed_config": credential,
        },
    )

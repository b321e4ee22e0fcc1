"""What Envoy writes down of every request: one JSON line, in one of two files.

A key's queries stand in the first, which its budget and rate bound. Whatever else comes, which
anybody can send without end, stands in the second and never pushes the queries out.
"""

from dataclasses import dataclass
from typing import Any

from deploy.gateway.envoy.counted import CLIENT_METADATA
from deploy.gateway.envoy.routes import ALLOWED
from deploy.gateway.envoy.typed import named

#: Of what is refused and whom nobody knows, in percent, where both go to one stream.
SAMPLED = 1
STDOUT = "/dev/stdout"


@dataclass(frozen=True)
class Logs:
    """Where lines go; None for nowhere."""

    queries: str | None = STDOUT
    refused: str | None = STDOUT  #: and health checks; sampled if it is the same as ``queries``
    cut_off: str | None = None  #: requests that Triton was at when its connection broke


def access_logs(logs: Logs) -> list[dict[str, Any]]:
    """Return Envoy's access logs."""
    namespace, key = CLIENT_METADATA
    known = {"filter": namespace, "path": [{"key": key}], "value": {"present_match": True}}
    has_client = {"metadata_filter": {"matcher": known, "match_if_key_not_found": False}}
    spent = {"grpc_status_filter": {"statuses": ["RESOURCE_EXHAUSTED"]}}
    not_spent = {"grpc_status_filter": {"statuses": ["RESOURCE_EXHAUSTED"], "exclude": True}}
    queries = _all(has_client, not_spent, _any(_status("LE", 428), _status("GE", 430)))
    nobody = known | {"value": {"string_match": {"exact": "-"}}}  # nobody can be called so
    no_client = {"metadata_filter": {"matcher": nobody, "match_if_key_not_found": True}}
    refused = _any(no_client, spent, _status("EQ", 429))
    if logs.refused == logs.queries:
        refused = _all(refused, _sampled())
    # What the codes of Envoy's documentation call a connection that the upstream ended, or reset.
    cut_off = {"response_flag_filter": {"flags": ["UC", "UR"]}}
    pairs = ((logs.queries, queries), (logs.refused, refused), (logs.cut_off, cut_off))
    return [_file(path, only) for path, only in pairs if path is not None]


def _file(path: str, only: dict[str, Any]) -> dict[str, Any]:
    namespace, key = CLIENT_METADATA
    line = {
        "time": "%START_TIME%",
        # Not from a header, which anybody can send.
        "client": f"%DYNAMIC_METADATA({namespace}:{key})%",
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        # By which policy it was let through, which is called as its model.
        "model": f"%DYNAMIC_METADATA({ALLOWED}:enforced_effective_policy_id)%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "why": "%RESPONSE_CODE_DETAILS%",
        "bytes": "%BYTES_RECEIVED%",
        "milliseconds": "%DURATION%",
    }
    log = named(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": line},
    )
    return log | {"filter": only}


def _all(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": list(filters)}}


def _any(*filters: dict[str, Any]) -> dict[str, Any]:
    return {"or_filter": {"filters": list(filters)}}


def _status(operator: str, status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"gateway.log_{operator}_{status}"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}


def _sampled() -> dict[str, Any]:
    return {
        "runtime_filter": {
            "runtime_key": "gateway.log_sampled",
            "percent_sampled": {"numerator": SAMPLED, "denominator": "HUNDRED"},
            "use_independent_randomness": True,
        }
    }

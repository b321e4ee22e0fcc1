"""What the gateway says when it refuses: one line, in gRPC's message or as JSON over HTTP."""

from typing import Any

from deploy.operator_file import Operator

#: Begins whatever the gateway says itself, so that the scrubber leaves it alone.
OURS = "gateway: "
#: What our module refuses for, beside a spent budget; it tells by metadata of this name.
_AT_ONCE = ("requests_at_once", "bytes_at_once")
_METADATA = "reverse_sigmoid"
#: Stands for the seconds until the next query is granted; the filter in ``scrub`` knows them.
SECONDS = "@SECONDS@"
_SPENT = (
    "the query budget or rate limit of this API key is spent; it renews evenly over its period, "
    "the next query is granted in"
)


def local_replies(operator: Operator) -> dict[str, Any]:
    """Return the texts by HTTP status; Envoy turns the status into gRPC's own."""
    texts = {
        401: "no valid API key; send yours as x-api-key",
        403: f"only inference and metadata of {', '.join(operator.models)}, and health, "
        "are open to clients",
        404: "no such path",
        408: "the request was not sent in time",
        413: f"the request is larger than {operator.limits.request_mib} MiB",
        429: f"{_SPENT} {SECONDS} s",
        503: "the model server does not answer; ask again",
        504: f"the model did not answer within {operator.limits.timeout_seconds} s",
    }
    over_http = texts | {429: f"{_SPENT} as many seconds as x-ratelimit-reset says"}
    mappers = [
        _mapper(status, said[status], grpc=said is texts)
        for status in texts
        for said in (texts, over_http)
    ]
    at_once = dict(
        zip(
            _AT_ONCE,
            (
                f"this API key has {operator.limits.requests_per_key} requests under way, the most "
                "that it may have at once",
                f"the requests under way of this API key hold {operator.limits.mib_per_key} MiB, "
                "the most that they may hold at once",
            ),
            strict=True,
        )
    )
    busy = [
        _mapper(429, said, grpc=grpc, refused=reason)
        for reason, said in at_once.items()
        for grpc in (True, False)
    ]
    return {
        "mappers": busy + mappers,
        "body_format": {"text_format_source": {"inline_string": f"{OURS}refused"}},
    }


def _mapper(status: int, text: str, *, grpc: bool, refused: str | None = None) -> dict[str, Any]:
    for_reason = [] if refused is None else [_is_refused_for(refused)]
    is_status = {
        "status_code_filter": {
            "comparison": {
                "op": "EQ",
                "value": {"default_value": status, "runtime_key": f"gateway.reply_{status}"},
            }
        }
    }
    is_grpc = {
        "header_filter": {
            "header": {
                "name": "content-type",
                "string_match": {"prefix": "application/grpc"},
                "treat_missing_header_as_empty": True,
                "invert_match": not grpc,
            }
        }
    }
    return {
        "filter": {"and_filter": {"filters": [is_status, is_grpc, *for_reason]}},
        "body_format_override": {"text_format_source": {"inline_string": f"{OURS}{text}"}}
        if grpc
        else {"json_format": {"error": f"{OURS}{text}"}},
    }


def _is_refused_for(reason: str) -> dict[str, Any]:
    matcher = {
        "filter": _METADATA,
        "path": [{"key": "refused"}],
        "value": {"string_match": {"exact": reason}},
    }
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}

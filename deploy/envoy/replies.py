"""What the gateway says when it refuses: one line, in gRPC's message or as JSON over HTTP."""

from typing import Any

from deploy.operator_file import Operator

#: Begins whatever the gateway says itself, so that the scrubber leaves it alone.
OURS = "gateway: "
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
    return {
        "mappers": mappers,
        "body_format": {"text_format_source": {"inline_string": f"{OURS}refused"}},
    }


def _mapper(status: int, text: str, *, grpc: bool) -> dict[str, Any]:
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
        "filter": {"and_filter": {"filters": [is_status, is_grpc]}},
        "body_format_override": {"text_format_source": {"inline_string": f"{OURS}{text}"}}
        if grpc
        else {"json_format": {"error": f"{OURS}{text}"}},
    }

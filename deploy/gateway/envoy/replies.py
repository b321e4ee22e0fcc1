"""What the gateway says when it refuses: one line, in gRPC's message or as JSON over HTTP."""

import re
from typing import Any

from deploy.gateway.envoy.counted import CLIENT_METADATA
from deploy.gateway.envoy.routes import GRPC_CONTENT, SMALL_KIB, STREAMING
from deploy.gateway.operator_file import Operator

#: Begins whatever the gateway says itself, so that the scrubber leaves it alone.
OURS = "gateway: "
#: Stands for the seconds until the next query is granted; the filter in ``scrub`` knows them.
SECONDS = "@SECONDS@"
#: Namespace and key of the metadata in which a filter of ours says why it refuses.
REASON = ("gateway.refused", "because")
_SPENT = (
    "the query budget or rate limit of this API key is spent; it renews evenly over its period, "
    "the next query is granted in"
)


def local_replies(operator: Operator) -> dict[str, Any]:
    """Return the texts by HTTP status; Envoy turns the status into gRPC's own."""
    texts = {
        400: "no valid request",
        401: "no valid API key; send yours as x-api-key",
        403: "only inference, metadata and health are open to clients",
        404: "compressed messages are not taken; send them as they are",
        408: "the request was not sent in time",
        413: f"the request is larger than {operator.limits.request_mib} MiB",
        415: "gRPC is not spoken on this path; over HTTP send application/json",
        426: "HTTP/1.0 is not spoken; use HTTP/1.1 or HTTP/2",
        429: f"{_SPENT} {SECONDS} s",
        431: "the headers of the request are more than 60 KiB or more than 100",
        500: "the gateway failed on this request",
        501: "of transfer encodings only chunked is taken",
        502: "the model server broke off its answer; ask again",
        503: "the model server does not answer; ask again",
        504: f"the model did not answer within {operator.limits.timeout_seconds} s",
    }
    over_http = texts | {
        400: "no valid HTTP request",
        404: "no such path",
        415: "compressed bodies are not taken; send it without content-encoding",
        429: f"{_SPENT} as many seconds as x-ratelimit-reset says",
    }
    mappers = []
    for grpc, said in ((True, texts), (False, over_http)):
        mappers += [
            _mapper([_REASON], f"%DYNAMIC_METADATA({':'.join(REASON)})%", grpc),
            _mapper([_status(503), _FULL], "the gateway has no memory to spare; ask again", grpc),
            _mapper([_status(403), _STREAMS], "streaming is not open; ask by ModelInfer", grpc),
            *(_mapper([_status(403), who], text, grpc) for who, text in _open_ways(operator)),
            _mapper([_status(413), _SMALL], f"the request is larger than {SMALL_KIB} KiB", grpc),
            *(_mapper([_status(status)], text, grpc) for status, text in said.items()),
            _mapper([], "refused", grpc),
        ]
    return {"mappers": mappers}


def _open_ways(operator: Operator) -> list[tuple[dict[str, Any], str]]:
    """Return what is told to whom: to nobody the name of a model that others may ask."""
    asking: dict[tuple[str, ...], list[str]] = {}
    for client in operator.clients:
        asking.setdefault(client.models, []).append(client.name)
    told = []
    for models, names in asking.items():
        these = {"safe_regex": {"regex": "|".join(map(re.escape, names))}}
        text = f"only inference and metadata of {', '.join(models)}, and health, are open"
        told.append((_metadata(*CLIENT_METADATA, {"string_match": these}), f"{text} to this key"))
    return told


def _metadata(namespace: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    matcher = {"filter": namespace, "path": [{"key": key}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


#: Envoy's own mark of a request that its overload manager has refused.
_FULL = {"response_flag_filter": {"flags": ["OM"]}}
_REASON = _metadata(*REASON, {"present_match": True})
_SMALL = {
    "header_filter": {
        "header": {
            "name": ":path",
            "string_match": {"safe_regex": {"regex": ".*[Ii]nfer"}},
            "invert_match": True,
        }
    }
}
_STREAMS = {"header_filter": {"header": {"name": ":path", "string_match": {"exact": STREAMING}}}}


def _status(status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"gateway.reply_{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _mapper(conditions: list[dict[str, Any]], text: str, grpc: bool) -> dict[str, Any]:
    is_grpc = {
        "header_filter": {
            "header": {
                "name": "content-type",
                "string_match": GRPC_CONTENT,
                "treat_missing_header_as_empty": True,
                "invert_match": not grpc,
            }
        }
    }
    every = [*conditions, is_grpc]
    return {
        "filter": {"and_filter": {"filters": every}} if conditions else is_grpc,
        "body_format_override": {"text_format_source": {"inline_string": f"{OURS}{text}"}}
        if grpc
        else {"json_format": {"error": f"{OURS}{text}"}},
    }

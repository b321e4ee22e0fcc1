"""Requests that hardly anybody sends: each deserves a reason at once, and no more."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from deploy.hostile.crowd import turns
from deploy.hostile.door import INFER, Door
from deploy.hostile.heard import Heard
from deploy.hostile.wire import ask, head, request
from load_tests.endpoint import API_KEY_HEADER, SERVICE

#: How long a client waits for a refusal.
PATIENCE_S = 8.0


def streams(door: Door, heard: Heard, seconds: float) -> None:
    """Ask for streaming, and send a request's headers alone over gRPC."""
    for _ in turns(seconds):
        for name, ask_once in (
            ("stream", stream),
            ("headers alone", headers_alone),
        ):
            _time(door, heard, name, ask_once)
        time.sleep(0.5)


def _time(door: Door, heard: Heard, name: str, call: Callable[[Any, Any], bytes]) -> None:
    import grpc

    keys = [(API_KEY_HEADER, door.key)] if door.key else []
    began = time.monotonic()
    with door.channel() as channel:
        try:
            said: bytes | str = call(channel, keys)
            kind = "OK"
        except grpc.RpcError as error:
            kind, said = error.code().name, str(error.details())
    heard.answer(f"{name}: {kind}", said, after_s=time.monotonic() - began)


def stream(channel: Any, keys: Any) -> bytes:
    """Ask as a streaming client does, who keeps his side open."""
    call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
    return bytes(next(call(_pause_after([b""]), metadata=keys, timeout=PATIENCE_S), b""))


def headers_alone(channel: Any, keys: Any) -> bytes:
    """Send a call's headers, and end it without a message."""
    call = channel.stream_unary(INFER)
    return bytes(call(iter(()), metadata=keys, timeout=PATIENCE_S))


def _pause_after(messages: list[bytes]) -> Iterator[bytes]:
    yield from messages
    time.sleep(PATIENCE_S)


def encodings(door: Door, heard: Heard, seconds: float) -> None:
    """Send old versions, odd encodings and odd types of content."""
    for _ in turns(seconds):
        for name, raw in odd_requests(door).items():
            began = time.monotonic()
            status, said = ask(door, raw)
            heard.answer(f"{name}: HTTP {status}", said, after_s=time.monotonic() - began)


def odd_requests(door: Door) -> dict[str, bytes]:
    """Return them by name."""
    body, length = door.body, {"content-length": str(len(door.body))}
    return {
        "HTTP/1.0": head(door, length, version="1.0") + body,
        "gzip": request(door, gzip.compress(body), {"content-encoding": "gzip"}),
        "deflate": request(door, body, {"content-encoding": "deflate"}),
        "identity": request(door, body, {"content-encoding": "identity"}),
        "transfer-encoding gzip": head(door, {"transfer-encoding": "gzip"}) + body,
        "transfer-encoding gzip, chunked": head(door, {"transfer-encoding": "gzip, chunked"})
        + b"0\r\n\r\n",
        "content-type grpc": request(door, body, {"content-type": "application/grpc"}),
        "content-type form": request(door, body, {"content-type": "multipart/form-data"}),
        "two lengths": head(door, {"content-length": f"{len(body)}, 5"}) + body,
        "upgrade": request(door, body, {"connection": "upgrade", "upgrade": "websocket"}),
        "expect": request(door, body, {"expect": "100-continue"}),
        "no length": head(door, {}) + body,
    }


def not_finite(door: Door, heard: Heard, seconds: float) -> None:
    """Send numbers that no score comes of."""
    import grpc
    import numpy as np
    from tritonclient.grpc import service_pb2

    keys = [(API_KEY_HEADER, door.key)] if door.key else []
    with door.channel() as channel:
        call = channel.unary_unary(INFER)
        for turn in turns(seconds):
            value = (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45)[turn % 6]
            message = service_pb2.ModelInferRequest.FromString(door.message)
            values = np.frombuffer(message.raw_input_contents[0], np.float32).copy()
            values[:: turn % 3 + 1] = value
            message.raw_input_contents[0] = values.tobytes()
            try:
                heard.answer(f"{value}: OK", call(message.SerializeToString(), metadata=keys,
                                                  timeout=PATIENCE_S))  # fmt: skip
            except grpc.RpcError as error:
                heard.answer(f"{value}: {error.code().name}", str(error.details()))
            question = json.loads(door.body)
            question["inputs"][0]["data"] = values.astype(float).tolist()
            status, said = ask(door, request(door, json.dumps(question).encode()))
            heard.answer(f"{value}: HTTP {status}", said)
            _refuse_no_json(heard, status, said)


def _refuse_no_json(heard: Heard, status: int, said: bytes) -> None:
    """Count an answer that calls itself JSON and is none: bare NaN is not."""
    try:
        json.loads(said, parse_constant=_refuse)
    except ValueError:
        heard.answer(f"no JSON: HTTP {status}")


def _refuse(constant: str) -> None:
    raise ValueError(constant)

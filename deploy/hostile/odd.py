"""Requests that hardly anybody sends: each deserves a reason at once, and no more."""

import gzip
import json
import time
from collections.abc import Iterator

from deploy.audit.door import INFER, Door, told
from deploy.audit.http1 import head, request
from deploy.hostile.crowd import turns
from deploy.hostile.heard import Heard
from deploy.hostile.wire import hear
from load_tests.asking.endpoint import SERVICE

#: How long a client waits for a refusal.
PATIENCE_S = 8.0


def streams(door: Door, heard: Heard, seconds: float) -> None:
    """Ask for streaming, and send a request's headers alone over gRPC."""
    for _ in turns(seconds):
        for name, call in (("stream", stream), ("headers alone", headers_alone)):
            began = time.monotonic()
            kind, said = told(call, door)
            heard.answer(f"{name}: {kind}", said, after_s=time.monotonic() - began)
        time.sleep(0.5)


def stream(door: Door) -> bytes:
    """Ask as a streaming client does, who keeps his side open."""

    def pause() -> Iterator[bytes]:
        yield b""
        time.sleep(PATIENCE_S)

    with door.channel() as channel:
        call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
        return bytes(next(call(pause(), metadata=door.keys, timeout=PATIENCE_S), b""))


def headers_alone(door: Door) -> bytes:
    """Send a call's headers, and end it without a message."""
    with door.channel() as channel:
        call = channel.stream_unary(INFER)
        return bytes(call(iter(()), metadata=door.keys, timeout=PATIENCE_S))


def encodings(door: Door, heard: Heard, seconds: float) -> None:
    """Send old versions, odd encodings and odd types of content."""
    for _ in turns(seconds):
        for name, raw in odd_requests(door).items():
            hear(door, raw, heard, f"{name}: ")


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
    import numpy as np
    from tritonclient.grpc import service_pb2

    with door.channel() as channel:
        call = channel.unary_unary(INFER)
        for turn in turns(seconds):
            value = (np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45)[turn % 6]
            message = service_pb2.ModelInferRequest.FromString(door.message)
            values = np.frombuffer(message.raw_input_contents[0], np.float32).copy()
            values[:: turn % 3 + 1] = value
            message.raw_input_contents[0] = values.tobytes()
            raw = message.SerializeToString()
            kind, told_us = told(call, raw, metadata=door.keys, timeout=PATIENCE_S)
            heard.answer(f"{value}: {kind}", told_us)
            question = json.loads(door.body)
            question["inputs"][0]["data"] = values.astype(float).tolist()
            asked = request(door, json.dumps(question).encode())
            status, said = hear(door, asked, heard, f"{value}: ")
            _refuse_no_json(heard, status, said)


def _refuse_no_json(heard: Heard, status: int, said: bytes) -> None:
    """Count an answer that calls itself JSON and is none: bare NaN is not."""
    try:
        json.loads(said, parse_constant=_refuse)
    except ValueError:
        heard.answer(f"no JSON: HTTP {status}")


def _refuse(constant: str) -> None:
    raise ValueError(constant)

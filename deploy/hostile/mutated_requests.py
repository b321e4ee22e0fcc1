"""Requests over HTTP that are almost right: the line, the headers, the pieces, JSON, tensors."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from deploy.audit.door import Door
from deploy.hostile.mutated_messages import BYTES, DATATYPES, NUMBERS, PARAMETERS, text
from load_tests.asking.endpoint import API_KEY_HEADER

_METHODS = ("POST", "GET", "PUT", "HEAD", "OPTIONS", "CONNECT", "TRACE", "PATCH", "post", "P\0ST")
_VERSIONS = ("HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "http/1.1", "")
_TYPES = ("application/json", "application/octet-stream", "application/grpc", "text/plain", "")
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, -0.0, 2**64, "", "0", [], {}, [[]], [None], {"a": []}, "\ud800",
    *NUMBERS[:8],
)  # fmt: skip
_JSON_LENGTH = "inference-header-content-length"
#: How deep JSON may get here: deeper than Triton's stack.
_DEPTHS = (10, 1000, 100_000, 300_000)


class HttpMutator:
    """Makes mutated requests, each from its seed and number alone."""

    def __init__(self, door: Door, *, seed: int, names: Sequence[str]) -> None:
        """Say whom to ask, and which names of models and tensors to try."""
        self._door, self._seed = door, seed
        self._question = json.loads(door.body)
        self.names = (*names, door.model, "nothing")

    def request(self, number: int) -> tuple[bytes, bool]:
        """Return the request of that number, and whether it has an end that readers agree on."""
        rng = random.Random(f"request {self._seed} {number}")  # noqa: S311
        body, headers = self._body(rng)
        whole = True
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            whole &= self._header(headers, body, rng)
        chunked = rng.random() < 0.2
        if chunked:
            body, ended = _chunks(body, rng)
            whole &= ended
            headers["transfer-encoding"] = "chunked"
        if not chunked or rng.random() < 0.1:
            headers.setdefault("content-length", str(len(body)))
        lines = [self._line(rng), *(f"{name}: {value}" for name, value in headers.items())]
        raw = "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body
        for _ in range(rng.choice([0, 0, 0, 0, 1, 4])):
            raw, whole = rng.choice(BYTES)(raw, rng), False
        return raw, whole

    def _line(self, rng: random.Random) -> str:
        if rng.random() < 0.7:
            return f"POST {self._door.path} HTTP/1.1"
        name = rng.choice(self.names)
        path = rng.choice(
            [
                f"/v2/models/{name}/infer",
                f"/v2/models/{name}/versions/{rng.choice(NUMBERS)}/infer",
                f"/v2/models/{self._door.model}/../{name}/infer",
                f"/v2/models/{name}%2finfer",
                f"{self._door.path}?{text(rng)}",
                f"/v2/models/{name}/{rng.choice(['generate', 'config', 'stats', 'ready', ''])}",
                "*",
                text(rng).replace(" ", ""),
            ]
        )
        return f"{rng.choice(_METHODS)} {path} {rng.choice(_VERSIONS)}"

    def _header(self, headers: dict[str, str], body: bytes, rng: random.Random) -> bool:
        """Set or change a header; return whether the request keeps its end."""
        name, value, whole = rng.choice(
            [
                (_JSON_LENGTH, str(rng.choice([0, len(body) // 2, *NUMBERS])), 1),
                (_JSON_LENGTH, text(rng), 1),
                ("content-type", rng.choice(_TYPES), 1),
                ("content-encoding", rng.choice(["gzip", "deflate", "identity", "br", ""]), 1),
                ("accept-encoding", rng.choice(["gzip", "*;q=0", text(rng)]), 1),
                ("content-length", str(rng.choice([*NUMBERS, len(body) + 1, len(body) - 1])), 0),
                ("transfer-encoding", rng.choice(["gzip", "identity", "chunked, chunked"]), 0),
                ("expect", "100-continue", 1),
                ("connection", rng.choice(["close", "upgrade", "x-api-key"]), 1),
                ("upgrade", rng.choice(["h2c", "websocket"]), 1),
                ("te", "trailers", 1),
                ("x-client-id", rng.choice(self.names), 1),
                ("triton-key", "guess", 1),
                (rng.choice(["x-original-url", "x-envoy-original-path"]), "/v2/logging", 1),
                (API_KEY_HEADER, rng.choice(["", "x" * 32, text(rng)]), 1),
                (text(rng), text(rng), 0),
            ]
        )  # fmt: skip
        headers[name] = value
        return bool(whole) and "\n" not in name + value and "\0" not in name + value

    def _body(self, rng: random.Random) -> tuple[bytes, dict[str, str]]:
        headers = {"host": str(self._door.http), **dict(self._door.keys)}
        if rng.random() < 0.25:
            return self._binary(headers, rng)
        question = json.loads(json.dumps(self._question))
        for _ in range(rng.choice([0, 1, 1, 2, 3])):
            rng.choice(_OF_JSON)(question, self.names, rng)
        said = json.dumps(question)
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            said = rng.choice(_OF_TEXT)(said, rng)
        return said.encode("utf-8", "surrogatepass"), headers

    def _binary(self, headers: dict[str, str], rng: random.Random) -> tuple[bytes, dict[str, str]]:
        """Send the tensor's bytes behind the JSON, with sizes that may lie."""
        question = json.loads(json.dumps(self._question))
        (tensor, *_) = question["inputs"]
        content = rng.randbytes(4 * len(tensor.pop("data", [])))
        right = len(content)
        size = rng.choice([right, right, right - 1, right + 1, *NUMBERS, "x", None])
        tensor["parameters"] = {"binary_data_size": size}
        if rng.random() < 0.5:
            question["parameters"] = {"binary_data_output": rng.choice(_VALUES)}
        said = json.dumps(question).encode("utf-8", "surrogatepass")
        length = rng.choice([len(said), len(said), len(said) + 1, 0, *NUMBERS])
        headers[_JSON_LENGTH] = str(length)
        return said + content, headers


def _chunks(body: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """Return a body in pieces, and whether it ends."""
    size = rng.choice([1, 7, 100, 10_000])
    pieces = [body[start : start + size] for start in range(0, min(len(body), 200 * size), size)]
    form = rng.choice([b"%x\r\n%b\r\n"] * 4 + [b"%X;x=y\r\n%b\r\n", b"0%x\r\n%b\r\n"])
    raw = b"".join(form % (len(piece), piece) for piece in pieces)
    end, ended = rng.choice(
        [
            *([(b"0\r\n\r\n", True)] * 6),
            (b"", False),
            (b"0\r\nx-trailer: y\r\n\r\n", True),
            (b"-1\r\n\r\n", False),
            (b"ffffffffffffffff\r\n", False),
            (b"zz\r\n", False),
        ]
    )
    return raw + end, ended


def _tensors(question: Any) -> list[dict[str, Any]]:
    """Return what is left of the inputs."""
    inputs = question.get("inputs")
    return [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []


def _replace(question: Any, names: Sequence[str], rng: random.Random) -> None:
    """Put something else in place of any part."""
    holder = rng.choice([question, *_tensors(question)])
    if holder:
        holder[rng.choice(list(holder))] = rng.choice([*_VALUES, *names, *DATATYPES])


def _drop(question: Any, names: Sequence[str], rng: random.Random) -> None:
    holder = rng.choice([question, *_tensors(question)])
    if holder:
        holder.pop(rng.choice(list(holder)))


def _shape(question: Any, names: Sequence[str], rng: random.Random) -> None:
    for one in _tensors(question):
        one["shape"] = [rng.choice(NUMBERS) for _ in range(rng.choice([0, 1, 4, 200]))]


def _data(question: Any, names: Sequence[str], rng: random.Random) -> None:
    for one in _tensors(question):
        if isinstance(one.get("data"), list):
            at = rng.randint(0, len(one["data"]))
            one["data"][at : at + rng.choice([0, 1, 3])] = [rng.choice(_VALUES)]


def _parameters(question: Any, names: Sequence[str], rng: random.Random) -> None:
    said = {rng.choice([*PARAMETERS, *names]): rng.choice([*_VALUES, *names]) for _ in range(3)}
    rng.choice([question, *_tensors(question)])["parameters"] = said


def _outputs(question: Any, names: Sequence[str], rng: random.Random) -> None:
    one = {"name": rng.choice([*names, text(rng)]), "parameters": {"classification": 3}}
    question["outputs"] = rng.choice([[one], [one] * 50, [{}], one, None, ["scores"]])


_OF_JSON: tuple[Callable[[Any, Sequence[str], random.Random], None], ...] = (
    _replace, _drop, _shape, _data, _parameters, _outputs,
)  # fmt: skip


def _deep(said: str, rng: random.Random) -> str:
    depth, opener = rng.choice(_DEPTHS), rng.choice(["[", '{"a":', "[[", '[{"b":'])
    return said[:-1] + ', "deep": ' + opener * depth


def _number(said: str, rng: random.Random) -> str:
    odd = rng.choice(["NaN", "Infinity", "1e999", "-", "0x1", "1" * 5000, "01", "1.", "null"])
    return said.replace("0.0", odd, 1)


def _escapes(said: str, rng: random.Random) -> str:
    odd = rng.choice(["\\ud800", "\\u0000", "\\x", "\\", "\x01", '"'])
    return said.replace('"name"', f'"name{odd}"', 1)


def _said_twice(said: str, rng: random.Random) -> str:
    return said[:-1] + ", " + said[1:]


_OF_TEXT: tuple[Callable[[str, random.Random], str], ...] = (_deep, _number, _escapes, _said_twice)

"""Ways over HTTP: every path that Triton has, and paths that a gateway may read otherwise."""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from deploy.audit.door import Door
from deploy.audit.http1 import ask, head
from deploy.audit.way import SpentError, Way

_REFUSED = frozenset([401, 403, 404, 405])
#: What Triton says of a model that does not exist, and of loading in a mode that has none; and
#: how a gateway's refusal begins.
_REFUSALS = (
    *("unknown model", "Model version not ready", "is not available", "is not allowed if"),
    "gateway: ",
)


def ways(door: Door, inner: Iterable[str]) -> Iterator[Way]:
    """Return every way over HTTP, the inner models' among them."""
    public = f"/v2/models/{door.model}"
    for method, path, body in (
        ("GET", "/v2/health/live", None),
        ("GET", public, None),
        ("GET", f"{public}/ready", None),
        ("POST", door.path, door.body),
    ):
        yield _way(door, method, path, body, wanted=True)
    for model in inner:
        yield from closed(door, model)
    for method, path, body in (
        ("GET", f"{public}/config", None),
        ("GET", f"{public}/stats", None),
        ("POST", f"{public}/generate", b"{}"),
        ("POST", f"{public}/generate_stream", b"{}"),
        ("GET", f"{public}/trace/setting", None),
        ("GET", "/v2", None),
        ("GET", "/v2/models/stats", None),
        ("POST", "/v2/repository/index", b""),
        ("POST", "/v2/repository/models/reverse_sigmoid_audit/load", b"{}"),
        ("POST", "/v2/repository/models/reverse_sigmoid_audit/load",
         b'{"parameters":{"config":"{\\"backend\\":\\"none\\"}"}}'),
        ("POST", "/v2/repository/models/reverse_sigmoid_audit/unload", b"{}"),
        ("GET", "/v2/trace/setting", None),
        ("GET", "/v2/logging", None),
        ("GET", "/v2/systemsharedmemory/status", None),
        ("POST", "/v2/systemsharedmemory/region/audit/register",
         b'{"key":"/reverse_sigmoid_audit","offset":0,"byte_size":1}'),
        ("GET", "/v2/cudasharedmemory/status", None),
        ("GET", "/metrics", None),
        ("GET", "/stats", None),
        ("GET", "/config_dump", None),
    ):  # fmt: skip
        yield _way(door, method, path, body)


def infer(door: Door) -> Way:
    """Return the call that has to work, as a way."""
    return _way(door, "POST", door.path, door.body, wanted=True)


def _way(door: Door, method: str, path: str, body: bytes | None, *, wanted: bool = False,
         more: Mapping[str, str] | None = None, note: str = "") -> Way:  # fmt: skip
    headers = dict(more or {})
    if body is not None:
        headers["content-length"] = str(len(body))
    raw = head(door, headers, method=method, path=path) + (body or b"")
    return Way(
        f"HTTP {method} {path}{note}", lambda: _judged(*ask(door, raw, method)), wanted=wanted
    )


def _judged(status: int, raw: bytes) -> str | None:
    """Return what came back, None where it was refused, is not there or was not answered."""
    if status == 429:
        raise SpentError
    said = raw[:4096].decode(errors="replace")
    if not status or status in _REFUSED or any(text in said for text in _REFUSALS):
        return None
    return f"{status}: {' '.join(said.split())[:100]}"


def closed(door: Door, model: str) -> Iterator[Way]:
    """Return every way to ask a model that the key of a door may not ask."""
    public, inner = door.model, f"/v2/models/{model}"
    encoded = "".join(f"%{ord(letter):02x}" for letter in model)
    for path in (
        f"{inner}/infer",
        f"{inner}/versions/1/infer",
        f"{inner}/generate",
        f"//v2//models//{model}//infer",
        f"/v2/models/{public}/../{model}/infer",
        f"/v2/models/{public}/%2e%2e/{model}/infer",
        f"/v2/models/{public}%2f..%2f{model}/infer",
        f"/v2/models/{encoded}/infer",
        f"/v2/models/./{model}/infer",
        f"/v2/models/{model}/infer/",
        f"/v2/models/{model}/infer?x=/v2/models/{public}/infer",
        f"/v2/models/{model}/infer#/v2/models/{public}/infer",
        f"/v2/models/{public};/../{model}/infer",
        f"/V2/MODELS/{model}/infer",
        f"/v2/models/{model.upper()}/infer",
        f"http://localhost/v2/models/{model}/infer",
    ):
        yield _way(door, "POST", path, door.body)
    for what in ("", "/ready", "/config", "/stats", "/versions/1"):
        yield _way(door, "GET", f"{inner}{what}", None)
    for name in ("x-original-url", "x-rewrite-url", "x-envoy-original-path", "x-forwarded-path"):
        yield _way(door, "POST", f"{inner}/infer", door.body, more={name: door.path},
                   note=f", {name}")  # fmt: skip
    yield _way(door, "POST", f"{inner}/infer", door.body, more={"triton-key": "guess"},
               note=", Triton's key forged")  # fmt: skip
    yield _way(door, "POST", f"{inner}/infer", gzip.compress(door.body),
               more={"content-encoding": "gzip"}, note=", compressed")  # fmt: skip


def key_ways(door: Door) -> Iterator[Way]:
    """Return ways with no key and with wrong ones, where a key is asked for."""
    for note, key in ((", no key", None), (", a wrong key", "x" * 32), (", an empty key", "")):
        yield _way(replace(door, key=key), "POST", door.path, door.body, note=note)

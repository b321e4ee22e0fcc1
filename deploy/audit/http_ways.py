"""Ways over HTTP: every path that Triton has, and paths that a gateway may read otherwise."""

import gzip
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping

from deploy.audit.target import TIMEOUT_S, Target
from deploy.audit.way import Way
from load_tests.endpoint import API_KEY_HEADER, Access

_REFUSED = frozenset([401, 403, 404, 405, 429])
#: What Triton says of a model that does not exist, and of loading in a mode that has none; and
#: how a gateway's refusal begins.
_REFUSALS = (
    *("unknown model", "Model version not ready", "is not available", "is not allowed if"),
    "gateway: ",
)


class Http:
    """The target's HTTP endpoint, asked with paths as they are."""

    def __init__(self, target: Target, access: Access | None = None) -> None:
        self._target = target
        self._access = target.access if access is None else access
        inputs = [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.values.shape),
                "data": [""] * tensor.values.size
                if tensor.datatype == "BYTES"
                else tensor.values.ravel().tolist(),
            }
            for tensor in target.inputs
        ]
        self.question = json.dumps({"inputs": inputs}).encode()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        more: Mapping[str, str] | None = None,
    ) -> str | None:
        """Return what came back, None where it was refused or is not there."""
        connection = self._connect()
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            headers = dict(more or {})
            if self._access.api_key is not None:
                headers[API_KEY_HEADER] = self._access.api_key
            if body is not None:
                headers["content-length"] = str(len(body))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            said = response.read(4096).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return None  # closed without an answer
        finally:
            connection.close()
        if response.status in _REFUSED or any(text in said for text in _REFUSALS):
            return None
        return f"{response.status}: {' '.join(said.split())[:100]}"

    def _connect(self) -> http.client.HTTPConnection:
        if self._access.tls_ca is None:
            return http.client.HTTPConnection(self._target.http, timeout=TIMEOUT_S)
        context = ssl.create_default_context(cafile=str(self._access.tls_ca))
        return http.client.HTTPSConnection(self._target.http, timeout=TIMEOUT_S, context=context)


def ways(target: Target) -> Iterator[Way]:
    """Return every way over HTTP."""
    http = Http(target)
    public = f"/v2/models/{target.public}"
    for method, path, body in (
        ("GET", "/v2/health/live", None),
        ("GET", public, None),
        ("GET", f"{public}/ready", None),
        ("POST", f"{public}/infer", http.question),
    ):
        yield _way(http, method, path, body, wanted=True)
    for model in target.inner:
        yield from _inner(http, target.public, model)
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
        yield _way(http, method, path, body)


def _way(http: Http, method: str, path: str, body: bytes | None, *, wanted: bool = False,
         more: Mapping[str, str] | None = None, note: str = "") -> Way:  # fmt: skip
    shown = f"HTTP {method} {path}{note}"
    return Way(shown, lambda: http.ask(method, path, body, more=more), wanted=wanted)


def _inner(http: Http, public: str, model: str) -> Iterator[Way]:
    inner = f"/v2/models/{model}"
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
        yield _way(http, "POST", path, http.question)
    for what in ("", "/ready", "/config", "/stats", "/versions/1"):
        yield _way(http, "GET", f"{inner}{what}", None)
    allowed = f"/v2/models/{public}/infer"
    for name in ("x-original-url", "x-rewrite-url", "x-envoy-original-path", "x-forwarded-path"):
        yield _way(http, "POST", f"{inner}/infer", http.question, more={name: allowed},
                   note=f", {name}")  # fmt: skip
    yield _way(http, "POST", f"{inner}/infer", http.question, more={"triton-key": "guess"},
               note=", Triton's key forged")  # fmt: skip
    yield _way(http, "POST", f"{inner}/infer", gzip.compress(http.question),
               more={"content-encoding": "gzip"}, note=", compressed")  # fmt: skip


def key_ways(target: Target) -> Iterator[Way]:
    """Return ways with no key and with wrong ones, where a key is asked for."""
    path = f"/v2/models/{target.public}/infer"
    for note, key in ((", no key", None), (", a wrong key", "x" * 32), (", an empty key", "")):
        http = Http(target, Access(key, target.access.tls_ca))
        yield _way(http, "POST", path, http.question, note=note)

"""Ways over gRPC: every method that Triton has, and messages that say two things at once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from deploy.audit.door import Door
from deploy.audit.target import TIMEOUT_S
from deploy.audit.way import SpentError, Way
from load_tests.asking.endpoint import SERVICE, TRITON_KEY_HEADER

#: Refused, as far as a client can see. NOT_FOUND: there is no model of that name.
_REFUSED = frozenset(["PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "NOT_FOUND"])
#: Triton's own refusals, which come with a status that also stands for other things.
_REFUSALS = (
    "This protocol is restricted",
    "is not allowed if",
    "gateway: ",
)
#: The stream was reset or the message was no gRPC, before Triton saw it.
_BY_A_PROXY = ("RST_STREAM", "Received http2 header with status")


class Grpc:
    """A door's gRPC endpoint, asked with raw messages."""

    def __init__(self, door: Door) -> None:
        import grpc
        from tritonclient.grpc import service_pb2

        self.pb, self.public, self._keys = service_pb2, door.model, door.keys
        self.right = service_pb2.ModelInferRequest.FromString(door.message)
        self.error, self.gzip = grpc.RpcError, grpc.Compression.Gzip
        self.channel = door.channel()

    def way(self, name: str, method: str, message: Any, *, wanted: bool = False,
            more: tuple[tuple[str, str], ...] = (), gzip: bool = False) -> Way:  # fmt: skip
        """Return a unary call as a way."""

        def attempt() -> str | None:
            return self.ask(method, message, more=more, gzip=gzip)

        return Way(f"gRPC {name}", attempt, wanted=wanted)

    def ask(self, method: str, message: Any, *, more: tuple[tuple[str, str], ...] = (),
            gzip: bool = False) -> str | None:  # fmt: skip
        """Return what a unary call got, None where it was refused."""
        call = self.channel.unary_unary(f"{SERVICE}/{method}")
        raw, keys, compression = message.SerializeToString(), [*self._keys, *more], None
        if gzip:
            compression = self.gzip
        return self.judge(
            lambda: call(raw, timeout=TIMEOUT_S, metadata=keys, compression=compression)
        )

    def ready(self, model: str) -> str | None:
        """Return what is said of a model that is ready; one that does not exist is not."""
        got = self.ask("ModelReady", self.pb.ModelReadyRequest(name=model))
        return None if got == "OK, 0 bytes" else got  # protobuf leaves false out

    def ask_other(self, *messages: bytes) -> str | None:
        """Return what one call with these messages got, None if but the public model answered."""
        call = self.channel.stream_unary(f"{SERVICE}/ModelInfer")
        answered = self.pb.ModelInferResponse()

        def ask() -> bytes:
            raw: bytes = call(iter(messages), timeout=TIMEOUT_S, metadata=self._keys)
            answered.MergeFromString(raw)
            return raw

        got = self.judge(ask)
        return None if answered.model_name == self.public else got

    def stream(self, request: Any) -> str | None:
        """Return what the streaming call got."""
        call = self.channel.stream_stream(f"{SERVICE}/ModelStreamInfer")

        answered = self.pb.ModelStreamInferResponse()

        def first() -> bytes:
            message = [request.SerializeToString()]
            raw = next(call(iter(message), timeout=TIMEOUT_S, metadata=self._keys), b"")
            answered.MergeFromString(raw)
            return raw

        got = self.judge(first)
        said = answered.error_message
        return None if any(word in said for word in ("unknown model", *_REFUSALS)) else got

    def judge(self, call: Callable[[], bytes]) -> str | None:
        """Return what came back, None where the call was refused."""
        try:
            answer = call()
        except self.error as error:
            status, said = error.code().name, str(error.details())
            if status == "RESOURCE_EXHAUSTED":
                raise SpentError from None
            if status in _REFUSED or any(refusal in said for refusal in _REFUSALS):
                return None
            if status in ("UNAVAILABLE", "INTERNAL") and any(one in said for one in _BY_A_PROXY):
                return None
            return f"{status}: {' '.join(said.split())[:100]}"
        return f"OK, {len(answer)} bytes"


def ways(door: Door, inner: Iterable[str]) -> Iterator[Way]:
    """Return every way over gRPC, the inner models' among them."""
    grpc = Grpc(door)
    pb, public, way = grpc.pb, door.model, grpc.way
    yield way("ServerLive", "ServerLive", pb.ServerLiveRequest(), wanted=True)
    for method, message in (
        ("ModelReady", pb.ModelReadyRequest(name=public)),
        ("ModelMetadata", pb.ModelMetadataRequest(name=public)),
        ("ModelInfer", grpc.right),
    ):
        yield way(f"{method} {public}", method, message, wanted=True)
    yield Way(f"gRPC stream {public}", lambda: grpc.stream(grpc.right))
    for model in inner:
        yield from closed(grpc, model)
    yield way(f"config {public}", "ModelConfig", pb.ModelConfigRequest(name=public))
    yield way("statistics", "ModelStatistics", pb.ModelStatisticsRequest())
    yield way("server metadata", "ServerMetadata", pb.ServerMetadataRequest())
    yield way("repository index", "RepositoryIndex", pb.RepositoryIndexRequest())
    yield way("trace settings", "TraceSetting", pb.TraceSettingRequest())
    yield way("log settings", "LogSettings", pb.LogSettingsRequest())
    yield from _loading(grpc)
    yield from _shared_memory(grpc)


def closed(grpc: Grpc, model: str) -> Iterator[Way]:
    """Return every way to ask a model that the key of a door may not ask."""
    pb, public, way = grpc.pb, grpc.public, grpc.way
    outer, asked = grpc.right.SerializeToString(), pb.ModelInferRequest()
    asked.CopyFrom(grpc.right)
    asked.model_name = model
    yield way(f"infer {model}", "ModelInfer", asked)
    yield way(f"infer, compressed {model}", "ModelInfer", asked, gzip=True)
    inner = asked.SerializeToString()
    renamed = pb.ModelInferRequest(model_name=model).SerializeToString()
    for name, messages in (
        (f"{public}, renamed in the same message to {model}", (outer + renamed,)),
        (f"{model}, before the name {public} in the same message", (renamed + outer,)),
        (f"{public}, then in the same call {model}", (outer, inner)),
        (f"{model}, then in the same call {public}", (inner, outer)),
    ):
        yield Way(f"gRPC {name}", lambda said=messages: grpc.ask_other(*said))  # type: ignore[misc]
    yield Way(f"gRPC stream {model}", lambda: grpc.stream(asked))
    yield way(f"metadata {model}", "ModelMetadata", pb.ModelMetadataRequest(name=model))
    yield Way(f"gRPC ready {model}", lambda: grpc.ready(model))
    yield way(f"config {model}", "ModelConfig", pb.ModelConfigRequest(name=model))
    for name, header in (
        ("x-client-id", ("x-client-id", "root")),
        ("Triton's key", (TRITON_KEY_HEADER, "guess")),
    ):
        yield way(f"infer, {name} forged {model}", "ModelInfer", asked, more=(header,))


def _loading(grpc: Grpc) -> Iterator[Way]:
    pb = grpc.pb
    nobody = "reverse_sigmoid_audit"
    config = pb.ModelRepositoryParameter(string_param='{"backend":"none"}')
    inline = pb.ModelRepositoryParameter(bytes_param=b"audit")
    for name, parameters in (
        ("load", {}),
        ("load with another config", {"config": config}),
        ("load with a file of its own", {"config": config, "file:1/audit.py": inline}),
    ):
        request = pb.RepositoryModelLoadRequest(model_name=nobody)
        for key, value in parameters.items():
            request.parameters[key].CopyFrom(value)
        yield grpc.way(name, "RepositoryModelLoad", request)
    unload = pb.RepositoryModelUnloadRequest(model_name=nobody)
    yield grpc.way("unload", "RepositoryModelUnload", unload)


def _shared_memory(grpc: Grpc) -> Iterator[Way]:
    pb = grpc.pb
    register = pb.SystemSharedMemoryRegisterRequest(
        name="audit", key="/reverse_sigmoid_audit", byte_size=1
    )
    for method, message in (
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
        ("SystemSharedMemoryRegister", register),
        ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="audit")),
        ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
    ):
        yield grpc.way(method, method, message)


def key_ways(door: Door) -> Iterator[Way]:
    """Return ways with no key and with wrong ones, where a key is asked for."""
    for name, key in (("no key", None), ("a wrong key", "x" * 32), ("an empty key", "")):
        grpc = Grpc(replace(door, key=key))
        yield grpc.way(f"ModelInfer {door.model}, {name}", "ModelInfer", grpc.right)

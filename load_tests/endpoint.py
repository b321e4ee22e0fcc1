"""A model on a live Triton, as a callable from images to scores."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.datasets import Images
from load_tests.deferred_signals import deferred_signals
from postprocess.errors import InputError, ReverseSigmoidError

Answers = NDArray[np.float32]
#: Anything that can be queried: a live endpoint, or a victim in this process.
Query = Callable[[Images], Answers]

#: Triton's gRPC service, as a path.
SERVICE = "/inference.GRPCInferenceService"
#: The gRPC metadata that a gateway reads a client's key from.
API_KEY_HEADER = "x-api-key"
#: What Triton calls the header of ``--grpc-restricted-protocol=...:triton-key=...``.
TRITON_KEY_HEADER = "triton-grpc-protocol-triton-key"
API_KEY_VARIABLE = "REVERSE_SIGMOID_API_KEY"
_FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
#: What gRPC calls failures that asking again does not mend.
_FOR_GOOD = frozenset(
    ["INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"]
)


@dataclass(frozen=True)
class Access:
    """What an endpoint asks of its clients."""

    api_key: str | None = None
    tls_ca: Path | None = None  #: certificates to trust; with it, TLS is spoken
    triton_key: str | None = None  #: what Triton's restricted protocols ask of a gateway

    @property
    def headers(self) -> dict[str, str]:
        """The gRPC metadata of every call."""
        keys = {API_KEY_HEADER: self.api_key, TRITON_KEY_HEADER: self.triton_key}
        return {name: key for name, key in keys.items() if key is not None}


OPEN = Access()


def connect(url: str, access: Access = OPEN, *, own_connection: bool = False) -> Any:
    """Return tritonclient's gRPC client for HOST:PORT, whose every call carries the keys.

    No proxy is asked: gRPC would send even loopback traffic through the one that
    ``http_proxy`` names. gRPC lets all clients of a process for one address share a single TCP
    connection, unless each is to have its own.

    Raises:
        InputError: the file of certificates cannot be read.
    """
    from tritonclient.grpc import InferenceServerClient, InferenceServerClientPlugin

    unlimited = -1  # what tritonclient sets itself, unless it is given options
    options = [
        ("grpc.max_send_message_length", unlimited),
        ("grpc.max_receive_message_length", unlimited),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", int(own_connection)),
    ]
    tls: dict[str, Any] = {}
    if access.tls_ca is not None:
        try:
            access.tls_ca.read_bytes()
        except OSError as error:
            raise InputError(f"--tls-ca {access.tls_ca}: {error.strerror}") from None
        tls = {"ssl": True, "root_certificates": str(access.tls_ca)}
    with deferred_signals():  # one within would leave half a client, whose end prints a traceback
        client = InferenceServerClient(url, channel_args=options, **tls)
    headers = access.headers

    class Keys(InferenceServerClientPlugin):  # type: ignore[misc]
        def __call__(self, request: Any) -> None:
            request.headers |= headers

    if headers:
        client.register_plugin(Keys())
    return client


class EndpointError(ReverseSigmoidError):
    """The endpoint could not be reached, or answered with an error."""

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status  #: gRPC's name for it, such as UNAVAILABLE

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered another time."""
        return self.status not in _FOR_GOOD


class Endpoint:
    """A model with one input of floats and one output of scores, over gRPC; a ``Query``.

    Use it as a context manager, or ``close`` it. Several threads may call it at a time.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        output: str = "",
        timeout_s: float = 30,
        access: Access = OPEN,
    ) -> None:
        """Ask the server what the model's input and output are called.

        Args:
            url: HOST:PORT of Triton's gRPC endpoint.
            model: the model's name.
            output: the one that is asked for, of several outputs of floats.
            timeout_s: of every call.
            access: what the endpoint asks of its clients.

        Raises:
            EndpointError: the server cannot be reached or does not know the model.
            InputError: the model has more than one input, or no such output of floats.
        """
        from tritonclient import grpc, utils

        self._grpc, self._failure = grpc, utils.InferenceServerException
        self.url, self.model, self._timeout_s = url, model, timeout_s
        self._client = connect(url, access)
        try:
            metadata = self._client.get_model_metadata(model, client_timeout=timeout_s)
        except self._failure as error:
            self._client.close()
            raise self._error(error) from None
        try:
            self._read(metadata, output)
        except InputError:
            self._client.close()
            raise

    def _read(self, metadata: Any, output: str) -> None:
        if len(metadata.inputs) != 1 or metadata.inputs[0].datatype not in _FLOATS:
            got = ", ".join(f"{each.name} {each.datatype}" for each in metadata.inputs)
            raise InputError(f"model {self.model}: expected one input of floats, got {got}")
        outputs = [each.name for each in metadata.outputs if each.datatype in _FLOATS]
        if output or len(outputs) != 1:
            got = ", ".join(f"{each.name} {each.datatype}" for each in metadata.outputs)
            if output and output not in outputs:
                raise InputError(
                    f"model {self.model}: --output {output}: no such output of floats, got {got}"
                )
            if not output:
                way = f"; choose one, for example --output {outputs[0]}" if outputs else ""
                raise InputError(
                    f"model {self.model}: expected one output of floats, got {got}{way}"
                )
        (tensor,) = metadata.inputs
        self._input, self._output = tensor.name, output or outputs[0]
        self._datatype, self._shape = tensor.datatype, tuple(tensor.shape)

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __call__(self, images: Images) -> Answers:
        """Return the model's scores, shape (n, K), for images (n, height, width, channels).

        All images go in one request, so n is at most the model's max_batch_size. A model whose
        input is (channels, height, width), or flat, gets them so.

        Raises:
            EndpointError: the server refused the request, failed or did not answer in time.
        """
        values = arrange(images, self._shape).astype(_FLOATS[self._datatype], copy=False)
        tensor = self._grpc.InferInput(self._input, values.shape, self._datatype)
        tensor.set_data_from_numpy(values)
        try:
            answer = self._client.infer(
                self.model,
                [tensor],
                outputs=[self._grpc.InferRequestedOutput(self._output)],
                client_timeout=self._timeout_s,
            )
        except self._failure as error:
            raise self._error(error) from None
        scores: Answers = answer.as_numpy(self._output)
        return scores

    def _error(self, error: Exception) -> EndpointError:
        status = str(getattr(error, "status", str)() or "").removeprefix("StatusCode.")
        return EndpointError(f"{self.url}, model {self.model}: {error}", status)


def arrange(images: Images, shape: tuple[int, ...]) -> Images:
    """Return the images as the model takes them; what does not fit is the server's to refuse."""

    def fits(candidate: tuple[int, ...]) -> bool:
        return len(candidate) == len(shape) - 1 and all(
            wanted in (-1, size) for wanted, size in zip(shape[1:], candidate, strict=True)
        )

    height, width, channels = images.shape[1:]
    if fits((height, width, channels)):
        return images
    if fits((channels, height, width)):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if fits((height * width * channels,)):
        return images.reshape(len(images), -1)
    return images


def ask(query: Query, images: Images, *, batch_size: int = 64) -> Answers:
    """Return the scores of any number of images, asked for in batches, shape (n, K)."""
    starts = range(0, len(images), batch_size)
    return np.concatenate([query(images[start : start + batch_size]) for start in starts])

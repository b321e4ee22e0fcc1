"""A model on a live Triton, as a callable from rows to scores."""

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.asking.deferred_signals import deferred_signals
from load_tests.asking.failures import tls_misfit
from load_tests.data import tensors
from load_tests.data.drawn import Drawn
from load_tests.data.rows import Rows
from postprocess.errors import InputError, ReverseSigmoidError

Answers = NDArray[np.float32]
#: Anything that can be queried: a live endpoint, or a victim in this process.
Query = Callable[[Rows], Answers]

#: Triton's gRPC service, as a path.
SERVICE = "/inference.GRPCInferenceService"
#: The gRPC metadata that a gateway reads a client's key from.
API_KEY_HEADER = "x-api-key"
#: What Triton calls the header of ``--grpc-restricted-protocol=...:triton-key=...``.
TRITON_KEY_HEADER = "triton-grpc-protocol-triton-key"
API_KEY_VARIABLE = "REVERSE_SIGMOID_API_KEY"
_FLOATS = ("FP16", "FP32", "FP64")
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

    def __post_init__(self) -> None:
        key = self.api_key or ""
        if not (key.isascii() and key.isprintable()):
            raise InputError(
                f"the API key (--api-key, {API_KEY_VARIABLE}): expected printable ASCII characters "
                f"on one line, as in the key's file, got others among its {len(key)}"
            )

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
        InputError: the file of certificates cannot be read, or holds none.
    """
    # Before gRPC is imported: what it prints of a failed handshake, errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
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
            ssl.create_default_context(cafile=access.tls_ca)
        except ssl.SSLError:
            raise InputError(f"--tls-ca {access.tls_ca}: expected certificates in PEM") from None
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
    """A model with inputs of any kind and an output of scores, over gRPC; a ``Query``.

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
        """Ask the server what the model's inputs and outputs are called.

        Args:
            url: HOST:PORT of Triton's gRPC endpoint.
            model: the model's name.
            output: the one that is asked for, of several outputs of floats.
            timeout_s: of every call.
            access: what the endpoint asks of its clients.

        Raises:
            EndpointError: the server cannot be reached or does not know the model.
            InputError: NumPy has no type for an input, or there is no such output of floats.
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
            self._inputs = tensors.taken(metadata.inputs, where=f"model {model}")
            self._output = self._scores(metadata.outputs, output)
        except InputError:
            self._client.close()
            raise

    def _scores(self, outputs: Any, wanted: str) -> Any:
        """Return the output of the scores, as Triton tells of it."""
        floats = [one for one in outputs if one.datatype in _FLOATS]
        found = [one for one in floats if wanted in ("", one.name)]
        if len(found) == 1:
            return found[0]
        got = ", ".join(f"{one.name} {one.datatype}" for one in outputs)
        if wanted:
            raise InputError(
                f"model {self.model}: --output {wanted}: no such output of floats, got {got}"
            )
        way = f"; choose one, for example --output {floats[0].name}" if floats else ""
        raise InputError(f"model {self.model}: expected one output of floats, got {got}{way}")

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def refuse_misfits(self, drawn: Drawn, *, scores_for_each: bool = False) -> None:
        """Refuse, before anything is sent, rows that the model does not take.

        Args:
            drawn: the rows to be asked about.
            scores_for_each: refuse a model too that has not K scores for each row.

        Raises:
            InputError: see above.
        """
        for rows in (drawn.pool, drawn.test):
            where = f"model {self.model}"
            tensors.refuse_misfits(self._inputs, rows, named=drawn.inputs, where=where)
        shape = list(self._output.shape)
        if scores_for_each and len(shape) != 2:
            raise InputError(
                f"model {self.model}: output {self._output.name} has shape {shape}: expected K "
                "scores for each row, (batch, K); answers about several places of a row are not "
                "learnt from here"
            )

    def __call__(self, rows: Rows) -> Answers:
        """Return the model's scores, shape (n, K), for n rows.

        All go in one request, so n is at most the model's max_batch_size. A model whose input is
        (channels, height, width), or flat, gets images so.

        Raises:
            EndpointError: the server refused the request, failed or did not answer in time.
            InputError: the rows have other inputs than the model.
        """
        made = tensors.arrays(self._inputs, rows, where=f"model {self.model}")
        sent = [
            tensors.filled_input(one.name, one.datatype, made[one.name]) for one in self._inputs
        ]
        try:
            answer = self._client.infer(
                self.model,
                sent,
                outputs=[self._grpc.InferRequestedOutput(self._output.name)],
                client_timeout=self._timeout_s,
            )
        except self._failure as error:
            raise self._error(error) from None
        scores: Answers = answer.as_numpy(self._output.name)
        return scores

    def _error(self, error: Exception) -> EndpointError:
        status = str(getattr(error, "status", str)() or "").removeprefix("StatusCode.")
        why = tls_misfit(str(error)) or error
        return EndpointError(f"{self.url}, model {self.model}: {why}", status)


def ask(query: Query, rows: Rows, *, batch_size: int = 64) -> Answers:
    """Return the scores of any number of rows, asked for in batches, shape (n, K)."""
    starts = range(0, len(rows), batch_size)
    return np.concatenate([query(rows[start : start + batch_size]) for start in starts])

"""What is audited: the addresses, the public model, its inner models, and a valid question."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from load_tests.endpoint import Access, EndpointError, connect
from load_tests.inputs import closed, filled

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class KnownInput:
    """A model's input, and values for one row of it."""

    name: str
    datatype: str
    values: NDArray[Any]


@dataclass(frozen=True)
class Target:
    """The endpoint as its clients see it."""

    grpc: str  #: HOST:PORT
    http: str  #: HOST:PORT, the same behind a gateway
    public: str
    inner: tuple[str, ...]  #: names to try
    access: Access
    inputs: tuple[KnownInput, ...]


def channel(url: str, ca: Path | None) -> Any:
    """Return a gRPC channel with a connection of its own, by no proxy; with ``ca``, over TLS."""
    import grpc

    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1),
    ]
    if ca is None:
        return grpc.insecure_channel(url, options)
    return grpc.secure_channel(url, grpc.ssl_channel_credentials(ca.read_bytes()), options)


def find(grpc: str, http: str, public: str, access: Access, *, inner: Iterable[str] = ()) -> Target:
    """Return the target, having asked for the public model's inputs.

    Inner models are those given, those that ``protect`` would have named, and whatever the
    server itself tells of.

    Raises:
        EndpointError: the public model cannot be asked; without that there is nothing to audit.
    """
    from tritonclient.utils import InferenceServerException

    with connect(grpc, access) as client:
        try:
            metadata = client.get_model_metadata(public, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            raise EndpointError(f"{grpc}, model {public}: {error.message()}") from None
        names = [*inner, f"{public}_classifier", f"{public}_reverse_sigmoid"]
        with contextlib.suppress(InferenceServerException):
            config = client.get_model_config(public, client_timeout=TIMEOUT_S).config
            names += [step.model_name for step in config.ensemble_scheduling.step]
        with contextlib.suppress(InferenceServerException):
            index = client.get_model_repository_index(client_timeout=TIMEOUT_S)
            names += [entry.name for entry in index.models]
    return Target(
        grpc,
        http,
        public,
        tuple(name for name in dict.fromkeys(names) if name != public),
        access,
        tuple(
            KnownInput(one.name, one.datatype, filled(one, closed(one.shape, batched=False), 0))
            for one in metadata.inputs
        ),
    )

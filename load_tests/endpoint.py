"""A model on a live Triton, as a callable from images to scores."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.datasets import Images
from postprocess.errors import ReverseSigmoidError

Scores = NDArray[np.float32]
#: Anything that can be queried: a live endpoint, or a victim in this process.
Query = Callable[[Images], Scores]


def connect(url: str) -> Any:
    """Return tritonclient's gRPC client for HOST:PORT, connected without any proxy.

    gRPC would send even loopback traffic through the proxy that ``http_proxy`` names.
    """
    from tritonclient.grpc import InferenceServerClient

    unlimited = -1  # what tritonclient sets itself, unless it is given options
    options = [
        ("grpc.max_send_message_length", unlimited),
        ("grpc.max_receive_message_length", unlimited),
        ("grpc.enable_http_proxy", 0),
    ]
    return InferenceServerClient(url, channel_args=options)


class EndpointError(ReverseSigmoidError):
    """The endpoint could not be reached, or answered with an error."""


class Endpoint:
    """A model with one FP32 input and one FP32 output, over gRPC; a ``Query``.

    Use it as a context manager, or ``close`` it.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float = 30) -> None:
        """Ask the server what the model's input and output are called.

        Args:
            url: HOST:PORT of Triton's gRPC endpoint.
            model: the model's name.
            timeout_s: of every call.

        Raises:
            EndpointError: the server cannot be reached or does not know the model.
        """
        from tritonclient import grpc, utils

        self._grpc, self._failure = grpc, utils.InferenceServerException
        self.url, self.model, self._timeout_s = url, model, timeout_s
        self._client = connect(url)
        try:
            metadata = self._client.get_model_metadata(model, client_timeout=timeout_s)
        except self._failure as error:
            self._client.close()
            raise self._error(error) from None
        self._input = metadata.inputs[0].name
        self._output = metadata.outputs[0].name

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __call__(self, images: Images) -> Scores:
        """Return the model's scores, shape (n, K), for images (n, height, width, channels).

        All images go in one request, so n is at most the model's max_batch_size.

        Raises:
            EndpointError: the server refused the request, failed or did not answer in time.
        """
        tensor = self._grpc.InferInput(self._input, images.shape, "FP32")
        tensor.set_data_from_numpy(images)
        try:
            answer = self._client.infer(self.model, [tensor], client_timeout=self._timeout_s)
        except self._failure as error:
            raise self._error(error) from None
        scores: Scores = answer.as_numpy(self._output)
        return scores

    def _error(self, error: Exception) -> EndpointError:
        return EndpointError(f"{self.url}, model {self.model}: {error}")


def ask(query: Query, images: Images, *, batch_size: int = 64) -> Scores:
    """Return the scores of any number of images, asked for in batches, shape (n, K)."""
    starts = range(0, len(images), batch_size)
    return np.concatenate([query(images[start : start + batch_size]) for start in starts])

"""Questions that a model takes, sent over gRPC: the one kept beside it, or made-up tensors."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.asking import inputs
from load_tests.data import tensors
from postprocess.errors import ReverseSigmoidError
from postprocess.question import Question

Tensors = Mapping[str, NDArray[Any]]

#: Of every question to a model whose usual answer time is not known.
PATIENCE_S = 30.0


class ProbeError(ReverseSigmoidError):
    """A probe was answered with an error, not in time, or with something unprotected."""

    def __init__(self, text: str, *, silent: bool = False, unknown: bool = False) -> None:
        super().__init__(text)
        self.silent = silent  #: no answer in time
        self.unknown = unknown  #: Triton has no such model loaded


def candidates(client: Any, model: str) -> list[Tensors]:
    """Return inputs of the right names, datatypes and shapes, the likeliest first.

    Raises:
        ProbeError: Triton does not tell the model's tensors.
    """
    metadata, config = _signature(client, model)
    batched = config.max_batch_size > 0
    is_open = any(-1 in one.shape[batched:] for one in metadata.inputs)
    return [
        {
            one.name: inputs.filled(one, inputs.closed(one.shape, batched=batched, size=size), fill)
            for one in metadata.inputs
        }
        for size in (inputs.OPEN_SIZES if is_open else inputs.OPEN_SIZES[:1])
        for fill in (np.random.default_rng(0), 1, 0)
    ]


def arrays(question: Question) -> Tensors:
    """Return the inputs of a question that is kept beside a model."""
    return {one.name: one.values for one in question.inputs}


def synthetic_scores(client: Any, model: str) -> Tensors:
    """Return one row of scores, of the kind that its parameters say, for a defence alone.

    Raises:
        ProbeError: Triton does not tell the model's tensors.
    """
    from tritonclient.utils import triton_to_np_dtype

    metadata, config = _signature(client, model)
    tensor = metadata.inputs[0]
    shape = inputs.closed(tensor.shape, batched=config.max_batch_size > 0, size=10)
    values = np.random.default_rng(0).random(shape) + 0.1
    if config.parameters["scores"].string_value == "logits":  # that nobody takes for the other
        values = 6 * values - 3
    else:
        axis = int(config.parameters["class_axis"].string_value or -1)
        values /= values.sum(axis=axis, keepdims=True)
    return {tensor.name: values.astype(triton_to_np_dtype(tensor.datatype))}


def infer(client: Any, model: str, asked: Tensors, *, timeout_s: float) -> Any:
    """Return Triton's result for named input arrays.

    Raises:
        ProbeError: an error, or no answer in time.
    """
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

    sent = [
        tensors.filled_input(name, np_to_triton_dtype(values.dtype), values)
        for name, values in asked.items()
    ]
    try:
        return client.infer(model, sent, client_timeout=timeout_s)
    except InferenceServerException as error:
        raise probe_error(error, timeout_s) from None


def alive(client: Any) -> bool:
    """Say whether Triton answers anything at all."""
    from tritonclient.utils import InferenceServerException

    for _ in range(2):  # once more where its connection was closed: another is made then
        try:
            return bool(client.is_server_live(client_timeout=3))
        except InferenceServerException as error:
            if "DEADLINE_EXCEEDED" in str(error.status()):
                return False
    return False


def _signature(client: Any, model: str) -> tuple[Any, Any]:
    """Return what Triton tells of a model's sent, and its configuration."""
    from tritonclient.utils import InferenceServerException

    try:
        config = client.get_model_config(model, client_timeout=PATIENCE_S).config
        metadata = client.get_model_metadata(model, client_timeout=PATIENCE_S)
    except InferenceServerException as error:
        raise probe_error(error, PATIENCE_S) from None
    return metadata, config


def probe_error(error: Any, timeout_s: float) -> ProbeError:
    """Return what tritonclient's exception says of a call that had so much time."""
    status, text = str(error.status()), " ".join(str(error.message()).split())
    if "DEADLINE_EXCEEDED" in status:
        return ProbeError(f"no answer within {timeout_s:g} s", silent=True)
    return ProbeError(text, unknown="unknown model" in text or "no available versions" in text)

"""Keras model -> ONNX file, checked against the Keras model before it gets its name."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from exporters.files.atomic_file import atomic_file
from exporters.graph.onnx_run import OnnxSession
from exporters.graph.onnx_signature import OUTPUT_NAME
from exporters.training.datasets import Images
from exporters.training.train import predict
from postprocess.errors import InputError, ReverseSigmoidError

#: Readable by ONNX Runtime from 1.12 on, and so by every Triton this project names.
OPSET = 17
#: Largest absolute difference of a logit between Keras and onnxruntime that an export may have.
PARITY_TOLERANCE = 1e-4


class ParityError(ReverseSigmoidError):
    """The exported graph does not compute what the Keras model computes."""


def export(model: Any, path: Path, *, check_on: Images) -> float:
    """Write the model as ONNX to ``path`` and return its largest difference from Keras.

    The graph takes what the model does, by the same name, such as ``image`` (batch, height,
    width, channels), and gives ``scores`` (batch, K), the model's logits; the batch dimension is
    free.

    Args:
        model: a Keras model of one input that gives logits.
        path: where the file goes; nothing is written there unless the parity check passes.
        check_on: inputs to compare on, n >= 1.

    Returns:
        the largest absolute difference of a logit, Keras against onnxruntime.

    Raises:
        ParityError: that difference exceeds ``PARITY_TOLERANCE``.
        InputError: the file cannot be written.
    """
    try:
        with atomic_file(path) as part:
            _convert(model, part)
            difference = _difference(model, part, check_on)
            if not difference <= PARITY_TOLERANCE:
                raise ParityError(
                    f"{path}: not written; Keras and onnxruntime differ by {difference:.2g} in a "
                    f"logit, at most {PARITY_TOLERANCE:g} is allowed"
                )
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    return difference


def _convert(model: Any, path: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    (given,) = model.inputs
    signature = [tf.TensorSpec(given.shape, given.dtype, name=given.name)]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def scores(inputs: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: model(inputs, training=False)}

    tf2onnx.convert.from_function(
        scores, input_signature=signature, opset=OPSET, output_path=str(path)
    )


def _difference(model: Any, path: Path, images: Images) -> float:
    served = OnnxSession(path)({model.inputs[0].name: images}, [OUTPUT_NAME])[OUTPUT_NAME]
    return float(np.abs(served - predict(model, images)).max())

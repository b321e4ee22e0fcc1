"""The Triton adapter: a TritonPythonModel that runs the defence on every batch of requests.

It fails closed. Whatever goes wrong, a request is answered with an error; the victim's
scores are never passed on, and neither scores nor paths stand in the text of that error.
"""

import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

import postprocess
from postprocess.errors import InputError
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor
from postprocess.pseudo_logits import Float32


class TritonPythonModel:
    """Reverse Sigmoid as a model of Triton's Python backend: one FP32 input, one FP32 output.

    The last axis of both is the K classes; all other axes are rows.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read config.pbtxt; raise, and so stop the load, unless all of it is understood."""
        self.name = args["model_name"]
        where = str(Path(args["model_repository"]) / "config.pbtxt")
        config = json.loads(args["model_config"])
        try:
            strings = {key: value["string_value"] for key, value in config["parameters"].items()}
            parameters = Parameters.from_strings(strings, where=where)
            self.input = _only_tensor(config["input"], "input", where)
            self.output = _only_tensor(config["output"], "output", where)
            self.classes = _classes(config, where)
        except InputError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self.postprocessor = Postprocessor(parameters)
        self._log(
            f"{parameters}, from triton-reverse-sigmoid {postprocess.__version__} "
            f"at {Path(postprocess.__file__).parent}"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request: protected probabilities, or an error."""
        try:
            return self._respond(requests)
        except Exception:
            self._log(traceback.format_exc(), error=True)
            reason = "internal error, see the server's log"
            return [self._refuse(reason, ours=True) for _ in requests]

    def _respond(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        accepted: list[tuple[int, Float32]] = []
        for index, request in enumerate(requests):
            try:
                accepted.append((index, self._scores(request)))
            except InputError as error:
                responses[index] = self._refuse(str(error))
        if accepted:
            batch = np.concatenate([scores.reshape(-1, self.classes) for _, scores in accepted])
            protected = self.postprocessor(batch)
            if protected.shape != batch.shape or not np.isfinite(protected.sum()):
                raise RuntimeError("the defence returned something that is no batch of rows")
            start = 0
            for index, scores in accepted:
                end = start + scores.size // self.classes
                part = protected[start:end].reshape(scores.shape)
                tensor = pb_utils.Tensor(self.output, part)
                responses[index] = pb_utils.InferenceResponse(output_tensors=[tensor])
                start = end
        return responses

    def _scores(self, request: Any) -> Float32:
        tensor = pb_utils.get_input_tensor_by_name(request, self.input)
        scores: Float32 = tensor.as_numpy()
        if scores.dtype != np.float32:
            raise InputError(f"{self.input}: expected FP32, got {scores.dtype}")
        if scores.ndim == 0 or scores.shape[-1] != self.classes:
            raise InputError(
                f"{self.input}: expected a last axis of {self.classes}, got shape {scores.shape}"
            )
        bad = self.postprocessor.bad_rows(scores.reshape(-1, self.classes))
        if bad.any():
            raise InputError(
                f"{self.input}: expected finite {self.postprocessor.parameters.scores}, "
                f"row {int(bad.argmax())} of the request holds none"
            )
        return scores

    def _refuse(self, reason: str, *, ours: bool = False) -> Any:
        kinds = pb_utils.TritonError
        code = kinds.INTERNAL if ours else kinds.INVALID_ARG
        error = kinds(f"{self.name}: {reason}", code)
        return pb_utils.InferenceResponse(output_tensors=[], error=error)

    def _log(self, text: str, *, error: bool = False) -> None:
        log = pb_utils.Logger.log_error if error else pb_utils.Logger.log_info
        log(f"{self.name}: {text}")


def _only_tensor(tensors: list[dict[str, Any]], kind: str, where: str) -> str:
    if len(tensors) != 1:
        raise InputError(f"{where}: {kind}: expected exactly one tensor, got {len(tensors)}")
    if tensors[0]["data_type"] != "TYPE_FP32":
        raise InputError(f"{where}: {kind}: expected TYPE_FP32, got {tensors[0]['data_type']}")
    return str(tensors[0]["name"])


def _classes(config: dict[str, Any], where: str) -> int:
    dims_in, dims_out = config["input"][0]["dims"], config["output"][0]["dims"]
    if dims_in != dims_out or int(dims_in[-1]) < 1:
        raise InputError(
            f"{where}: expected the same dims for input and output, the last one the number of "
            f"classes, got {dims_in} and {dims_out}"
        )
    return int(dims_in[-1])

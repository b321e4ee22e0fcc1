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
from postprocess import defence_config
from postprocess.defence_config import ANY_SCORES, INPUT_NAME, MAX_BATCH_SIZE, OUTPUT_NAME
from postprocess.errors import InputError
from postprocess.metrics import Metrics
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError, Scores


class TritonPythonModel:
    """A defence as a model of Triton's Python backend: scores in, scores of that shape out.

    One axis, the last unless ``class_axis`` says otherwise, is the K classes; all other axes
    are rows.
    """

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Return the config with the tensors and batching that it leaves out."""
        given = config.as_dict()
        if not given["input"] and not given["output"]:
            config.add_input({"name": INPUT_NAME, **ANY_SCORES})
            config.add_output({"name": OUTPUT_NAME, **ANY_SCORES})
            if not given["max_batch_size"]:
                config.set_max_batch_size(MAX_BATCH_SIZE)
            if "dynamic_batching" not in given:
                config.set_dynamic_batching()
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Read config.pbtxt; raise, and so stop the load, unless all of it is understood."""
        self.name = args["model_name"]
        directory = Path(args["model_repository"])
        try:
            self.config = defence_config.read(json.loads(args["model_config"]), directory=directory)
        except InputError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self.postprocessor = Postprocessor(self.config.parameters, key=self.config.key)
        self.metrics = Metrics(self.name, args["model_version"], directory / "config.pbtxt")
        self._log(
            f"{self.config.parameters}, from triton-reverse-sigmoid {postprocess.__version__} "
            f"at {Path(postprocess.__file__).parent}"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request: protected probabilities, or an error."""
        self.metrics.begin()
        try:
            responses = self._respond(requests)
        except Exception:
            self._log(traceback.format_exc(), error=True)
            responses = [self._fail() for _ in requests]
            self.metrics.add("failed_requests", len(requests))
        try:
            self.metrics.publish()
        except Exception:  # what cannot be counted can still be answered
            self._log(traceback.format_exc(), error=True)
        return responses

    def finalize(self) -> None:
        """Publish what was counted since the last time."""
        self.metrics.publish(now=True)

    def _respond(self, requests: list[Any]) -> list[Any]:
        responses: list[Any] = [None] * len(requests)
        waiting: dict[int, list[tuple[int, Scores]]] = {}  # by number of classes
        for index, request in enumerate(requests):
            try:
                scores = self._scores(request)
                waiting.setdefault(scores.shape[-1], []).append((index, scores))
            except InputError as error:
                responses[index] = self._refuse(str(error))
            except Exception:
                self._log(traceback.format_exc(), error=True)
                responses[index] = self._fail()
                self.metrics.add("failed_requests")
        self.metrics.add("requests", len(requests))
        for classes, group in waiting.items():
            self._protect(classes, group, responses)
        return responses

    def _protect(self, classes: int, group: list[tuple[int, Scores]], responses: list[Any]) -> None:
        """Protect requests of one number of classes as one batch; put answers in their places."""
        rows = [scores.reshape(-1, classes) for _, scores in group]
        batch = rows[0] if len(rows) == 1 else np.concatenate(rows)
        ends = np.cumsum([len(part) for part in rows]).tolist()
        try:
            protected = self.postprocessor.protect(batch)
        except BadRowsError as error:
            bad = [part.any() for part in np.split(error.rows, ends[:-1])]
            for (index, scores), is_bad, end in zip(group, bad, ends, strict=True):
                if is_bad:
                    first = int(error.rows[end - scores.size // classes : end].argmax())
                    kind = self.postprocessor.parameters.scores
                    responses[index] = self._refuse(
                        f"{self.config.input}: expected finite {kind}, "
                        f"row {first} of the request holds none",
                        rows=scores.size // classes,
                    )
            good = [pair for pair, is_bad in zip(group, bad, strict=True) if not is_bad]
            if good:
                self._protect(classes, good, responses)
            return
        answer = protected.probabilities
        if answer.shape != batch.shape or answer.dtype != self.config.data_type:
            raise RuntimeError("the defence returned something that is no batch of rows")
        if not np.isfinite(answer.sum(dtype=np.float32)):
            raise RuntimeError("the defence returned rows that are not finite")
        start = 0
        for (index, scores), end in zip(group, ends, strict=True):
            own = self._as_sent(answer[start:end].reshape(scores.shape))
            tensor = pb_utils.Tensor(self.config.output, own)
            responses[index] = pb_utils.InferenceResponse(output_tensors=[tensor])
            start = end
        self.metrics.count(self.postprocessor.parameters, batch, protected)

    def _as_sent(self, answer: Scores) -> Scores:
        """Return what has its classes last with them where the victim has them."""
        if self.config.class_axis == -1:
            return answer
        return np.ascontiguousarray(np.moveaxis(answer, -1, self.config.class_axis))

    def _scores(self, request: Any) -> Scores:
        """Return a request's scores with the classes on the last axis."""
        tensor = pb_utils.get_input_tensor_by_name(request, self.config.input)
        scores: Scores = tensor.as_numpy()
        if scores.dtype != self.config.data_type:
            raise InputError(
                f"{self.config.input}: expected {self.config.data_type}, got {scores.dtype}"
            )
        classes, axis = self.config.classes, self.config.class_axis
        size = scores.shape[axis] if scores.ndim >= -axis else 0
        if size == 0 or classes not in (-1, size):
            wanted = "at least 1" if classes == -1 else classes
            raise InputError(
                f"{self.config.input}: expected {wanted} classes on axis {axis}, "
                f"got shape {scores.shape}"
            )
        return scores if axis == -1 else np.moveaxis(scores, axis, -1)

    def _refuse(self, reason: str, *, rows: int = 0) -> Any:
        self.metrics.add("refused_requests")
        self.metrics.add("refused_rows", rows)
        return self._error(reason, pb_utils.TritonError.INVALID_ARG)

    def _fail(self) -> Any:
        return self._error("internal error, see the server's log", pb_utils.TritonError.INTERNAL)

    def _error(self, reason: str, code: Any) -> Any:
        error = pb_utils.TritonError(f"{self.name}: {reason}", code)
        return pb_utils.InferenceResponse(output_tensors=[], error=error)

    def _log(self, text: str, *, error: bool = False) -> None:
        log = pb_utils.Logger.log_error if error else pb_utils.Logger.log_info
        log(f"{self.name}: {text}")

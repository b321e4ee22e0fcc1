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
from postprocess.metrics import Metrics
from postprocess.parameters import Parameters, read_key
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError, Scores

#: Triton's name of the types that scores may have, and NumPy's.
DATA_TYPES = {"TYPE_FP16": np.float16, "TYPE_FP32": np.float32, "TYPE_FP64": np.float64}

#: What a config.pbtxt that names no tensors gets: FP32 scores of any number of classes.
INPUT_NAME, OUTPUT_NAME, MAX_BATCH_SIZE = "victim_scores", "scores", 256


class TritonPythonModel:
    """A defence as a model of Triton's Python backend: scores in, scores of that shape out.

    The last axis is the K classes; all other axes are rows.
    """

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Return the config with the tensors and batching that it leaves out."""
        given = config.as_dict()
        if not given["input"] and not given["output"]:
            tensor = {"data_type": "TYPE_FP32", "dims": [-1]}
            config.add_input({"name": INPUT_NAME, **tensor})
            config.add_output({"name": OUTPUT_NAME, **tensor})
            if not given["max_batch_size"]:
                config.set_max_batch_size(MAX_BATCH_SIZE)
            if "dynamic_batching" not in given:
                config.set_dynamic_batching()
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Read config.pbtxt; raise, and so stop the load, unless all of it is understood."""
        self.name = args["model_name"]
        directory = Path(args["model_repository"])
        where = str(directory / "config.pbtxt")
        try:
            config = json.loads(args["model_config"])
            strings = {
                key: value["string_value"] for key, value in config.get("parameters", {}).items()
            }
            parameters = Parameters.from_strings(strings, where=where)
            key = b""
            if parameters.key_file is not None:
                key = read_key(parameters.key_file, directory=directory, where=where)
            given = _only_tensor(config["input"], "input", where)
            made = _only_tensor(config["output"], "output", where)
            _refuse_unlike(given, made, where)
        except InputError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self.input, self.output = given["name"], made["name"]
        self.data_type = np.dtype(DATA_TYPES[given["data_type"]])
        self.classes = int(given["dims"][-1])  # -1: any number
        self.postprocessor = Postprocessor(parameters, key=key)
        self.metrics = Metrics(self.name, args["model_version"], directory / "config.pbtxt")
        self._log(
            f"{parameters}, from triton-reverse-sigmoid {postprocess.__version__} "
            f"at {Path(postprocess.__file__).parent}"
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request: protected probabilities, or an error."""
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
                        f"{self.input}: expected finite {kind}, "
                        f"row {first} of the request holds none",
                        rows=scores.size // classes,
                    )
            good = [pair for pair, is_bad in zip(group, bad, strict=True) if not is_bad]
            if good:
                self._protect(classes, good, responses)
            return
        answer = protected.probabilities
        if answer.shape != batch.shape or answer.dtype != self.data_type:
            raise RuntimeError("the defence returned something that is no batch of rows")
        if not np.isfinite(answer.sum(dtype=np.float32)):
            raise RuntimeError("the defence returned rows that are not finite")
        start = 0
        for (index, scores), end in zip(group, ends, strict=True):
            tensor = pb_utils.Tensor(self.output, answer[start:end].reshape(scores.shape))
            responses[index] = pb_utils.InferenceResponse(output_tensors=[tensor])
            start = end
        self.metrics.count(self.postprocessor.parameters, batch, protected)

    def _scores(self, request: Any) -> Scores:
        tensor = pb_utils.get_input_tensor_by_name(request, self.input)
        scores: Scores = tensor.as_numpy()
        if scores.dtype != self.data_type:
            raise InputError(f"{self.input}: expected {self.data_type}, got {scores.dtype}")
        if scores.ndim == 0 or scores.shape[-1] < 1 or scores.shape[-1] != self._wanted(scores):
            raise InputError(
                f"{self.input}: expected a last axis of "
                f"{self.classes if self.classes > 0 else 'at least 1'}, got shape {scores.shape}"
            )
        return scores

    def _wanted(self, scores: Scores) -> int:
        return self.classes if self.classes > 0 else scores.shape[-1]

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


def _only_tensor(tensors: list[dict[str, Any]], kind: str, where: str) -> dict[str, Any]:
    if len(tensors) != 1:
        raise InputError(f"{where}: {kind}: expected exactly one tensor, got {len(tensors)}")
    if tensors[0]["data_type"] not in DATA_TYPES:
        raise InputError(
            f"{where}: {kind}: expected {' or '.join(DATA_TYPES)}, got {tensors[0]['data_type']}"
        )
    return tensors[0]


def _refuse_unlike(given: dict[str, Any], made: dict[str, Any], where: str) -> None:
    dims = [int(size) for size in given["dims"]]
    if given["data_type"] != made["data_type"]:
        raise InputError(
            f"{where}: expected the same data_type for input and output, "
            f"got {given['data_type']} and {made['data_type']}"
        )
    if dims != [int(size) for size in made["dims"]] or not dims or dims[-1] == 0:
        raise InputError(
            f"{where}: expected the same dims for input and output, the last one the number of "
            f"classes, got {given['dims']} and {made['dims']}"
        )

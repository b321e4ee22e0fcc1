"""The Triton adapter: a TritonPythonModel that runs the defence on every batch of requests.

It fails closed. Whatever goes wrong, a request is answered with an error; the victim's
scores are never passed on. The text of that error names a row at most: scores, tensors, paths
and what kind the scores are stand in the server's log alone.
"""

import json
import math
import traceback
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

import postprocess
from postprocess import defence_config, kernel
from postprocess.defence_config import ANY_SCORES, INPUT_NAME, MAX_BATCH_SIZE, OUTPUT_NAME
from postprocess.errors import InputError
from postprocess.metrics import Metrics
from postprocess.postprocessor import Postprocessor
from postprocess.scores import BadRowsError, Scores
from postprocess.sparing_log import SparingLog
from postprocess.suspicion import MISTAKEN, Suspicion, enough


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
        self.postprocessor = Postprocessor(self.config.parameters, table=self.config.table)
        self.suspicion = Suspicion()
        self.path = directory / "config.pbtxt"
        self.metrics = Metrics(
            self.name,
            args["model_version"],
            self.path,
            native=kernel.answers(self.config.parameters),
        )
        self.complain = SparingLog(lambda text: self._log(text, error=True))
        self._log(
            f"{self.config.parameters}, from triton-reverse-sigmoid {postprocess.__version__} "
            f"at {Path(postprocess.__file__).parent}"
        )
        if kernel.is_missing(self.config.parameters):
            pb_utils.Logger.log_warn(f"{self.name}: {kernel.MISSING}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request: protected probabilities, or an error."""
        self.metrics.begin()
        try:
            responses = self._respond(requests)
        except Exception as error:
            responses = [self._fail(error) for _ in requests]
            self.metrics.add("failed_requests", len(requests))
        try:
            self.metrics.publish()
        except Exception:  # what cannot be counted can still be answered
            self.complain("not counted", traceback.format_exc())
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
                self.complain("shape", str(error))
                responses[index] = self._refuse_mistaken(MISTAKEN)
            except Exception as error:
                responses[index] = self._fail(error)
                self.metrics.add("failed_requests")
        self.metrics.add("requests", len(requests))
        for classes, group in waiting.items():
            self._protect(classes, group, responses)
        return responses

    def _protect(self, classes: int, group: list[tuple[int, Scores]], responses: list[Any]) -> None:
        """Protect requests of one number of classes as one batch; put answers in their places."""
        rows = [scores.reshape(-1, classes) for _, scores in group]
        batch = rows[0] if len(rows) == 1 else np.concatenate(rows)
        ends = list(accumulate(map(len, rows)))  # NumPy's cumsum takes as long as the kernel
        try:
            protected = self.postprocessor.protect(batch)
        except BadRowsError as error:
            bad = np.split(error.rows, ends[:-1])
            for (index, _), part, is_bad in zip(group, rows, bad, strict=True):
                if is_bad.any():
                    responses[index] = self._refuse_bad(part, is_bad)
            good = [pair for pair, is_bad in zip(group, bad, strict=True) if not is_bad.any()]
            if good:
                self._protect(classes, good, responses)
            return
        answer = protected.probabilities
        if answer.shape != batch.shape or answer.dtype != self.config.data_type:
            raise RuntimeError("the defence returned something that is no batch of rows")
        if not math.isfinite(np.add.reduce(answer, axis=None, dtype=np.float32)):
            raise RuntimeError("the defence returned rows that are not finite")
        mistaken = self._mistaken(batch, protected.lookalikes)
        start = 0
        for (index, scores), end in zip(group, ends, strict=True):
            if mistaken is not None and mistaken[start:end].any():
                refused = f"{_first(mistaken[start:end])}: {MISTAKEN}"
                responses[index] = self._refuse_mistaken(refused, rows=end - start)
            else:
                own = self._as_sent(answer[start:end].reshape(scores.shape))
                tensor = pb_utils.Tensor(self.config.output, own)
                responses[index] = pb_utils.InferenceResponse(output_tensors=[tensor])
            start = end
        if mistaken is None:
            self.metrics.count(self.config.parameters, batch, protected)

    def _mistaken(self, batch: Scores, lookalikes: int) -> NDArray[np.bool_] | None:
        """Return which rows, said to be logits, have to be taken for probabilities; or None."""
        if self.config.parameters.scores != "logits":
            return None
        single = self.config.parameters.multi_label
        if not lookalikes:
            if self.suspicion.level:
                self.suspicion.calm(batch, single=single)
            return None
        likely, refused = self.suspicion.judge(batch, single=single)
        self.metrics.add("suspect_rows", int(np.count_nonzero(likely)))
        if not refused:
            return None
        count, alone = enough(batch.shape[1], single=single), single or batch.shape[1] == 1
        self.complain(
            "mistaken",
            f"{self.path}: parameter scores: expected logits, got {count} or more rows that "
            f"look like probabilities: in [0, 1]{'' if alone else ', with a sum of 1'}; such "
            "rows are refused. Set scores to probabilities if the victim gives them, or serve a "
            "version of it that gives logits; reverse-sigmoid check looks at every version",
        )
        return likely

    def _refuse_bad(self, rows: Scores, bad: NDArray[np.bool_]) -> Any:
        """Refuse a request of these rows, because of those that cannot be protected."""
        finite = np.isfinite(rows).all(axis=1)
        kind = self.config.parameters.scores
        if kind == "logits" or not (bad & finite).any():
            self.complain(
                "bad", f"{self.config.input}: expected finite {kind}, got NaN or infinity"
            )
            return self._refuse(_first(bad), pb_utils.TritonError.INVALID_ARG, rows=len(rows))
        self.complain(
            "mistaken",
            f"{self.path}: parameter scores: expected probabilities, got rows that are none: not "
            "in [0, 1], or with another sum than 1; they are refused. Set scores to logits if "
            "the victim gives them, or serve a version of it that gives probabilities; "
            "reverse-sigmoid check looks at every version",
        )
        return self._refuse_mistaken(f"{_first(bad)}: {MISTAKEN}", rows=len(rows))

    def _refuse_mistaken(self, reason: str, *, rows: int = 0) -> Any:
        """Refuse a request whose scores are not what config.pbtxt says: nobody's but our fault."""
        self.metrics.add("mistaken_requests")
        return self._refuse(reason, pb_utils.TritonError.INTERNAL, rows=rows)

    def _as_sent(self, answer: Scores) -> Scores:
        """Return what has its classes last with them where the victim has them."""
        if self.config.class_axis == -1:
            return answer
        return np.ascontiguousarray(np.moveaxis(answer, -1, self.config.class_axis))

    def _scores(self, request: Any) -> Scores:
        """Return a request's scores with the classes on the last axis."""
        (tensor,) = request.inputs()
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

    def _refuse(self, reason: str, code: Any, *, rows: int) -> Any:
        self.metrics.add("refused_requests")
        self.metrics.add("refused_rows", rows)
        return self._error(reason, code)

    def _fail(self, error: Exception) -> Any:
        self.complain(f"failed: {type(error).__name__}", traceback.format_exc())
        return self._error("internal error, see the server's log", pb_utils.TritonError.INTERNAL)

    def _error(self, reason: str, code: Any) -> Any:
        error = pb_utils.TritonError(f"{self.name}: {reason}", code)
        return pb_utils.InferenceResponse(output_tensors=[], error=error)

    def _log(self, text: str, *, error: bool = False) -> None:
        log = pb_utils.Logger.log_error if error else pb_utils.Logger.log_info
        log(f"{self.name}: {text}")


def _first(rows: NDArray[np.bool_]) -> str:
    return f"row {int(rows.argmax())} of the request cannot be answered"

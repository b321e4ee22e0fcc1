"""The step as Triton runs it, without Triton: the modules of its Python backend stood in for."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

TYPES = {"float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64"}


class Family:
    COUNTER, GAUGE = 0, 1

    def __init__(self, name, **_):
        self.name = name

    def Metric(self, labels):  # noqa: N802
        counter = SimpleNamespace(value=0.0)
        counter.increment = lambda amount: setattr(counter, "value", counter.value + amount)
        counter.set = lambda value: setattr(counter, "value", value)
        Family.all[self.name] = counter
        return counter


class TritonError(Exception):
    INTERNAL, INVALID_ARG = "INTERNAL", "INVALID_ARG"

    def __init__(self, message, code=INTERNAL):
        super().__init__(message)
        self.code = code


class Tensor:
    def __init__(self, name, values):
        self.name, self._values = name, values

    def as_numpy(self):
        return self._values


class Request:
    def __init__(self, tensors):
        self._tensors = tensors

    def inputs(self):
        return self._tensors


class Step:
    """A loaded defence; ``log`` and ``metrics`` are what an operator sees of it."""

    def __init__(self, model, log):
        self._model, self.log = model, log
        self.metrics = Family.all

    def __call__(self, *requests):
        """Return what each request of one batch gets: an array, or the error."""
        given = [Request([Tensor("victim_scores", values)]) for values in requests]
        answers = [
            getattr(answer, "error", None) or answer.output_tensors[0].as_numpy()
            for answer in self._model.execute(given)
        ]
        self._model.metrics.publish(now=True)
        return answers

    def counted(self, name):
        return self.metrics[f"reverse_sigmoid_{name}_total"].value


@pytest.fixture
def load_step(monkeypatch, tmp_path):
    """Return a function that loads the step: parameters and dims to a ``Step``."""
    log = []
    backend = ModuleType("triton_python_backend_utils")
    backend.MetricFamily, backend.TritonError, backend.Tensor = Family, TritonError, Tensor
    backend.TritonModelException = RuntimeError
    backend.Logger = SimpleNamespace(
        log_error=log.append, log_warn=log.append, log_info=lambda text: None
    )
    backend.InferenceResponse = SimpleNamespace
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", backend)
    for name in ("postprocess.metrics", "postprocess.triton_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def loaded(dims=(-1,), dtype="float32", **strings):
        from postprocess.triton_model import TritonPythonModel

        Family.all = {}
        strings = {"beta": "1.5", "gamma": "0.2", "margin": "0.01", **strings}
        tensor = {"data_type": TYPES[dtype], "dims": list(dims)}
        config = {
            "max_batch_size": 256,
            "input": [{"name": "victim_scores", **tensor}],
            "output": [{"name": "scores", **tensor}],
            "parameters": {key: {"string_value": text} for key, text in strings.items()},
        }
        model = TritonPythonModel()
        model.initialize(
            {
                "model_name": "digits_reverse_sigmoid",
                "model_version": "1",
                "model_repository": str(tmp_path),
                "model_config": json.dumps(config),
            }
        )
        return Step(model, log)

    return loaded

"""Other ways to serve a protected classifier, to be measured beside ours; not for production.

The parameter ``way`` says which:

| way | what it does |
| --- | --- |
| ``one_process`` | runs the classifier and our defence in one Python model |
| ``bls`` | asks the classifier through business logic scripting, then runs our defence |
| ``art`` | runs the classifier and the Reverse Sigmoid of ART in one Python model |
| ``empty`` | passes on what it gets, as the last step of an ensemble |
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor


class TritonPythonModel:
    """One classifier, defended in one of these ways."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load what the way needs."""
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        (self.input,) = [tensor["name"] for tensor in config["input"]]
        (self.output,) = [tensor["name"] for tensor in config["output"]]
        way = given["way"]
        if way == "empty":
            self.execute = self._pass_on  # type: ignore[method-assign]
            return
        self.victim = given["victim"]
        self.protect: Callable[[Any], Any]
        self.scores = self._asked if way == "bls" else self._run
        if way != "bls":
            import onnxruntime

            self.session = onnxruntime.InferenceSession(
                given["onnx"], providers=["CPUExecutionProvider"]
            )
        if way == "art":
            from art.defences.postprocessor import ReverseSigmoid

            art: Any = ReverseSigmoid(beta=float(given["beta"]), gamma=float(given["gamma"]))
            self.protect = lambda logits: art(_softmax(logits))
        else:
            strings = json.loads(given["parameters"])
            self.protect = Postprocessor(Parameters.from_strings(strings, where=self.victim))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request, all of them run as one batch."""
        images = [pb_utils.get_input_tensor_by_name(one, self.input).as_numpy() for one in requests]
        batch = images[0] if len(images) == 1 else np.concatenate(images)
        answers = self.protect(self.scores(batch))
        ends = np.cumsum([len(one) for one in images])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self.output, part)])
            for part in np.split(answers, ends[:-1])
        ]

    def _pass_on(self, requests: list[Any]) -> list[Any]:
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self.output, tensor.as_numpy())])
            for request in requests
            for tensor in request.inputs()
        ]

    def _run(self, batch: Any) -> Any:
        return self.session.run([self.output], {self.input: batch})[0]

    def _asked(self, batch: Any) -> Any:
        request = pb_utils.InferenceRequest(
            model_name=self.victim,
            requested_output_names=[self.output],
            inputs=[pb_utils.Tensor(self.input, batch)],
        )
        response = request.exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        return pb_utils.get_output_tensor_by_name(response, self.output).as_numpy()


def _softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)

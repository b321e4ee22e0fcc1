"""A Triton python-based backend named ``onnxruntime``: ONNX models on the embedded server.

NVIDIA's container has a C++ backend of this name; the embedded server of the nvidia-pytriton
wheel has none. This one serves the same config.pbtxt files through Python's onnxruntime:
any inputs and outputs, dynamic batching, ``default_model_filename`` and the parameters
``intra_op_thread_count`` and ``inter_op_thread_count``.
"""

import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One ONNX graph, as one Triton model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph, and check that it has the tensors that config.pbtxt names."""
        self.name = args["model_name"]
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path}: no such file; export the model first")
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), _session_options(config), providers=_providers(args)
            )
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: {error}") from None
        self.batched = int(config.get("max_batch_size", 0)) > 0
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        for kind, wanted, there in (
            ("input", self.inputs, self.session.get_inputs()),
            ("output", self.outputs, self.session.get_outputs()),
        ):
            names = [value.name for value in there]
            missing = sorted(set(wanted) - set(names))
            if missing:
                raise pb_utils.TritonModelException(
                    f"{path}: config.pbtxt names the {kind} {missing[0]}, the graph has {names}"
                )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Return one response per request: the graph's outputs, or an error."""
        if not self.batched or len({self._shapes(request) for request in requests}) > 1:
            return [response for request in requests for response in self._run([request])]
        return self._run(requests)

    def _run(self, requests: list[Any]) -> list[Any]:
        """Run the requests, alike but for their batch dimension, as one batch."""
        try:
            feeds = {
                name: np.concatenate([_array(request, name) for request in requests])
                if len(requests) > 1
                else _array(requests[0], name)
                for name in self.inputs
            }
            results = self.session.run(self.outputs, feeds)
            if len(requests) == 1:
                return [self._response(results)]
            ends = np.cumsum([len(_array(request, self.inputs[0])) for request in requests])
            parts = [np.split(result, ends[:-1]) for result in results]
            return [self._response(part) for part in zip(*parts, strict=True)]
        except Exception:
            pb_utils.Logger.log_error(f"{self.name}: {traceback.format_exc()}")
            error = pb_utils.TritonError(f"{self.name}: failed, see the server's log")
            return [pb_utils.InferenceResponse(output_tensors=[], error=error) for _ in requests]

    def _response(self, results: Any) -> Any:
        tensors = zip(self.outputs, results, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in tensors])

    def _shapes(self, request: Any) -> tuple[tuple[int, ...], ...]:
        return tuple(_array(request, name).shape[1:] for name in self.inputs)


def _array(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    parameters = config.get("parameters", {})
    for key, attribute in (
        ("intra_op_thread_count", "intra_op_num_threads"),
        ("inter_op_thread_count", "inter_op_num_threads"),
    ):
        if key in parameters:
            setattr(options, attribute, int(parameters[key]["string_value"]))
    return options


def _providers(args: dict[str, str]) -> list[Any]:
    cpu = "CPUExecutionProvider"
    if args["model_instance_kind"] != "GPU":
        return [cpu]
    return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}), cpu]

"""A Triton python-based backend named ``onnxruntime``: ONNX models on the embedded server.

NVIDIA's container has a C++ backend of this name; the embedded server of the nvidia-pytriton
wheel has none. This one serves the same config.pbtxt files through Python's onnxruntime:
any inputs and outputs, strings and optional inputs among them, dynamic batching, models
without a batch dimension, ``default_model_filename`` and the parameters
``intra_op_thread_count`` and ``inter_op_thread_count``, which NVIDIA's takes too, and
``session.intra_op.allow_spinning``, which it passes over. What config.pbtxt reshapes, Triton
itself reshapes on the way here and back; the tensors that it leaves out are those of the graph. A
fused model whose graph holds no defence does not load.
"""

import json
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

#: What is run at once: input name to array.
_Feed = dict[str, Any]
#: The parameter that says the graph holds a defence, and the graph's metadata that says so too:
#: ``exporters.repository.config_pbtxt.FUSED_MARK`` and ``exporters.fusing.fused.METADATA``.
FUSED_MARK, FUSED_METADATA = "reverse_sigmoid_fused", "reverse_sigmoid"
#: The most rows of a model whose batch is free and whose config.pbtxt says none: Triton's default.
COMPLETED_BATCH = 4
#: Bytes of a graph and its weights up to which they are loaded twice; and how many requests within
#: so many seconds of the one before make threads wait busily for the next.
LOADED_TWICE, AT_ONCE, AT_ONCE_S = 16 << 20, 4, 0.02
#: ONNX Runtime's own word for whether threads wait busily within a run: "0" or "1", its default.
SPINNING = "session.intra_op.allow_spinning"


class TritonPythonModel:
    """One ONNX graph, as one Triton model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Add the tensors that config.pbtxt leaves out, and the batch, as the C++ backend does."""
        known = config.as_dict()
        sides = {"input": "get_inputs", "output": "get_outputs"}
        if all(known.get(side) for side in sides):
            return config
        # Triton tells a backend which model it completes in the command line of its process alone.
        command = Path("/proc/self/cmdline").read_bytes().split(b"\0")
        path = Path(command[1].decode()).parent / (
            known.get("default_model_filename") or "model.onnx"
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        free = all(
            one.shape and not isinstance(one.shape[0], int)
            for get in sides.values()
            for one in getattr(session, get)()
        )
        if free and not known.get("max_batch_size"):
            config.set_max_batch_size(COMPLETED_BATCH)
            config.set_dynamic_batching()
        batched = bool(config.as_dict().get("max_batch_size"))
        for side, get in sides.items():
            for one in [] if known.get(side) else getattr(session, get)():
                dims = [size if isinstance(size, int) else -1 for size in one.shape[batched:]]
                tensor = {"name": one.name, "data_type": _data_type(one.type), "dims": dims}
                getattr(config, f"add_{side}")(tensor)
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph, and check that it has the tensors that config.pbtxt names."""
        self.name = args["model_name"]
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path}: no such file; export the model first")
        try:
            self.session = _session(path, config, args, waits=False)
            size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
            twice = size <= LOADED_TWICE and args["model_instance_kind"] != "GPU" and _waits(config)
            self.waiting = _session(path, config, args, waits=True) if twice else self.session
        except Exception as error:
            raise pb_utils.TritonModelException(f"{path}: {error}") from None
        metadata = self.session.get_modelmeta().custom_metadata_map
        if FUSED_MARK in config.get("parameters", {}) and FUSED_METADATA not in metadata:
            raise pb_utils.TritonModelException(
                f"{path}: config.pbtxt says that the graph holds a defence, and it holds none"
            )
        self.ran, self.at_once = 0.0, 0  # when a run ended; requests in a row that came at once
        self.batched = int(config.get("max_batch_size", 0)) > 0
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        defaults = self.session.get_overridable_initializers()
        for kind, wanted, there in (
            # Initializers that are listed as inputs are defaults, which a request may replace.
            ("input", self.inputs, [*self.session.get_inputs(), *defaults]),
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
        responses: list[Any] = [None] * len(requests)
        alike: dict[Any, list[tuple[int, _Feed]]] = {}
        for index, request in enumerate(requests):
            try:
                feed = self._feed(request)
                # Without a batch dimension nothing can be merged.
                key = _shapes(feed) if self.batched else index
                alike.setdefault(key, []).append((index, feed))
            except Exception:
                responses[index] = self._failed()
        for group in alike.values():
            answers = self._run([feed for _, feed in group])
            for (index, _), answer in zip(group, answers, strict=True):
                responses[index] = answer
        return responses

    def _feed(self, request: Any) -> _Feed:
        """Return a request's arrays; an optional input that it leaves out is not among them."""
        tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in self.inputs}
        return {name: _decoded(one) for name, one in tensors.items() if one is not None}

    def _run(self, feeds: list[_Feed]) -> list[Any]:
        """Run requests that differ in nothing but their number of rows as one batch."""
        try:
            if len(feeds) == 1:
                return [self._response(self._results(feeds[0]))]
            batch = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])
            parts = [np.split(result, ends[:-1]) for result in self._results(batch)]
            return [self._response(part) for part in zip(*parts, strict=True)]
        except Exception:
            if len(feeds) > 1:  # one client's bad row must not fail the others
                return [answer for feed in feeds for answer in self._run([feed])]
            return [self._failed()]

    def _results(self, feed: _Feed) -> list[Any]:
        self.at_once = self.at_once + 1 if time.monotonic() - self.ran < AT_ONCE_S else 0
        session = self.waiting if self.at_once >= AT_ONCE else self.session
        results: list[Any] = session.run(self.outputs, feed)
        self.ran = time.monotonic()
        if self.batched:
            rows = len(next(iter(feed.values())))
            if any(len(result) != rows for result in results):
                raise RuntimeError(f"{self.name}: an output has not as many rows as the input")
        return results

    def _response(self, results: Any) -> Any:
        pairs = zip(self.outputs, results, strict=True)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, _encoded(result)) for name, result in pairs]
        )

    def _failed(self) -> Any:
        """Return the answer to a request that failed; why is for the log, not for the client."""
        pb_utils.Logger.log_error(f"{self.name}: {traceback.format_exc()}")
        error = pb_utils.TritonError(f"{self.name}: failed, see the server's log")
        return pb_utils.InferenceResponse(output_tensors=[], error=error)


def _data_type(kind: str) -> str:
    """Return Triton's name of a type of onnxruntime's, such as ``tensor(float)``."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    floats = {"float16": "FP16", "float": "FP32", "double": "FP64"}
    return f"TYPE_{floats.get(name, name.upper())}"


def _shapes(feed: _Feed) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, array.shape[1:]) for name, array in feed.items())


def _decoded(tensor: Any) -> Any:
    """Return a request's tensor as onnxruntime takes it: strings as str, Triton's are bytes."""
    array = tensor.as_numpy()
    if array.dtype != np.object_:
        return array
    return _each(array, lambda entry: entry.decode() if isinstance(entry, bytes) else entry)


def _encoded(array: Any) -> Any:
    """Return a result as Triton takes it: strings as bytes."""
    if array.dtype.kind not in "OU":
        return array
    return _each(array, lambda entry: entry.encode() if isinstance(entry, str) else entry)


def _each(array: Any, change: Any) -> Any:
    changed = np.empty(array.shape, np.object_)
    changed.reshape(-1)[:] = [change(entry) for entry in array.reshape(-1)]
    return changed


def _session(
    path: Path, config: dict[str, Any], args: dict[str, str], *, waits: bool
) -> onnxruntime.InferenceSession:
    """Return a session whose threads wait busily for more work within a run, or after it too.

    After it that makes the next request of a client that asks at once 0.1 ms faster; a lone request
    of digits took 23 ms of CPU, of which 20 were spent waiting for the next.
    """
    options = _session_options(config)
    options.add_session_config_entry("session.force_spinning_stop", "0" if waits else "1")
    return onnxruntime.InferenceSession(str(path), options, providers=_providers(args))


def _waits(config: dict[str, Any]) -> bool:
    """Say whether there are threads that may wait busily."""
    said = {key: one["string_value"] for key, one in config.get("parameters", {}).items()}
    return said.get(SPINNING) != "0" and said.get("intra_op_thread_count") != "1"


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
    if SPINNING in parameters:
        options.add_session_config_entry(SPINNING, parameters[SPINNING]["string_value"])
    return options


def _providers(args: dict[str, str]) -> list[Any]:
    cpu = "CPUExecutionProvider"
    if args["model_instance_kind"] != "GPU":
        return [cpu]
    return [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])}), cpu]

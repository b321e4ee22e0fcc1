"""Models that stand in a Triton repository already, as their owners wrote them."""

from pathlib import Path

import numpy as np
import victims
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc.model_config_pb2 import ModelConfig

from deploy.existing import protecting, undoing
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED

GOLDEN = Path(__file__).parent / "golden" / "existing"

#: Backends that do not run here: the files that a version holds, and what a person says.
ELSEWHERE = {
    "tensorrt": (["1/model.plan"], ["--scores", "logits", "--no-multi-label"]),
    "pytorch": (["1/model.pt", "2/model.pt"], ["--scores", "logits", "--no-multi-label"]),
    "savedmodel": (
        ["7/model.savedmodel/saved_model.pb", "7/model.savedmodel/variables/variables.index"],
        ["--scores", "probabilities", "--multi-label"],
    ),
    "openvino": (["1/model.xml", "1/model.bin"], ["--scores", "logits", "--no-multi-label"]),
    "fil": (["1/xgboost.json"], ["--scores", "probabilities", "--no-multi-label"]),
}

LABELS = "cat\ndog\nbird\nfish\n"

PYTHON = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.weights = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)

    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            scores = x @ self.weights
            label = np.array([f"c{one}".encode() for one in scores.argmax(1)], object)[:, None]
            tensors = [pb_utils.Tensor("out", scores), pb_utils.Tensor("label", label)]
            tensors.append(pb_utils.Tensor("second", np.argsort(scores, 1)[:, -2:-1]))
            answers.append(pb_utils.InferenceResponse(tensors))
        return answers
"""


def undo(folder, **options):
    """Give one model back as it was, or raise why not."""
    done, failed = undoing.undo_each([folder], **options)
    for error in failed.values():
        raise error
    return done[0]


def elsewhere(repository, backend, name="m"):
    """Write a model of a backend that does not run here."""
    folder = repository / name
    for file in ELSEWHERE[backend][0]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(f"{backend} {file}".encode())
    text = (GOLDEN / backend / "original.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(text)
    if "labels.txt" in text:
        (folder / "labels.txt").write_text(LABELS)
    return folder


def config(name="m", *, kind="FP32", more="", output="", dims="4", backend="onnxruntime", rows=64):
    return (
        f'# Ours.\nname: "{name}"\nbackend: "{backend}"\nmax_batch_size: {rows}\n'
        f'input [ {{ name: "x" data_type: TYPE_{kind} dims: [ 6 ] }} ]\n'
        f'output [ {{ name: "scores" data_type: TYPE_{kind} dims: [ {dims} ] {output} }} ]\n{more}'
    )


def linear(repository, name="m", **said):
    """Write an onnxruntime model of one linear layer, without the graph's last activation."""
    victims.linear_file(repository / name / "1" / "model.onnx")
    (repository / name / "config.pbtxt").write_text(config(name, **said))
    return repository / name


def python(repository, name="py"):
    """Write a model of the Python backend, whose config says no name.

    Its label follows from the top class; what is second does not.
    """
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(PYTHON)
    (folder / "config.pbtxt").write_text(
        'backend: "python"\nmax_batch_size: 8\n'
        'input { name: "x", data_type: TYPE_FP32, dims: 6 }\n'
        'output { name: "out", data_type: TYPE_FP32, dims: 5 }\n'
        'output { name: "label", data_type: TYPE_STRING, dims: 1 }\n'
        'output { name: "second", data_type: TYPE_INT64, dims: 1 }\n'
    )
    return folder


SCALING = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("x", pb_utils.get_input_tensor_by_name(one, "raw").as_numpy() / 2)]
            )
            for one in requests
        ]
"""


def pipeline(repository, name="pipe", *, backend="onnxruntime"):
    """Write an ensemble of pre-processing and a model of one linear layer."""
    linear(repository, "inner", backend=backend)
    step = repository / "scaling"
    (step / "1").mkdir(parents=True, exist_ok=True)
    (step / "1" / "model.py").write_text(SCALING)
    (step / "config.pbtxt").write_text(
        'name: "scaling"\nbackend: "python"\nmax_batch_size: 64\n'
        'input [ { name: "raw" data_type: TYPE_FP32 dims: [ 6 ] } ]\n'
        'output [ { name: "x" data_type: TYPE_FP32 dims: [ 6 ] } ]\n'
    )
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(
        f"""\
name: "{name}"
platform: "ensemble"
max_batch_size: 16
input [ {{ name: "raw" data_type: TYPE_FP32 dims: [ 6 ] }} ]
output [ {{ name: "answer" data_type: TYPE_FP32 dims: [ 4 ] }} ]
ensemble_scheduling {{
  step [
    {{
      model_name: "scaling"  # first: {{ "scores" ]
      model_version: -1
      input_map {{ key: "raw" value: "raw" }}
      output_map {{ key: "x" value: "scaled" }}
    }},
    {{
      model_name: "inner"
      model_version: -1
      input_map {{ key: "x" value: "scaled" }}
      output_map {{ key: "scores" value: "answer" }}
    }}
  ]
}}
"""
    )
    return repository / name


def one_class(repository, name="one"):
    """K = 1, the probability of a yes, as a Sigmoid gives it."""
    victims.linear_file(repository / name / "1" / "model.onnx", victims.SIGMOID, classes=1)
    (repository / name / "config.pbtxt").write_text(config(name, dims="1"))


def halves(repository, name="halves"):
    victims.linear_file(repository / name / "1" / "model.onnx", kind=TensorProto.FLOAT16)
    (repository / name / "config.pbtxt").write_text(config(name, kind="FP16"))


def places(repository, name="places"):
    """Scores of each place of a sequence, [N, T, K]."""
    victims.graph_file(
        repository / name / "1" / "model.onnx",
        [victims.node("MatMul", ["x", "W"], ["h"]), victims.node("Softmax", ["h"], ["scores"])],
        [("x", victims.FLOAT, ("N", "T", 6))],
        [("scores", victims.FLOAT, ("N", "T", 4))],
        {"W": victims.rng().normal(size=(6, 4)).astype(np.float32)},
    )
    text = config(name, dims="-1, 4").replace("dims: [ 6 ]", "dims: [ -1, 6 ]")
    (repository / name / "config.pbtxt").write_text(text)


def pixels(repository, name="pixels"):
    """Scores of each pixel, [N, K, H, W]."""
    victims.graph_file(
        repository / name / "1" / "model.onnx",
        [
            victims.node("Conv", ["x", "W"], ["h"]),
            victims.node("Softmax", ["h"], ["scores"], axis=1),
        ],
        [("x", victims.FLOAT, ("N", 3, "H", "Z"))],
        [("scores", victims.FLOAT, ("N", 5, "H", "Z"))],
        {"W": victims.rng().normal(size=(5, 3, 1, 1)).astype(np.float32)},
    )
    text = config(name, dims="5, -1, -1").replace("dims: [ 6 ]", "dims: [ 3, -1, -1 ]")
    (repository / name / "config.pbtxt").write_text(text)


#: Of a model of two heads: what its outputs are.
HEADS = """\
output [
  { name: "gender" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "age" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" },
  { name: "old" data_type: TYPE_INT64 dims: [ 1 ] }
]
"""


def heads(repository, name="face", *, backend="onnxruntime"):
    """Write a model of a gender (2 logits) and an age (4 probabilities), with its label."""
    victims.graph_file(
        repository / name / "1" / "model.onnx",
        [
            victims.node("MatMul", ["x", "W"], ["gender"]),
            victims.node("MatMul", ["x", "V"], ["h"]),
            victims.node("Softmax", ["h"], ["age"], axis=-1),
            victims.node("ArgMax", ["h"], ["old"], axis=-1),
        ],
        [("x", victims.FLOAT, ("N", 6))],
        [
            ("gender", victims.FLOAT, ("N", 2)),
            ("age", victims.FLOAT, ("N", 4)),
            ("old", victims.INT64, ("N", 1)),
        ],
        {
            "W": 3 * victims.rng().normal(size=(6, 2)).astype(np.float32),
            "V": 3 * victims.rng().normal(size=(6, 4)).astype(np.float32),
        },
    )
    text = config(name, backend=backend)
    lines = [HEADS if line.startswith("output") else f"{line}\n" for line in text.splitlines()]
    (repository / name / "config.pbtxt").write_text("".join(lines))
    (repository / name / "labels.txt").write_text(LABELS)
    return repository / name


def of_heads(repository, name="faces", *, backend="onnxruntime"):
    """Write an ensemble of pre-processing and a model of two heads, both of which it gives."""
    heads(repository, "inner_face", backend=backend)
    folder = pipeline(repository, name)
    text = (folder / "config.pbtxt").read_text().replace('"inner"', '"inner_face"')
    text = text.replace('"answer"', '"years"').replace('key: "scores"', 'key: "age"')
    more = 'output [ { name: "sex" data_type: TYPE_FP32 dims: [ 2 ] } ]\nensemble_scheduling'
    text = text.replace("ensemble_scheduling", more)
    sex = '      output_map { key: "gender" value: "sex" }\n    }\n  ]'
    (folder / "config.pbtxt").write_text(text.replace("    }\n  ]", sex))
    return folder


def versioned(repository, name="versioned"):
    """Versions 1 and 3, of which a policy serves one, with labels and a warm-up."""
    more = """\
version_policy { specific { versions: [ 3 ] } }
model_warmup [ {
  name: "two"
  batch_size: 2
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 6 ] random_data: true } }
} ]
"""
    linear(repository, name, more=more, output='label_filename: "labels.txt"')
    victims.linear_file(repository / name / "3" / "model.onnx", victims.SOFTMAX)
    (repository / name / "labels.txt").write_text(LABELS)


def twice(repository, name="twice"):
    """An ensemble of a model whose versions 1 and 3 answer differently; all of both are served."""
    every = "version_policy { all { } }\n"
    linear(repository, f"{name}_inner", more=every)
    victims.linear_file(repository / f"{name}_inner" / "3" / "model.onnx", victims.SOFTMAX)
    for version in ("1", "3"):
        (repository / name / version).mkdir(parents=True)
    step = f"""\
platform: "ensemble"
ensemble_scheduling {{ step [ {{
  model_name: "{name}_inner" model_version: -1
  input_map {{ key: "x" value: "x" }} output_map {{ key: "scores" value: "scores" }}
}} ] }}
"""
    text = config(name, more=every).replace('backend: "onnxruntime"\n', step)
    (repository / name / "config.pbtxt").write_text(text)


def bare(repository, name="bare"):
    """A model of one linear layer that has no config.pbtxt: Triton completes all of it."""
    (linear(repository, name) / "config.pbtxt").unlink()


COMPLETING = """
    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(8)
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [6]})
        config.add_output({"name": "out", "data_type": "TYPE_FP32", "dims": [5]})
        config.add_output({"name": "label", "data_type": "TYPE_STRING", "dims": [1]})
        return config
"""


def completing(repository, name="completing"):
    """A model of the Python backend that says itself what it takes and gives."""
    folder = python(repository, name)
    (folder / "config.pbtxt").write_text('# Nothing.\nbackend: "python"\n')
    lines = [line for line in PYTHON.splitlines() if '"second"' not in line]
    (folder / "1" / "model.py").write_text("\n".join(lines) + "\n" + COMPLETING)


def contents(folder):
    """Return every file of a folder, and its bytes; a folder has none."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def protect(folder, backend, **more):
    """Protect a model of a backend that does not run here, by what a person says of it."""
    _, scores, labels = ELSEWHERE[backend][1]
    asked = ProtectOptions(scores=scores, multi_label=labels == "--multi-label")
    return protecting.protect(folder, SHIPPED, asked, **more)


def parsed(path):
    """Read a config by Triton's own schema."""
    return text_format.Parse(path.read_text(), ModelConfig())

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from exporters.graph import onnx_signature
from exporters.training import architectures, keras_to_onnx
from postprocess.errors import InputError

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(0).random((7, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return architectures.build("simple", (8, 8, 1), 10)


def test_an_export_computes_keras_logits_for_any_batch_size(model, tmp_path):
    path = tmp_path / "model.onnx"
    assert keras_to_onnx.export(model, path, check_on=IMAGES) <= keras_to_onnx.PARITY_TOLERANCE
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 7):
        (scores,) = session.run(["scores"], {"image": IMAGES[:count]})
        assert np.abs(scores - model(IMAGES[:count])).max() <= keras_to_onnx.PARITY_TOLERANCE
    graph = onnx.load(str(path)).graph
    assert "Softmax" not in {node.op_type for node in graph.node}
    assert onnx_signature.read(path) == onnx_signature.of_classifier((8, 8, 1), 10)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (96, 96, 3)])
def test_simple_fits_every_data_set(shape):
    simple = architectures.build("simple", shape, 100)
    assert simple(np.zeros((2, *shape), np.float32)).shape == (2, 100)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("allconv", (96, 96, 3)), ("mobilenet", (28, 28, 1)), ("xception", (32, 32, 3))],
)
def test_the_papers_other_networks_fit_its_images_and_export(name, shape, tmp_path):
    network = architectures.build(name, shape, 10)
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    path = tmp_path / "model.onnx"
    assert keras_to_onnx.export(network, path, check_on=images) <= keras_to_onnx.PARITY_TOLERANCE
    assert onnx_signature.read(path) == onnx_signature.of_classifier(shape, 10)


@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_an_export_that_differs_from_keras_is_not_written(model, tmp_path, monkeypatch, error):
    honest = keras_to_onnx.predict
    monkeypatch.setattr(keras_to_onnx, "predict", lambda *given: honest(*given) + error)
    with pytest.raises(keras_to_onnx.ParityError, match=r"at most 0\.0001 is allowed"):
        keras_to_onnx.export(model, tmp_path / "model.onnx", check_on=IMAGES)
    assert list(tmp_path.iterdir()) == []


def graph_file(path, *, kind=TensorProto.FLOAT, shape=("n", 4), outputs=("scores",)):
    made = [helper.make_tensor_value_info(name, kind, shape) for name in outputs]
    given = helper.make_tensor_value_info("x", kind, shape)
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in outputs]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [given], made)), str(path))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": TensorProto.FLOAT16}, "input x: expected FLOAT, got FLOAT16"),
        ({"shape": (1, 4)}, "input x: expected a free batch dimension first"),
        ({"shape": ("n", "k")}, "input x: expected fixed sizes after the batch dimension"),
        ({"shape": ("n", 5, 4)}, r"output scores: expected shape \(batch, classes\)"),
        ({"shape": ()}, "input x: expected a free batch dimension first"),
        ({"outputs": ("scores", "label")}, "expected one output, got scores, label"),
    ],
)
def test_a_graph_that_is_no_such_classifier_is_refused(tmp_path, changes, said):
    path = graph_file(tmp_path / "model.onnx", **changes)
    with pytest.raises(InputError, match=said):
        onnx_signature.read(path)


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="no such file"):
        onnx_signature.read(path)
    path.write_bytes(b"no protobuf at all")
    with pytest.raises(InputError, match="not a readable ONNX file"):
        onnx_signature.read(path)

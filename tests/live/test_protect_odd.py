"""Classifiers that a file tells badly, protected in both layouts and served by one Triton."""

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
from odd_victims import (
    COLUMNS,
    FEATURES,
    HEIGHT,
    WIDTH,
    baked_file,
    int8_file,
    segmentation_file,
    two_classes_file,
    zipmap_file,
)
from ports import free_ports
from tritonclient.utils import InferenceServerException
from victims import node

from deploy.triton.server import TritonServer
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from load_tests.asking.endpoint import connect

SOFTMAX = node("Softmax", ["logits"], ["scores"], axis=1)
#: How each is made, what is asked of it, the shape of a row of input, and the class axis.
CASES = {
    "pixels": (segmentation_file, {"class_axis": 1}, (2, HEIGHT, WIDTH), 1),
    "soft_pixels": (
        lambda path: segmentation_file(path, SOFTMAX, sizes=("H", "W")),
        {"class_axis": -3},
        (2, HEIGHT, WIDTH),
        1,
    ),
    "int8": (lambda path: int8_file(path, 10), {}, (FEATURES,), 1),
    "int8_labels": (
        lambda path: int8_file(path, 4, activation="Sigmoid"), {}, (FEATURES,), None,
    ),
    "declared": (lambda path: two_classes_file(path, softmax=True, label=(1,)), {}, (6,), 1),
    "baked": (lambda path: baked_file(path, 4), {"max_batch_size": 0}, (3, 2, 2), 1),
    "zipmap": (lambda path: zipmap_file(path, producer="CatBoost"), {}, (COLUMNS,), 1),
}  # fmt: skip
ROWS = 4


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The folder of the original files, and a client of all of them, protected."""
    folder = tmp_path_factory.mktemp("odd")
    for name, (make, asked, _, _) in CASES.items():
        path = folder / f"{name}.onnx"
        make(path)
        for layout in ("ensemble", "fused"):
            named = ProtectOptions(**asked, layout=layout, name=f"{name}_{layout}")
            protect(path, folder / "repository", SHIPPED, named)
    with TritonServer(
        folder / "repository", ports=free_ports(), log=folder / "triton.log"
    ) as running:
        yield folder, connect(running.grpc_url)


def ask(client, model, rows):
    (given,) = client.get_model_metadata(model).inputs
    tensor = tritonclient.grpc.InferInput(given.name, rows.shape, given.datatype)
    tensor.set_data_from_numpy(rows)
    result = client.infer(model, [tensor])
    return {one.name: result.as_numpy(one.name) for one in result.get_response().outputs}


def rows_of(name, seed=1):
    return np.random.default_rng(seed).normal(size=(ROWS, *CASES[name][2])).astype(np.float32)


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("name", CASES)
def test_clients_get_the_originals_top_class_and_nothing_else_of_its_scores(served, name, layout):
    folder, client = served
    axis, rows = CASES[name][3], rows_of(name)
    session = onnxruntime.InferenceSession(
        str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"]
    )
    before = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"x": rows}),
                      strict=True))  # fmt: skip
    answer = ask(client, f"{name}_{layout}", rows)
    scores = "probabilities" if name == "zipmap" else "scores"
    original = before[scores]
    if name == "zipmap":
        original = np.array([list(row.values()) for row in original])
    assert answer[scores].shape == original.shape
    assert set(answer) == ({scores, "label"} if "label" in before else {scores})
    if "label" in before:
        assert np.array_equal(answer["label"].ravel(), before["label"])
    if axis is None:
        clear = np.abs(original - 0.5) > 1e-3
        assert np.array_equal((answer[scores] > 0.5)[clear], (original > 0.5)[clear])
    else:
        assert np.array_equal(answer[scores].argmax(axis=axis), original.argmax(axis=axis))
        assert np.allclose(answer[scores].sum(axis=axis), 1, atol=1e-5)
    assert np.abs(answer[scores] - original).max() > 0.01


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_a_baked_batch_takes_no_other_number_of_rows(served, layout):
    _, client = served
    with pytest.raises(InferenceServerException, match="shape"):
        ask(client, f"baked_{layout}", rows_of("baked")[:3])

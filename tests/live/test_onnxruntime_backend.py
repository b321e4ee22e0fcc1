"""The embedded server's backend for ONNX models, on what the shipped example does not need."""

import numpy as np
import pytest
import victims
from onnx import TensorProto, helper
from ports import free_ports

from deploy.triton.server import TritonServer
from load_tests.asking.endpoint import connect

FLOAT = TensorProto.FLOAT


def model(repository, name, config):
    """Make a model's folder and config; return where its graph goes."""
    (repository / name / "1").mkdir(parents=True)
    config = f'name: "{name}" backend: "onnxruntime" {config}'
    (repository / name / "config.pbtxt").write_text(config)
    return repository / name / "1" / "model.onnx"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backend")
    repository = folder / "repository"
    one = "data_type: TYPE_FP32 dims: [ 2 ]"
    path = model(
        repository,
        "optional",
        f'max_batch_size: 0 input [ {{ name: "x" {one} }}, {{ name: "b" {one} optional: true }} ] '
        f'output [ {{ name: "y" {one} }} ]',
    )
    victims.graph_file(
        path,
        [helper.make_node("Add", ["x", "b"], ["y"])],
        [("x", FLOAT, (2,)), ("b", FLOAT, (2,))],
        [("y", FLOAT, (2,))],
        {"b": np.array([10, 20], np.float32)},
    )
    path = model(
        repository,
        "fewer_rows",
        f'max_batch_size: 8 input [ {{ name: "x" {one} }} ] output [ {{ name: "y" {one} }} ] '
        "dynamic_batching { }",
    )
    victims.graph_file(
        path,
        [helper.make_node("ReduceMax", ["x"], ["y"], axes=[0], keepdims=1)],
        [("x", FLOAT, ("N", 2))],
        [("y", FLOAT, ("M", 2))],
    )
    with TritonServer(repository, ports=free_ports(), log=folder / "triton.log") as server:
        yield connect(server.grpc_url)


def ask(client, name, **feed):
    from tritonclient.grpc import InferInput

    given = []
    for key, rows in feed.items():
        array = np.array(rows, np.float32)
        given.append(InferInput(key, array.shape, "FP32"))
        given[-1].set_data_from_numpy(array)
    return client.infer(name, given).as_numpy("y").tolist()


def test_an_optional_input_may_be_left_out(client):
    assert ask(client, "optional", x=[1, 2]) == [11, 22]
    assert ask(client, "optional", x=[1, 2], b=[0, 0]) == [1, 2]


def test_whoever_asks_again_at_once_gets_the_same(client):
    """After some requests in a row another session answers, whose threads wait for the next."""
    rows = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32).tolist()
    for x in [*rows, rows[0]]:
        wanted = np.float32(x) + np.float32([10, 20])
        assert ask(client, "optional", x=x) == wanted.tolist()


def test_an_answer_of_other_rows_than_the_request_is_an_error(client):
    from tritonclient.utils import InferenceServerException

    assert ask(client, "fewer_rows", x=[[1, 2]]) == [[1, 2]]
    with pytest.raises(InferenceServerException, match="failed, see the server's log"):
        ask(client, "fewer_rows", x=[[1, 2], [3, 4]])

"""Requests that no client should send: each gets perturbed rows or an error, never raw scores."""

import http.client
import json

import numpy as np
import oracle
import pytest
from scipy.special import softmax
from tritonclient import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from exporters.repository.model_repository import SHIPPED
from exporters.training import datasets

DEFENCE, VICTIM = "digits_reverse_sigmoid", "digits_classifier"
IMAGES = datasets.load("digits").x_test[:4]
SETTINGS = {"beta": SHIPPED.beta, "gamma": SHIPPED.gamma, "margin": SHIPPED.margin}
FLOAT32 = np.finfo(np.float32)


@pytest.fixture(scope="module")
def client(server):
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def infer(client, model, name, values, datatype="FP32"):
    tensor = grpc.InferInput(name, values.shape, datatype)
    tensor.set_data_from_numpy(values)
    return client.infer(model, [tensor], client_timeout=30).as_numpy("scores")


def assert_perturbed(answer, logits):
    """The rows are the defence's, and none is the victim's logits or their softmax."""
    expected = oracle.reverse_sigmoid(*oracle.log_odds(logits), **SETTINGS, preserve_top1=True)
    assert np.abs(answer - expected).max() <= 1e-6
    for raw in (logits, softmax(logits.astype(np.float64), axis=1)):
        distinct = np.abs(raw - expected).max(axis=1) > 1e-3
        assert (np.abs(answer - raw).max(axis=1) > 1e-4)[distinct].all()


@pytest.mark.parametrize(
    "logits",
    [
        np.full((3, 10), FLOAT32.smallest_subnormal) * np.arange(10),
        np.full((3, 10), FLOAT32.smallest_normal) * -np.arange(10),
        np.tile(np.linspace(-FLOAT32.max, FLOAT32.max, 10), (2, 1)),
        np.zeros((2, 10)),
        np.eye(10) * 1e30,
        np.random.default_rng(0).normal(size=(256, 10)) * 1e-3,
    ],
    ids=["denormal", "least normal", "huge", "all tied", "saturated", "nearly tied"],
)
def test_odd_but_finite_scores_are_perturbed(client, logits):
    with np.errstate(over="ignore", invalid="ignore"):
        logits = np.nan_to_num(logits.astype(np.float32))
    answer = infer(client, DEFENCE, "victim_scores", logits)
    assert np.array_equal(answer.argmax(axis=1), logits.argmax(axis=1))
    assert np.abs(answer.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6
    if np.abs(logits).max() < 1e10:
        expected = oracle.reverse_sigmoid(*oracle.log_odds(logits), **SETTINGS, preserve_top1=True)
        assert np.abs(answer - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("model", "name", "values", "datatype"),
    [
        ("digits", "image", np.zeros((0, 8, 8, 1), np.float32), "FP32"),
        ("digits", "image", np.zeros((10_000, 8, 8, 1), np.float32), "FP32"),
        ("digits", "image", np.zeros((1, 8, 8, 1), np.float64), "FP64"),
        ("digits", "image", np.zeros((1, 8, 8, 1), np.int64), "INT64"),
        ("digits", "image", np.zeros((1, 64), np.float32), "FP32"),
        ("digits", "image", np.full((1, 8, 8, 1), np.nan, np.float32), "FP32"),
        ("digits", "image", np.full((1, 8, 8, 1), np.inf, np.float32), "FP32"),
        (DEFENCE, "victim_scores", np.zeros((0, 10), np.float32), "FP32"),
        (DEFENCE, "victim_scores", np.zeros((10_000, 10), np.float32), "FP32"),
        (DEFENCE, "victim_scores", np.zeros((2, 9), np.float32), "FP32"),
        (DEFENCE, "victim_scores", np.zeros((2, 10), np.float16), "FP16"),
        (DEFENCE, "victim_scores", np.full((2, 10), np.nan, np.float32), "FP32"),
        (DEFENCE, "victim_scores", np.full((2, 10), np.inf, np.float32), "FP32"),
        (DEFENCE, "victim_scores", np.full((2, 10), -np.inf, np.float32), "FP32"),
        (DEFENCE, "scores", np.zeros((2, 10), np.float32), "FP32"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_next_request_is_answered(
    client, endpoint, victim, model, name, values, datatype
):
    with pytest.raises(InferenceServerException) as refusal:
        infer(client, model, name, values, datatype)
    assert "Traceback" not in str(refusal.value)
    assert_perturbed(endpoint(IMAGES), victim(IMAGES))


def test_an_image_of_denormals_is_answered_perturbed(client, victim):
    images = np.full((2, 8, 8, 1), FLOAT32.smallest_subnormal, np.float32)
    assert_perturbed(infer(client, "digits", "image", images), victim(images))


@pytest.fixture(scope="module")
def stub(server):
    with grpc.grpc.insecure_channel(
        server.grpc_url, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def request_of(values, payloads, *, model, name):
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype="FP32", shape=values.shape)
    request.raw_input_contents.extend(payloads)
    return request


@pytest.mark.parametrize(
    "cut",
    [
        lambda whole: [],
        lambda whole: [b""],
        lambda whole: [whole[:-1]],
        lambda whole: [whole[:-4]],
        lambda whole: [whole[: len(whole) // 2]],
        lambda whole: [whole + bytes(4)],
    ],
    ids=["none", "empty", "a byte short", "a number short", "half", "a number long"],
)
@pytest.mark.parametrize("model", ["digits", DEFENCE])
def test_a_request_whose_bytes_do_not_fill_its_shape_is_refused(stub, endpoint, victim, model, cut):
    name, values = ("image", IMAGES) if model == "digits" else ("victim_scores", victim(IMAGES))
    request = request_of(values, cut(values.tobytes()), model=model, name=name)
    with pytest.raises(grpc.grpc.RpcError) as refusal:
        stub.ModelInfer(request, timeout=30)
    assert refusal.value.code() == grpc.grpc.StatusCode.INVALID_ARGUMENT
    assert_perturbed(endpoint(IMAGES), victim(IMAGES))


def test_a_body_cut_short_over_http_is_refused(server, endpoint, victim):
    whole = IMAGES.tobytes()
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "shape": list(IMAGES.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(whole)},
                }
            ]
        }
    ).encode()
    connection = http.client.HTTPConnection(server.address, server.ports.http, timeout=30)
    connection.request(
        "POST",
        "/v2/models/digits/infer",
        body=header + whole[: len(whole) // 2],
        headers={"Inference-Header-Content-Length": str(len(header))},
    )
    response = connection.getresponse()
    assert response.status == 400
    assert "scores" not in json.load(response)
    connection.close()
    assert_perturbed(endpoint(IMAGES), victim(IMAGES))

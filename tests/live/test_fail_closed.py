import queue

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from exporters.training import datasets
from load_tests.asking.endpoint import EndpointError

DEFENCE = "digits_reverse_sigmoid"
IMAGES = datasets.load("digits").x_test


@pytest.fixture(scope="module")
def client(server):
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def tensor(name, values):
    made = grpc.InferInput(name, values.shape, "FP32")
    made.set_data_from_numpy(values)
    return made


def infer_all(client, model, name, batches):
    """Send all at once, so that Triton's batcher has some to merge; answers by position."""
    done = queue.Queue()
    for index, values in enumerate(batches):
        client.async_infer(
            model,
            [tensor(name, values)],
            callback=lambda result, error, index=index: done.put((index, result, error)),
        )
    answers = [None] * len(batches)
    for _ in batches:
        index, result, error = done.get(timeout=60)
        answers[index] = error or result.as_numpy("scores")
    return answers


def test_a_request_with_nan_fails_alone(client):
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 10)).astype(np.float32) * 5 for _ in range(200)]
    for index in range(0, 200, 7):
        batches[index][2, 3] = [np.nan, np.inf, -np.inf][index % 3]
    answers = infer_all(client, DEFENCE, "victim_scores", batches)
    for index, (values, answer) in enumerate(zip(batches, answers, strict=True)):
        if index % 7 == 0:
            assert isinstance(answer, InferenceServerException)
            assert answer.message() == f"{DEFENCE}: row 2 of the request cannot be answered"
        else:
            assert np.array_equal(answer.argmax(axis=1), values.argmax(axis=1))


def test_an_image_that_drives_the_victim_to_nan_gets_an_error_and_no_scores(client):
    batches = [IMAGES[index : index + 2].copy() for index in range(20)]
    batches[11][1, 4, 4, 0] = np.nan
    answers = infer_all(client, "digits", "image", batches)
    failed = [index for index, a in enumerate(answers) if isinstance(a, Exception)]
    assert failed == [11]
    assert "row 1 of the request cannot be answered" in str(answers[11])


@pytest.mark.parametrize("shape", [(2, 9), (2, 11), (2, 10, 1), (0, 10), (257, 10)])
def test_scores_of_another_shape_get_an_error(client, shape):
    with pytest.raises(InferenceServerException):
        client.infer(DEFENCE, [tensor("victim_scores", np.zeros(shape, np.float32))])


def test_inner_scores_cannot_be_asked_of_the_ensemble(client):
    with pytest.raises(InferenceServerException, match="victim_scores"):
        client.infer(
            "digits",
            [tensor("image", IMAGES[:1])],
            outputs=[grpc.InferRequestedOutput("victim_scores")],
        )


def test_a_failed_call_names_the_endpoint_and_the_model(endpoint):
    with pytest.raises(EndpointError, match=f"{endpoint.url}, model digits: .*unexpected shape"):
        endpoint(np.zeros((1, 9, 9, 1), np.float32))

import json
import threading

import numpy as np
import oracle
import pytest
from serving import read_url

from exporters.repository.model_repository import SHIPPED
from exporters.training import datasets
from load_tests.asking.endpoint import ask

DIGITS = datasets.load("digits")
SETTINGS = {
    "beta": SHIPPED.beta,
    "gamma": SHIPPED.gamma,
    "margin": SHIPPED.margin,
    "preserve_top1": True,
}


def expected_of(logits):
    return oracle.reverse_sigmoid(*oracle.log_odds(logits), **SETTINGS)


def test_grpc_answers_are_equation_2_of_the_victims_logits(endpoint, victim):
    logits = ask(victim, DIGITS.x_test)
    served = ask(endpoint, DIGITS.x_test)
    assert served.dtype == np.float32
    assert np.abs(served - expected_of(logits)).max() <= 1e-6
    assert np.array_equal(served.argmax(axis=1), logits.argmax(axis=1))


def test_http_answers_are_the_grpc_answers(endpoint, server):
    images = DIGITS.x_test[:3]
    request = {
        "inputs": [
            {
                "name": "image",
                "shape": list(images.shape),
                "datatype": "FP32",
                "data": images.ravel().tolist(),
            }
        ]
    }
    url = f"http://{server.address}:{server.ports.http}/v2/models/digits/infer"
    (output,) = json.loads(read_url(url, data=json.dumps(request).encode(), timeout=30))["outputs"]
    assert output["name"] == "scores"
    assert np.allclose(np.reshape(output["data"], output["shape"]), endpoint(images), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 255, 256])
def test_every_batch_size_up_to_the_models_is_answered_row_by_row(endpoint, victim, count):
    images = DIGITS.x_test[:count]
    assert np.abs(endpoint(images) - expected_of(victim(images))).max() <= 1e-6


def test_requests_that_triton_merges_get_their_own_rows(endpoint, victim):
    logits = ask(victim, DIGITS.x_test[:64])
    expected = expected_of(logits)
    answers = [None] * 64

    def query(index):
        answers[index] = endpoint(DIGITS.x_test[index : index + 1])[0]

    threads = [threading.Thread(target=query, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Merged batches of another size may change the victim's own last digit.
    assert np.abs(np.array(answers) - expected).max() <= 1e-5

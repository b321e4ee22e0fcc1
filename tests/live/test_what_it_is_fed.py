"""A served defence whose victim gives other scores than config.pbtxt says, or 8-bit ones."""

import re
import time

import numpy as np
import onnx
import pytest
from commands import SOON_S
from onnx import helper
from ports import free_ports
from serving import read_url

from deploy.triton.server import TritonServer
from exporters.training import datasets
from load_tests.asking.endpoint import Endpoint, EndpointError

DEFENCE, VICTIM = "digits_reverse_sigmoid", "digits_classifier"
IMAGES = datasets.load("digits").x_test[:200]


def keep_softmax(repository, version, *, steps=None):
    """Put a version of the victim that ends in Softmax, perhaps rounded to 8 bits."""
    model = onnx.load(repository / VICTIM / "1" / "model.onnx")
    graph = model.graph
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == "scores":
                node.output[index] = "logits_"
    graph.node.append(helper.make_node("Softmax", ["logits_"], ["soft"], axis=-1))
    names = ["soft", "scale_", "zero_"]
    if steps is None:
        graph.node.append(helper.make_node("Identity", ["soft"], ["scores"]))
    else:
        graph.initializer.append(helper.make_tensor("scale_", 1, [], [1 / steps]))
        graph.initializer.append(helper.make_tensor("zero_", 2, [], [0]))
        graph.node.append(helper.make_node("QuantizeLinear", names, ["whole"]))
        names[0] = "whole"
        graph.node.append(helper.make_node("DequantizeLinear", names, ["scores"]))
    folder = repository / VICTIM / str(version)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")


def set_scores(repository, kind):
    config = repository / DEFENCE / "config.pbtxt"
    text, count = re.subn(
        r'(key: "scores" value: \{ string_value: ")\w+', rf"\g<1>{kind}", config.read_text()
    )
    assert count == 1
    config.write_text(text)


def serve(repository, tmp_path):
    return TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log")


def counted(server, name):
    text = read_url(f"http://{server.address}:{server.ports.metrics}/metrics")
    (value,) = re.findall(
        rf'^reverse_sigmoid_{name}_total\{{model="{DEFENCE}".*\}} (\S+)$', text, re.M
    )
    return float(value)


def wait_for(condition, timeout_s=SOON_S):
    """Counts go out at most once a second, with the requests of the next."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ask(endpoint, images):
    try:
        return endpoint(images)
    except EndpointError as error:
        return error


def test_a_version_that_kept_its_softmax_is_refused_within_a_hundred_rows(repository, tmp_path):
    keep_softmax(repository, 2)
    with serve(repository, tmp_path) as server, Endpoint(server.grpc_url, "digits") as endpoint:
        answers = [ask(endpoint, image[None]) for image in IMAGES]
        refused = [isinstance(answer, EndpointError) for answer in answers]
        assert all(refused[100:])
        assert refused == sorted(refused)
        said = str(answers[-1])
        assert "row 0 of the request cannot be answered: the model has to be set up anew" in said
        assert not any(
            word in said for word in ("victim_scores", "logits", "probabilit", "softmax")
        )
        wait_for(
            lambda: (
                ask(endpoint, IMAGES[:1]) is not None
                and counted(server, "mistaken_requests") >= 100
            )
        )
        assert counted(server, "refused_requests") == counted(server, "mistaken_requests")
    log = (tmp_path / "triton.log").read_text()
    assert log.count(f"{DEFENCE}: {repository / DEFENCE}/config.pbtxt: parameter scores: expected "
                     "logits, got 4 or more rows that look like probabilities") == 1  # fmt: skip


def test_a_thief_gets_3_answers_of_a_softmax_beside_the_version_before(repository, tmp_path):
    keep_softmax(repository, 2)
    with (repository / VICTIM / "config.pbtxt").open("a") as config:
        config.write("\nversion_policy { all {} }\n")
    with serve(repository, tmp_path) as server, Endpoint(server.grpc_url, "digits") as endpoint:
        answers = [ask(endpoint, image[None]) for image in IMAGES]
    refused = [isinstance(answer, EndpointError) for answer in answers]
    assert refused == [False] * 3 + [True] * (len(IMAGES) - 3)


def test_logits_under_a_defence_of_probabilities_are_refused_the_same_way(repository, tmp_path):
    set_scores(repository, "probabilities")
    with serve(repository, tmp_path) as server, Endpoint(server.grpc_url, "digits") as endpoint:
        answers = [ask(endpoint, image[None]) for image in IMAGES[:20]]
        assert all(isinstance(answer, EndpointError) for answer in answers)
        assert "row 0 of the request cannot be answered: the model has to be set up anew" in str(
            answers[0]
        )
        wait_for(
            lambda: (
                ask(endpoint, IMAGES[:1]) is not None and counted(server, "mistaken_requests") >= 20
            )
        )
    assert (
        "parameter scores: expected probabilities, got rows that are none"
        in (tmp_path / "triton.log").read_text()
    )


@pytest.mark.parametrize("steps", [255, 127])
def test_a_victim_of_8_bits_is_answered_and_keeps_its_top_class(repository, tmp_path, steps):
    keep_softmax(repository, 1, steps=steps)
    set_scores(repository, "probabilities")
    rng = np.random.default_rng(0)
    with (
        serve(repository, tmp_path) as server,
        Endpoint(server.grpc_url, "digits") as endpoint,
        Endpoint(server.grpc_url, VICTIM) as victim,
    ):
        off = 0.0
        for _ in range(10):
            mixed = IMAGES[rng.integers(200, size=200)] * rng.random((200, 1, 1, 1), np.float32)
            raw, answer = victim(mixed), endpoint(mixed)
            off = max(off, np.abs(raw.sum(axis=1) - 1).max())
            assert np.array_equal(answer.argmax(axis=1), raw.argmax(axis=1))
            assert np.abs(answer.sum(axis=1) - 1).max() <= 1e-6
        assert off > 1e-3

"""Defences whose config.pbtxt holds a name, a backend and parameters, and no more."""

import re
import time

import numpy as np
import oracle
import pytest
from ports import free_ports
from serving import read_url
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from deploy.triton.server import TritonServer
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

SHIPPED = {"scores": "logits", "beta": "1.5", "gamma": "0.2", "margin": "0.01"}
MODELS = {
    "plain": SHIPPED,
    "uncapped": {**SHIPPED, "preserve_top1": "false"},
    "uniform": {"defense": "uniform", "scores": "logits", "beta": "0.2", "seed": "3"},
    "concave": {
        "defense": "uniform_concave",
        "scores": "logits",
        "beta": "0.2",
        "rho": "0.1",
        "seed": "3",
    },
    "convex": {
        "defense": "uniform_convex",
        "scores": "logits",
        "beta": "0.2",
        "rho": "0.1",
        "seed": "3",
    },
    "sine": {"defense": "sine", "scores": "logits", "beta": "0.1", "frequency": "20"},
    "none": {"defense": "none", "scores": "logits"},
    "decimals": {**SHIPPED, "decimals": "2"},
    "decoy": {"defense": "decoy", "scores": "logits"},
    "multi": {**SHIPPED, "multi_label": "true"},
}
RANDOM = ["uniform", "concave", "convex"]
LOGITS = (np.random.default_rng(0).normal(size=(64, 7)) * 4).astype(np.float32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    repository = tmp_path_factory.mktemp("hand_written") / "models"
    for name, strings in MODELS.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(
            "from postprocess.triton_model import TritonPythonModel\n"
        )
        lines = [f'name: "{name}"', 'backend: "python"'] + [
            f'parameters {{ key: "{key}" value: {{ string_value: "{text}" }} }}'
            for key, text in strings.items()
        ]
        (repository / name / "config.pbtxt").write_text("\n".join(lines))
    return repository


@pytest.fixture(scope="module")
def server(repository):
    log = repository.parent / "triton.log"
    with TritonServer(repository, ports=free_ports(), log=log) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def infer(client, model, logits=LOGITS):
    tensor = grpc.InferInput("victim_scores", logits.shape, "FP32")
    tensor.set_data_from_numpy(logits)
    return client.infer(model, [tensor]).as_numpy("scores")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in RANDOM])
def test_every_defence_is_served_as_its_parameters_say(client, name):
    strings = MODELS[name]
    parameters = Parameters.from_strings(strings, where=name)
    expected = Postprocessor(parameters)(LOGITS)
    assert np.array_equal(infer(client, name), expected)


def test_reverse_sigmoid_is_equation_2_for_any_number_of_classes(client):
    for classes in (2, 10, 33):
        logits = (np.random.default_rng(classes).normal(size=(9, classes)) * 4).astype(np.float32)
        expected = oracle.reverse_sigmoid(
            *oracle.log_odds(logits), beta=1.5, gamma=0.2, margin=0.01, preserve_top1=True
        )
        assert np.abs(infer(client, "plain", logits) - expected).max() <= 1e-6


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_defence_draws_anew_and_keeps_top_1(client, name):
    one, other = infer(client, name), infer(client, name)
    assert not np.allclose(one, other, atol=1e-4)
    for answer in (one, other):
        assert np.array_equal(answer.argmax(axis=1), LOGITS.argmax(axis=1))
        assert np.abs(answer.sum(axis=1) - 1).max() <= 1e-6


def test_each_model_counts_what_it_did_on_the_metrics_endpoint(client, server):
    def counted():
        text = read_url(f"http://{server.address}:{server.ports.metrics}/metrics")
        pattern = r'^(reverse_sigmoid_\w+)\{model="decimals",version="1"\} (\S+)$'
        return {name: float(value) for name, value in re.findall(pattern, text, re.MULTILINE)}

    def settle():
        """Counts go out at most once a second, with the requests of the next."""
        time.sleep(1.1)
        infer(client, "decimals")
        return counted()

    before = settle()
    for _ in range(50):
        infer(client, "decimals")
    bad = LOGITS.copy()
    bad[3, 2] = np.nan
    for _ in range(3):
        with pytest.raises(InferenceServerException, match="row 3"):
            infer(client, "decimals", bad)
    after = settle()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["reverse_sigmoid_requests_total"] == 54
    assert grown["reverse_sigmoid_rows_total"] == 51 * 64
    assert grown["reverse_sigmoid_refused_requests_total"] == 3
    assert grown["reverse_sigmoid_refused_rows_total"] == 3 * 64
    assert grown["reverse_sigmoid_failed_requests_total"] == 0
    assert 0 < grown["reverse_sigmoid_capped_rows_total"] < 51 * 64
    # A quick step earns its measuring over many batches; the first is always measured.
    measured = after["reverse_sigmoid_measured_rows_total"]
    assert 0 < measured <= after["reverse_sigmoid_rows_total"]
    assert 0.1 < after["reverse_sigmoid_perturbation_l1_total"] / measured < 2
    assert 0.1 < after["reverse_sigmoid_perturbation_kl_nats_total"] / measured < 3
    assert 0.009 < after["reverse_sigmoid_top1_margin_total"] / measured < 1
    assert after["reverse_sigmoid_config_not_in_force"] == 0

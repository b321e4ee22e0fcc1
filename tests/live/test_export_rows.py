"""Classifiers trained from files of rows that are no images, served by Triton."""

import numpy as np
import oracle
import pytest
from commands import run_command

from deploy.triton.server import TritonServer, free_ports
from exporters.model_repository import SHIPPED
from load_tests.endpoint import ask, connect

CLASSES, FEATURES = 12, 6
SETTINGS = {"beta": SHIPPED.beta, "gamma": SHIPPED.gamma, "margin": SHIPPED.margin}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of features; the class is the nearest of twelve points."""
    path = tmp_path_factory.mktemp("data") / "points.npz"
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, FEATURES)) * 4
    labels = rng.integers(0, CLASSES, 900)
    rows = (centres[labels] + rng.normal(size=(900, FEATURES))).astype(np.float16)
    np.savez(path, x_train=rows[:700], y_train=labels[:700], x_test=rows[700:],
             y_test=labels[700:])  # fmt: skip
    return path


def asker(client, model, name):
    """Return a query that sends an array as a model's only input."""
    from tritonclient.grpc import InferInput

    def query(values):
        datatype = {"f": "FP32", "i": "INT64"}[values.dtype.kind]
        tensor = InferInput(name, values.shape, datatype)
        tensor.set_data_from_numpy(values)
        return client.infer(model, [tensor]).as_numpy("scores")

    return query


def served(repository, public, name, rows):
    """Return the victim's logits and the protected answers for rows."""
    with TritonServer(repository, ports=free_ports(), log=repository / "triton.log") as server:
        client = connect(server.grpc_url)
        try:
            models = (f"{public}_classifier", public)
            return [ask(asker(client, model, name), rows) for model in models]
        finally:
            client.close()


def assert_protected(logits, answers):
    expected = oracle.reverse_sigmoid(*oracle.log_odds(logits), **SETTINGS, preserve_top1=True)
    assert np.abs(answers - expected).max() <= 1e-6
    assert np.array_equal(answers.argmax(axis=1), logits.argmax(axis=1))


def test_a_classifier_of_features_is_trained_and_served_under_the_files_name(tmp_path, data):
    done = run_command("export", data, "--repository", "models", "--steps", 200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(data) as stored:
        rows, labels = stored["x_test"].astype(np.float32), stored["y_test"]
    logits, answers = served(tmp_path / "models", "points", "features", rows)
    assert logits.shape == (200, CLASSES)
    assert (logits.argmax(axis=1) == labels).mean() > 0.9
    assert_protected(logits, answers)
    check = run_command("check", "models", cwd=tmp_path)
    assert check.returncode == 0, check.stdout

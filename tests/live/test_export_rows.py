"""Classifiers trained from files of rows that are no images, served by Triton."""

from pathlib import Path

import numpy as np
import oracle
import pytest
from commands import call_command
from ports import free_ports

from deploy.triton.server import TritonServer
from exporters.repository.model_repository import SHIPPED
from exporters.training import datasets
from load_tests.asking.endpoint import ask, connect

SHARED = Path(__file__).parents[3] / "shared" / "data"
CLASSES, FEATURES = 12, 6
SETTINGS = {"beta": SHIPPED.beta, "gamma": SHIPPED.gamma, "margin": SHIPPED.margin}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of features, the class the nearest of twelve points, with texts that name it."""
    path = tmp_path_factory.mktemp("data") / "points.npz"
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, FEATURES)) * 4
    labels = rng.integers(0, CLASSES, 900)
    rows = (centres[labels] + rng.normal(size=(900, FEATURES))).astype(np.float16)
    words = [f"{label} word{label} " + "or so " * (row % 4) for row, label in enumerate(labels)]
    np.savez(path, x_train=rows[:700], y_train=labels[:700], x_test=rows[700:],
             y_test=labels[700:], text_train=words[:700], text_test=words[700:])  # fmt: skip
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
    done = call_command("export", data, "--repository", "models", "--steps", 200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(data) as stored:
        rows, labels = stored["x_test"].astype(np.float32), stored["y_test"]
    logits, answers = served(tmp_path / "models", "points", "features", rows)
    assert logits.shape == (200, CLASSES)
    assert (logits.argmax(axis=1) == labels).mean() > 0.9
    assert_protected(logits, answers)
    check = call_command("check", "models", cwd=tmp_path)
    assert check.returncode == 0, check.stdout


def test_a_classifier_of_texts_takes_ids_of_any_number_and_padding_changes_nothing(tmp_path, data):
    options = ("--architecture", "tokens", "--steps", 100, "--repository", "models")
    done = call_command("export", data, *options, "--query-sets", "asked", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "asked" / "test.npz") as test:
        rows, labels = test["ids"], test["labels"]
    odd = np.array([[3, 10**15, -1]])  # beyond the buckets, where nothing but one batch would fail
    with TritonServer(tmp_path / "models", ports=free_ports(), log=tmp_path / "log") as server:
        client = connect(server.grpc_url)
        victim, protected = (
            asker(client, model, "ids") for model in ("points_classifier", "points")
        )
        logits, answers = ask(victim, rows), ask(protected, rows)
        short = rows[:1, : np.count_nonzero(rows[0])]
        longer = [np.pad(short, ((0, 0), (0, more))) for more in (0, 1, 400)]
        spread = np.stack([short, np.zeros_like(short)], axis=2).reshape(1, -1)
        alike = [protected(each) for each in (*longer, spread)]
        nothing = protected(np.zeros((1, 3), np.int64))
        assert np.isfinite(protected(odd)).all()
        client.close()
    assert rows.dtype == np.int64
    assert (logits.argmax(axis=1) == labels).mean() > 0.9
    assert_protected(logits, answers)
    assert np.abs(np.concatenate(alike) - answers[0]).max() <= 1e-5
    assert nothing.shape == (1, CLASSES)


def test_what_a_thief_asks_is_the_third_that_the_victim_never_saw(tmp_path, data):
    train = ("--steps", 1, "--repository", "models", "--seed", 5)
    for network, taken in (("mlp", {"features"}), ("tokens", {"ids", "features"})):
        options = (*train, "--architecture", network, "--query-sets", network, "--name", network)
        done = call_command("export", data, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / network / "query.npz") as query:
            assert set(query.files) == taken
            rows = query["features"]
        with np.load(tmp_path / network / "test.npz") as test:
            assert set(test.files) == {*taken, "labels"}
            tested = test["features"]
        held = datasets.hold_off(datasets.load(str(data)), seed=5)
        assert np.array_equal(rows, held.adversary_images)
        with np.load(data) as stored:
            assert np.array_equal(tested, stored["x_test"].astype(np.float32))
    again = call_command(
        "export", data, *train, "--query-sets", "mlp", "--name", "other", cwd=tmp_path
    )
    assert again.returncode == 1
    assert again.stderr == (
        "reverse-sigmoid: --query-sets: mlp/query.npz exists; give --force to replace it\n"
    )
    (tmp_path / "file").touch()
    odd = call_command(
        "export", data, *train, "--query-sets", "file", "--name", "other", cwd=tmp_path
    )
    assert odd.stderr == "reverse-sigmoid: --query-sets file: expected a folder, got a file\n"
    assert not (tmp_path / "models" / "other").exists()


@pytest.mark.parametrize("name", ["banking77", "clinc150"])
@pytest.mark.parametrize("network", ["mlp", "tokens"])
def test_real_texts_with_many_classes_are_learnt_and_served(tmp_path, name, network):
    path = SHARED / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"needs {name}.npz in ../shared/data")
    options = ("--architecture", network, "--repository", "models", "--query-sets", "asked")
    done = call_command("export", path, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    given = "ids" if network == "tokens" else "features"
    with np.load(tmp_path / "asked" / "test.npz") as test:
        rows, labels = test[given], test["labels"]
    logits, answers = served(tmp_path / "models", name, given, rows)
    assert (logits.argmax(axis=1) == labels).mean() > 0.87
    assert_protected(logits, answers)

"""Data sets of the paper at their real size, where a folder of them stands beside the checkout."""

from pathlib import Path

import numpy as np
import pytest
from commands import call_command
from ports import free_ports

from deploy.triton.server import TritonServer
from exporters.training import datasets
from load_tests.asking.endpoint import Endpoint, ask

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files_load_and_split_as_in_the_paper(name):
    if not (DATA / f"{name}.npz").is_file():
        pytest.skip(f"needs {name}.npz in ../shared/data")
    dataset = datasets.load(name, DATA)
    assert dataset.x_train.shape == (60_000, 28, 28, 1)
    assert dataset.x_test.shape == (10_000, 28, 28, 1)
    assert dataset.classes == 10
    counts = np.bincount(dataset.y_train)
    held_off = datasets.hold_off(dataset, seed=0)
    assert len(held_off.adversary_images) == sum(-(-count // 3) for count in counts)


def test_mnist_is_exported_and_served_under_its_own_name(tmp_path):
    if not (DATA / "mnist.npz").is_file():
        pytest.skip("needs mnist.npz in ../shared/data")
    repository = tmp_path / "models"
    options = ("--repository", repository, "--data-dir", DATA, "--steps", 5)
    done = call_command("export", "mnist", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = datasets.load("mnist", DATA).x_test[:500]
    with (
        TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as server,
        Endpoint(server.grpc_url, "mnist") as protected,
        Endpoint(server.grpc_url, "mnist_classifier") as victim,
    ):
        logits, served = ask(victim, images), ask(protected, images)
    assert np.array_equal(served.argmax(axis=1), logits.argmax(axis=1))
    assert np.abs(served.sum(axis=1, dtype=np.float64) - 1).max() <= 1e-6

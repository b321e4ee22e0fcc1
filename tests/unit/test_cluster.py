"""What is said of a scheduler's address, and which files a worker is sent."""

import numpy as np
import pytest

from exporters.training import datasets
from load_tests.runs import cluster
from load_tests.runs.run import Victim
from load_tests.runs.victims import files, is_trained, put
from postprocess.errors import InputError

VICTIM = Victim(data="digits", architecture="simple", steps=200, seed=0)


@pytest.mark.parametrize(
    ("where", "open_to_others"),
    [
        ("tcp://127.0.0.1:8786", False),
        ("tcp://localhost:8786", False),
        ("tcp://[::1]:8786", False),
        ("tls://10.0.0.1:8786", False),
        ("tcp://10.0.0.1:8786", True),
        ("tcp://dask.example.org:8786", True),
        ("tcp://0.0.0.0:8786", True),
        ("tcp://127.evil.example:8786", True),
    ],
)
def test_without_tls_and_loopback_it_is_said_that_others_run_code(where, open_to_others):
    assert ("has its workers and this command run any code" in cluster.warning(where)) is (
        open_to_others
    )


@pytest.mark.parametrize("where", ["10.0.0.1:8786", "http://h:1", "tcp://h", "tls://::1:8", ""])
def test_what_is_no_schedulers_address_is_refused(where):
    with pytest.raises(InputError, match="--scheduler: expected "):
        cluster.warning(where)


def test_a_file_of_ones_own_is_found_as_named_or_where_it_was_sent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, labels = np.zeros((6, 2), "f4"), np.arange(6) % 2
    for folder in ("here", "sent"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "own.npz", x_train=rows, y_train=labels, x_test=rows,
                 y_test=labels)  # fmt: skip
    (named,) = datasets.files("here/own.npz", None)
    assert named.read_bytes() == (tmp_path / "here" / "own.npz").read_bytes()
    named.unlink()
    assert datasets.files("here/own.npz", tmp_path / "sent") == [tmp_path / "sent" / "own.npz"]
    assert datasets.load("here/own.npz", tmp_path / "sent").classes == 2
    assert datasets.files("digits", tmp_path) == datasets.files("mnist", None) == []
    assert datasets.files("mnist", tmp_path) == [tmp_path / "mnist.npz"]


def test_a_victim_that_was_sent_is_there_whole_or_not_at_all(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / VICTIM.name).mkdir(parents=True)
    for name in ("victim.json", "weights.npz", "logits.npz", ".logits.npz.x.part"):
        (first / VICTIM.name / name).write_text(name)
    sent = {path.name: path.read_bytes() for path in files(VICTIM, first)}
    assert list(sent) == ["logits.npz", "weights.npz", "victim.json"]
    put(VICTIM, second, sent)
    assert is_trained(VICTIM, second)
    (second / VICTIM.name / "logits.npz").unlink()
    (second / VICTIM.name / "logits.npz").mkdir()  # where no file can be put
    with pytest.raises(OSError, match=r"logits\.npz"):
        put(VICTIM, second, sent)
    assert not is_trained(VICTIM, second)

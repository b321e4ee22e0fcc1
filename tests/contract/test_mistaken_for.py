"""What people give in the place of something else: refused at once, in one line, by its name."""

import os

import numpy as np
import pytest
from commands import SOON_S, call_command, run_command
from existing_models import contents
from gateways import write_files
from victims import FLOAT, SOFTMAX, graph_file, linear_file, node, protected, rng

from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.errors import InputError


def test_a_pipe_for_a_sample_is_not_waited_for(tmp_path):
    linear_file(tmp_path / "m.onnx", SOFTMAX)
    os.mkfifo(tmp_path / "rows.npz")
    done = run_command(
        *("protect", "m.onnx", "--repository", "r", "--sample", "rows.npz"),
        cwd=tmp_path, timeout=SOON_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("--sample rows.npz: no such file")) == (1, 1)


def test_a_pipe_for_a_key_file_is_not_waited_for(tmp_path):
    operator = write_files(tmp_path).path
    (tmp_path / "alice.key").unlink()
    os.mkfifo(tmp_path / "alice.key")
    linear_file(tmp_path / "digits.onnx", SOFTMAX)
    protected(tmp_path, tmp_path / "digits.onnx")
    done = run_command("check", "models", "--gateway", operator, cwd=tmp_path, timeout=SOON_S)
    assert done.returncode == 1
    assert "clients: alice: key_file: expected the path of a file, got 'alice.key'" in done.stdout


def test_the_statistics_on_the_address_of_the_clients_are_refused(tmp_path):
    operator = write_files(tmp_path).path
    said = dict(line.split(": ", 1) for line in operator.read_text().splitlines() if ": " in line)
    text = operator.read_text().replace(said["statistics"], said["listen"])
    operator.write_text(text)
    (tmp_path / "models").mkdir()
    done = call_command("check", "models", "--gateway", operator, cwd=tmp_path)
    assert done.returncode == 1
    assert "statistics: expected another address than that of listen, got" in done.stdout


def test_nothing_is_written_into_a_model_that_is_taken_for_a_repository(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    protected(tmp_path, path)
    there = sorted(tmp_path.rglob("*"))
    done = call_command("protect", "m.onnx", "--repository", "models/m", cwd=tmp_path)
    assert done.returncode == 1
    assert "models/m: expected a model repository, got one model of it; give " in done.stderr
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("key", ["two\nlines", "clé"])
@pytest.mark.parametrize(
    "command",
    [
        ("attack", "sample", "--model", "m", "--data", "digits", "--queries", 9, "--out", "o"),
        ("audit", "--public", "m"),
        ("overhead", "--protected", "m", "--unprotected", "n"),
    ],
)
def test_a_key_that_no_header_holds_is_refused_and_not_printed(tmp_path, command, key):
    done = call_command(*command, "--url", "127.0.0.1:9", "--api-key", key, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "the API key (--api-key, REVERSE_SIGMOID_API_KEY): expected printable ASCII" in line
    assert key not in line


def test_scores_beyond_all_bounds_are_no_matter_for_numpys_own_warnings(tmp_path):
    graph_file(
        tmp_path / "m.onnx",
        [node("MatMul", ["x", "W"], ["h"]), node("Mul", ["h", "huge"], ["scores"])],
        [("x", FLOAT, ("N", 4))],
        [("scores", FLOAT, ("N", 5))],
        {"W": rng().normal(size=(4, 5)).astype(np.float32), "huge": np.array(3e38, np.float32)},
    )
    done = call_command("protect", "m.onnx", "--repository", "r", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_another_put_there_meanwhile_is_not_written_over(tmp_path):
    mine, other = (linear_file(tmp_path / name / "m.onnx", SOFTMAX) for name in ("mine", "other"))
    repository, asked = tmp_path / "r", ProtectOptions()

    def meanwhile(staged):
        protect(other, repository, SHIPPED, asked)
        there.update(contents(repository))

    there = {}
    with pytest.raises(InputError, match=r"/r/m\S* exists; give --force to replace it"):
        protect(mine, repository, SHIPPED, asked, finish=meanwhile)
    assert contents(repository) == there

"""Tables of yes or no outputs, made by the command line and answered by a real Triton."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from commands import run_command
from ports import free_ports
from victims import SIGMOID, linear_file

from deploy.triton.server import TritonServer
from exporters.fusing import fused
from exporters.graph import onnx_graph
from load_tests.asking.endpoint import Endpoint

#: Name to outputs and layout.
MODELS = {
    "one": (1, "ensemble"),
    "one_fused": (1, "fused"),
    "many": (4, "ensemble"),
    "many_fused": (4, "fused"),
}
LEVELS = 5


def table_of(repository, name):
    """The table as its file says it, read without the project's code where it is a file."""
    found = list((repository / f"{name}_reverse_sigmoid").glob("calibration-*.json"))
    if found:
        said = json.loads(found[0].read_text())
        return np.array(said["log_odds"]), np.array(said["confidence"])
    table = fused.read_table(onnx_graph.load(repository / name / "1" / "model.onnx"))
    return np.array(table.log_odds), np.array(table.confidence)


def expected(yes, cuts, confidence):
    """Each side's level and confidence, from the classifier's own probabilities."""
    yes = yes.astype(np.float64)
    odds = np.log(yes) - np.log1p(-yes)
    level = (np.abs(odds)[..., None] >= cuts).sum(axis=-1)
    told = confidence[2 * np.arange(yes.shape[1]) + (odds < 0), level]
    return np.where(odds < 0, 1 - told, told)


@pytest.mark.slow
def test_a_served_yes_or_no_answers_by_the_table_that_calibrate_made(tmp_path):
    repository, rng = tmp_path / "models", np.random.default_rng(2)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    raw = {}
    for name, (outputs, layout) in MODELS.items():
        path = linear_file(tmp_path / f"{name}.onnx", SIGMOID, classes=outputs)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (raw[name],) = session.run(None, {"x": x})
        labels = (rng.random(raw[name].shape) < 0.3 + 0.4 * raw[name]).astype(int)
        np.savez(tmp_path / f"{name}.npz", x=x, labels=labels)
        many = ("--multi-label",) if outputs > 1 else ()
        model = ("--repository", repository, "--layout", layout, *many)
        done = run_command("protect", path, *model, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        asked = ("--query-set", tmp_path / f"{name}.npz", "--levels", LEVELS, "--write")
        done = run_command("calibrate", repository / name, *asked, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "log") as server:
        for name in MODELS:
            with Endpoint(server.grpc_url, name, timeout_s=60) as endpoint:
                answer = np.concatenate([endpoint(x[at : at + 200]) for at in range(0, 600, 200)])
            cuts, confidence = table_of(repository, name)
            assert np.abs(answer - expected(raw[name], cuts, confidence)).max() < 1e-6
            assert ((answer > 0.5) == (raw[name] > 0.5)).all()
            for column in answer.T:
                assert 2 < len(np.unique(column)) <= 2 * LEVELS + 1
        url = f"http://127.0.0.1:{server.ports.http}"
        for more in ((), ("--repository", str(repository))):  # by made-up questions, by kept ones
            ready = subprocess.run(
                [sys.executable, "-m", "postprocess.ready", *MODELS, "--url", url, *more],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert ready.stderr == ""

"""Two more public models over one classifier, the second set beside it while it is served."""

import subprocess
import sys
from functools import partial

import numpy as np
import oracle
from commands import SOON_S, run_command
from ports import free_ports
from victims import linear_file

from deploy.triton.server import TritonServer
from exporters.graph.onnx_run import OnnxSession
from load_tests.asking.endpoint import Endpoint
from postprocess import calibration

SETTINGS = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "preserve_top1": True}


def is_ready(http_url, folder, *options):
    """Return why the health check of a container says that a model is not ready, "" if all are."""
    command = (sys.executable, "-m", "postprocess.ready", "m", "m_calibrated", "m_labels")
    done = subprocess.run(
        [*command, "--url", f"http://{http_url}", *options],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr


def test_each_public_model_answers_in_its_own_way_from_one_copy_of_the_weights(tmp_path):
    path, repository = linear_file(tmp_path / "m.onnx"), tmp_path / "models"
    rng = np.random.default_rng(11)
    x = rng.normal(size=(600, 6)).astype(np.float32)
    logits = OnnxSession(path)({"x": x}, ["scores"])["scores"]
    classes = logits.shape[1]
    labels = (logits.argmax(1) + (rng.random(600) < 0.2)) % classes
    np.savez(tmp_path / "rows.npz", x=x, labels=labels)
    also = ("--also", "calibrated", "--query-set", tmp_path / "rows.npz")
    done = run_command("protect", path, "--repository", repository, *also, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with TritonServer(
        repository, ports=free_ports(), log=tmp_path / "log", control_mode="explicit"
    ) as server:

        def answers(name):
            with Endpoint(server.grpc_url, name, timeout_s=SOON_S) as endpoint:
                return np.concatenate([endpoint(x[at : at + 200]) for at in range(0, 600, 200)])

        done = run_command("protect", repository / "m", "--also", "labels", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with server.connect() as client:
            assert not client.is_model_ready("m_labels")
            client.load_model("m_labels")
        said = {name: answers(name) for name in ("m", "m_calibrated", "m_labels")}
        ready = partial(is_ready, f"127.0.0.1:{server.ports.http}", tmp_path)
        assert ready() == ready("--repository", repository) == ""
        (file,) = (repository / "m_labels_reverse_sigmoid").glob("calibration-*.json")
        other = next((repository / "m_calibrated_reverse_sigmoid").glob("calibration-*.json"))
        file.write_text(other.read_text())  # of what was loaded it says nothing
        assert "m_labels: answered otherwise than its own" in ready("--repository", repository)
    assert np.abs(said["m"] - oracle.protected(logits, kind="logits", **SETTINGS)).max() < 1e-5
    assert all((one.argmax(1) == logits.argmax(1)).all() for one in said.values())
    assert (said["m_labels"] == np.eye(classes)[logits.argmax(1)]).all()
    (file,) = (repository / "m_calibrated_reverse_sigmoid").glob("calibration-*.json")
    levels = calibration.read(file, where="").levels
    assert classes < len(np.unique(said["m_calibrated"], axis=0)) <= classes * levels
    assert len(list(repository.rglob("*.onnx"))) == 1

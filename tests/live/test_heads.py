"""A classifier of several heads, each with a defence of its own, served by the real Triton."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from commands import call_command
from oracle import protected as reference
from ports import free_ports
from victims import FLOAT, INT64, graph_file, node, rng

from deploy.repository import protected
from deploy.triton.server import TritonServer

X = rng().normal(size=(40, 6)).astype(np.float32)


def heads_file(path):
    """Write a classifier of a sex (2 logits) and an age (5 probabilities), with a label of each."""
    weights = {
        "W": 3 * rng().normal(size=(6, 2)).astype(np.float32),
        "V": 3 * rng().normal(size=(6, 5)).astype(np.float32),
    }
    return graph_file(
        path,
        [
            node("MatMul", ["x", "W"], ["sex:0"]),
            node("MatMul", ["x", "V"], ["h"]),
            node("Softmax", ["h"], ["age"], axis=-1),
            node("ArgMax", ["sex:0"], ["which"], axis=-1, keepdims=0),
            node("ArgMax", ["age"], ["old"], axis=-1, keepdims=0),
        ],
        [("x", FLOAT, ("N", 6))],
        [("sex:0", FLOAT, ("N", 2)), ("age", FLOAT, ("N", 5)),
         ("which", INT64, ("N",)), ("old", INT64, ("N",))],
        weights,
    )  # fmt: skip


OUTPUTS = ("--output", "sex:0", "--output", "age")
DEFENCES = {"sex:0": "face_sex_0_reverse_sigmoid", "age": "face_age_reverse_sigmoid"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Both heads protected, one retuned, and served; not to be changed."""
    folder = tmp_path_factory.mktemp("heads")
    heads_file(folder / "face.onnx")
    for words in (
        ("protect", "face.onnx", "--repository", "models", *OUTPUTS),
        ("retune", "models/face", "--output", "age", "--beta", "0.4", "--gamma", "0.5"),
    ):
        done = call_command(*words, cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
    with TritonServer(folder / "models", ports=free_ports(), log=folder / "log") as running:
        yield running


def asked(server, *outputs):
    from tritonclient import grpc

    given = grpc.InferInput("x", X.shape, "FP32")
    given.set_data_from_numpy(X)
    wanted = [grpc.InferRequestedOutput(name) for name in outputs] or None
    client = server.connect()
    try:
        answer = client.infer("face", [given], outputs=wanted)
        names = [one.name for one in answer.get_response().outputs]
        return {name: answer.as_numpy(name) for name in names}
    finally:
        client.close()


def original(server):
    path = server.repository.parent / "face.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = ["sex:0", "age", "which", "old"]
    return dict(zip(names, session.run(names, {"x": X}), strict=True))


@pytest.mark.slow
def test_each_head_is_the_reference_with_its_own_parameters_and_keeps_its_top_class(served):
    answer, before = asked(served), original(served)
    for output, kind, beta, gamma in (
        ("sex:0", "logits", 1.5, 0.2), ("age", "probabilities", 0.4, 0.5),
    ):  # fmt: skip
        rows = before[output].astype(np.float64)
        wanted = reference(rows, kind=kind, beta=beta, gamma=gamma, margin=0.01, preserve_top1=True)
        assert np.abs(answer[output] - wanted).max() < 1e-6
        assert (answer[output].argmax(axis=1) == rows.argmax(axis=1)).all()
    for label in ("which", "old"):
        assert (answer[label].ravel() == before[label]).all()


@pytest.mark.slow
@pytest.mark.parametrize("output", [*DEFENCES, "old"])
def test_a_client_may_ask_for_one_output_alone(served, output):
    (answer,) = asked(served, output).items()
    assert answer[0] == output
    assert np.array_equal(answer[1], asked(served)[output])


@pytest.mark.slow
def test_every_defence_is_watched_by_itself(served):
    client = served.connect()
    found = {one.output: one for one in protected.among(protected.read_configs(client))}
    client.close()
    assert {output: one.defence for output, one in found.items()} == DEFENCES
    assert [one.title for one in found.values()] == ["face/sex:0", "face/age"]
    assert found["age"].models == ("face_classifier", DEFENCES["age"])


@pytest.mark.slow
@pytest.mark.parametrize("output", list(DEFENCES))
def test_a_dead_defence_of_either_head_is_not_ready(served, output, tmp_path):
    def ready(ports):
        done = subprocess.run(
            [sys.executable, "-m", "postprocess.ready", "face",
             "--url", f"http://127.0.0.1:{ports.http}", "--repository", str(served.repository)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stderr

    with TritonServer(served.repository, ports=free_ports(), log=tmp_path / "log") as running:
        assert ready(running.ports) == (0, "")
        (stub,) = set(running.stubs()[DEFENCES[output]])
        os.kill(stub, signal.SIGKILL)
        code, said = ready(running.ports)
        assert code == 1
        assert said.startswith("not ready: face/infer: ")


@pytest.mark.slow
def test_check_finds_no_error_and_a_head_that_comes_raw_is_one(served, tmp_path):
    done = call_command("check", served.repository, cwd=tmp_path)
    assert (done.returncode, "0 errors" in done.stdout) == (0, True)
    copy = tmp_path / "models"
    shutil.copytree(served.repository, copy)
    config = copy / "face" / "config.pbtxt"
    text = config.read_text()
    # The victim's own ages under the public name, the defence's under another.
    text = text.replace('{ key: "age" value: "age" }', '{ key: "age" value: "again" }')
    config.write_text(text.replace('"victim_age" }', '"age" }'))
    done = call_command("check", copy, cwd=tmp_path)
    assert done.returncode == 1
    assert "output age: expected what a defence makes, got what none has perturbed" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--output", "age", "--output", "age"), "--output age: given twice"),
        (("--output", "age", "--output", "size"), "--output size: no such output; there are"),
        (("--output", "age", "--output", "old"), "--output old: expected scores of FLOAT16"),
        ((*OUTPUTS, "--layout", "fused"), "--layout fused: expected one --output"),
    ],
)
def test_what_is_no_head_is_refused_and_nothing_written(tmp_path, options, said):
    heads_file(tmp_path / "face.onnx")
    done = call_command("protect", "face.onnx", "--repository", "models", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["face.onnx"]


@pytest.mark.slow
def test_retune_names_the_outputs_that_a_defence_makes(served, tmp_path):
    model = served.repository / "face"
    done = call_command("retune", model, "--output", "old", "--beta", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "--output old: no defence makes it; expected sex:0 or age" in done.stderr

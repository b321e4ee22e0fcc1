"""The kernel is there where it serves, or the operator is told that it is not."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import oracle
import pytest
from commands import call_command
from ports import free_ports
from serving import read_url
from step import load_step  # noqa: F401

from deploy.triton.server import TritonServer
from load_tests.asking.endpoint import Endpoint
from postprocess import kernel

ROOT = Path(__file__).parents[2]
compiled = pytest.mark.skipif(
    kernel.open_library() is None, reason="the kernel was not compiled here"
)


def stages():
    """Return the Dockerfile's stages, each a list of its instructions, by name; the last as ""."""
    lines = [line for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
             if not line.startswith("#")]  # fmt: skip
    found, name = {}, None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        start = re.fullmatch(r"FROM \S+(?: AS (\S+))?", line)
        if start:
            name = start[1] or ""
            found[name] = []
        elif name is not None and line:
            found[name].append(" ".join(line.split()))
    return found


def installed(tmp_path, *, kept):
    """Return a folder with a copy of the package alone, its kernel ``kept`` or left out."""
    without = shutil.ignore_patterns("__pycache__", *([] if kept else ["*.so"]))
    shutil.copytree(ROOT / "postprocess", tmp_path / "postprocess", ignore=without)
    return tmp_path


def test_the_image_takes_a_wheel_from_a_stage_that_has_a_compiler():
    wheel, image = stages().values()
    assert list(stages()) == ["wheel", ""]
    assert any(re.search(r"apt-get install .*\bgcc\b", line) for line in wheel)
    (built,) = (line for line in wheel if line.startswith("RUN pip wheel"))
    folder = re.search(r"--wheel-dir (\S+)", built)[1]
    assert f"COPY --from=wheel {folder} {folder}" in image
    (install,) = (line for line in image if line.startswith("RUN"))
    assert f"pip install --no-cache-dir --no-deps --no-index {folder}/*.whl" in install
    assert "gcc" not in " ".join(image)


@compiled
@pytest.mark.parametrize("kept", [True, False])
def test_the_build_of_the_image_fails_without_the_kernel(tmp_path, kept):
    (install,) = (line for line in stages()[""] if line.startswith("RUN"))
    last = install.rpartition("&& ")[2].split()
    assert last[0] == "python3"
    done = subprocess.run([sys.executable, *last[1:]], cwd=installed(tmp_path, kept=kept),
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == (0 if kept else 1)
    assert done.stderr == ("" if kept else f"{tmp_path / 'postprocess'}: {kernel.MISSING}\n")


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("compiler", ["", "false"])
def test_a_wheel_is_built_without_a_compiler_too_and_says_so_when_it_is_used(
    tmp_path, monkeypatch, compiler
):
    if compiler:
        monkeypatch.setenv("CC", compiler)
    source = tmp_path / "source"
    left_out = shutil.ignore_patterns(".git", "tests", "*.so", "costs", "paper", "build")
    shutil.copytree(ROOT, source, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps",
         "--wheel-dir", tmp_path / "wheels", source],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    assert ("postprocess/_kernel.abi3.so" in archive.namelist()) == (not compiler)
    used = subprocess.run([sys.executable, "-m", "postprocess.kernel"], cwd=tmp_path / "installed",
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert used.returncode == (1 if compiler else 0)


@compiled
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(("defense", "reached"), [("reverse_sigmoid", True), ("sine", False)])
def test_the_step_says_which_path_answers(load_step, monkeypatch, there, defense, reached):  # noqa: F811
    if not there:
        monkeypatch.setattr(kernel, "_library", None)
    step = load_step(scores="logits", defense=defense, frequency="6")
    # Nobody is to look for a compiler on account of a defence that would do without the kernel.
    assert step.log == ([f"digits_reverse_sigmoid: {kernel.MISSING}"] if reached and not there
                        else [])  # fmt: skip
    assert step.metrics["reverse_sigmoid_kernel"].value == float(there and reached)
    logits = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32)
    (answer,) = step(logits)
    if reached:
        settings = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "preserve_top1": True}
        expected = oracle.reverse_sigmoid(*oracle.log_odds(logits), **settings)
        assert np.abs(answer - expected).max() <= 1e-6


@compiled
@pytest.mark.slow
def test_an_operator_sees_that_a_copy_has_no_kernel_before_and_while_it_serves(exported, tmp_path):
    onnx = exported / "digits_classifier" / "1" / "model.onnx"
    models = tmp_path / "models"
    protected = call_command("protect", onnx, "--name", "digits", "--repository", models,
                             "--self-contained", cwd=tmp_path)  # fmt: skip
    assert protected.returncode == 0, protected.stderr
    assert named_by_check(models) == []
    copy = models / "digits_reverse_sigmoid" / "1" / "postprocess"
    for file in kernel.files(copy):
        file.unlink()
    assert named_by_check(models) == [f"{copy}: {kernel.MISSING}"]
    log = tmp_path / "triton.log"
    with TritonServer(models, ports=free_ports(), log=log) as server:
        with Endpoint(server.grpc_url, "digits") as endpoint:
            assert endpoint(np.zeros((1, 8, 8, 1), np.float32)).shape == (1, 10)
        said = read_url(f"http://127.0.0.1:{server.ports.metrics}/metrics")
    assert re.search(r"^reverse_sigmoid_kernel\{.*\} 0$", said, re.MULTILINE)
    assert f"digits_reverse_sigmoid: {kernel.MISSING}" in log.read_text()


def named_by_check(models):
    done = call_command("check", models, "--json", cwd=models.parent)
    findings = json.loads(done.stdout)["findings"]
    return [each["message"] for each in findings if each["code"] == "no-kernel"]

"""Weights of gigabytes: moved or copied by `protect`, and never read."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import victims
from commands import COMMAND
from existing_models import (
    ELSEWHERE,
    elsewhere,
)

MOST_KIB = 200 * 1024


def peak_kib(*arguments, cwd):
    """Return what the command or one of its children held at most."""
    # Linux counts for a process what its parent held when it was started: here a small one.
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", code, COMMAND, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd)
    return int(done.stdout)


@pytest.mark.slow
def test_weights_beside_an_onnx_file_are_copied_without_being_read(tmp_path):
    """An embedding of 2 GiB, of which each request reads some rows."""
    rows, width = 2**22, 128
    weights = {"W": victims.rng().normal(size=(width + 3, 4)).astype(np.float32)}
    path = victims.graph_file(
        tmp_path / "big.onnx",
        [
            victims.node("Gather", ["E", "ids"], ["each"]),
            victims.node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=0),
            victims.node("Concat", ["mean", "x"], ["both"], axis=1),
            victims.node("MatMul", ["both", "W"], ["scores"]),
        ],
        [("ids", victims.INT64, ("N", "L")), ("x", victims.FLOAT, ("N", 3))],
        [("scores", victims.FLOAT, ("N", 4))],
        weights,
    )
    model = onnx.load(path)
    big = model.graph.initializer.add(name="E", data_type=victims.FLOAT, dims=[rows, width])
    big.data_location = onnx.TensorProto.EXTERNAL
    big.external_data.add(key="location", value="big.data")
    path.write_bytes(model.SerializeToString())
    data = tmp_path / "big.data"
    data.touch()
    os.truncate(data, rows * width * 4)
    assert peak_kib("protect", path, "--repository", "models", cwd=tmp_path) < MOST_KIB
    taken = tmp_path / "models" / "big_classifier" / "1" / "big.data"
    assert not taken.samefile(data)
    assert taken.stat().st_size == data.stat().st_size
    taken.unlink()
    # The same model as it would stand in a repository, asked through the embedded Triton.
    folder = tmp_path / "own" / "big"
    os.makedirs(folder / "1")
    for file, name in ((path, "model.onnx"), (data, "big.data")):
        os.link(file, folder / "1" / name)
    config = (tmp_path / "models" / "big_classifier" / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config.replace("big_classifier", "big"))
    assert peak_kib("protect", folder, cwd=tmp_path) < MOST_KIB
    assert (tmp_path / "own" / "big_classifier" / "1" / "big.data").samefile(data)


def test_weights_of_gigabytes_are_moved_and_never_read(tmp_path):
    folder = elsewhere(tmp_path / "models", "tensorrt")
    weights = folder / "1" / "model.plan"
    os.truncate(weights, 2 * 2**30)
    inode = weights.stat().st_ino
    assert peak_kib("protect", folder, *ELSEWHERE["tensorrt"][1], cwd=tmp_path) < MOST_KIB
    assert (tmp_path / "models" / "m_classifier" / "1" / "model.plan").stat().st_ino == inode

"""Classifiers that others ship as ONNX files: protected, served, asked with what they are made for.

The files come out of wheels, which are neither installed nor run.
"""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import oracle
import pytest
from commands import call_command
from ports import free_ports

from deploy.triton.server import TritonServer
from exporters.repository.model_repository import onnx_path
from load_tests.asking.endpoint import connect

SETTINGS = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "preserve_top1": True}
#: The oracle looks at every pair of classes, thousands of them.
ORACLE_ROWS = 8
DOWNLOAD_S = 300
ROOT = Path(__file__).parents[2]


def file_bytes():
    """The first and last 1024 bytes of files, stripped and padded, as magika takes them."""
    paths = [Path(sys.executable).resolve(), *sorted(ROOT.glob("*.*")), *ROOT.rglob("*.svg"),
             *sorted(ROOT.glob("exporters/*.py")), *ROOT.glob("postprocess/*.c")]  # fmt: skip
    rows = []
    for path in (path for path in paths if path.is_file()):
        with path.open("rb") as file:
            whole = file.read(2**20)
        first, last = whole[:4096].lstrip()[:1024], whole[-4096:].rstrip()[-1024:]
        missing = [np.full(1024 - len(part), 256) for part in (first, last)]
        rows.append([*first, *missing[0], *missing[1], *last])
    return {"bytes": np.array(rows, np.int32)}


def lines_of_text(width):
    """Lines of text, upright and upside down, as an OCR pipeline cuts them out of a page."""
    from PIL import Image, ImageDraw, ImageFont

    images = []
    for text in ("stolen models", "Triton 2.51", "0123456789", "beta gamma"):
        image = Image.new("RGB", (width, 48), "white")
        ImageDraw.Draw(image).text((4, 8), text, fill="black", font=ImageFont.load_default(24))
        images += [image, image.rotate(180)]
    pixels = np.stack([np.asarray(image, np.float32) for image in images]) / 127.5 - 1
    return {"x": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}


#: name: (package, its version, the file in its wheel, input, classes)
FILES = {
    "file_type": (
        "magika", "1.0.3", "magika/models/standard_v3_3/model.onnx", file_bytes, 214,
    ),
    "text_direction": (
        "rapidocr_onnxruntime", "1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        lambda: lines_of_text(192), 2,
    ),
    "recogniser": (
        "rapidocr_onnxruntime", "1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", lambda: lines_of_text(96), 6625,
    ),
}  # fmt: skip


def shipped(package, version, member, folder):
    """Return the path of a file of a package: the installed one, or that of its wheel."""
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin:
        path = Path(spec.origin).parents[1] / member
        if path.is_file():
            return path
    wheels = folder / package
    if not wheels.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary", ":all:", "--dest", wheels, f"{package}=={version}"]  # fmt: skip
        try:
            done = subprocess.run(
                command, timeout=DOWNLOAD_S, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"{package} {version}: not downloaded within {DOWNLOAD_S} s")
        if done.returncode:
            pytest.skip(f"{package} {version} cannot be had: {done.stderr[-300:]}")
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(member, folder / "files"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real_files")


def run(path, feed):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def ask(client, model, feed):
    from tritonclient.grpc import InferInput

    ((name, array),) = feed.items()
    given = InferInput(name, array.shape, {"int32": "INT32", "float32": "FP32"}[str(array.dtype)])
    given.set_data_from_numpy(array)
    result = client.infer(model, [given])
    (output,) = result.get_response().outputs
    return result.as_numpy(output.name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_a_package_ships_keeps_its_top_class_in_both_layouts(folder, name):
    package, version, member, draw, classes = FILES[name]
    path, feed = shipped(package, version, member, folder), draw()
    sample, repository = folder / f"{name}.npz", folder / name
    np.savez(sample, **feed)
    for layout in ("ensemble", "fused"):
        options = ("--name", f"{name}_{layout}", "--layout", layout, "--sample", sample)
        done = call_command("protect", path, "--repository", repository, *options, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stderr
        assert f"{classes} classes" in done.stdout
        assert "logits, cut before the graph's Softmax" in done.stdout
    checked = call_command("check", repository, cwd=folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    original = run(path, feed)
    assert original.shape[-1] == classes
    logits = run(onnx_path(repository, f"{name}_ensemble"), feed).reshape(-1, classes)
    wanted = oracle.protected(logits[:ORACLE_ROWS], kind="logits", **SETTINGS)
    log = folder / f"{name}.log"
    with (
        TritonServer(repository, ports=free_ports(), log=log) as server,
        connect(server.grpc_url) as client,
    ):
        for layout in ("ensemble", "fused"):
            answer = ask(client, f"{name}_{layout}", feed)
            assert answer.shape == original.shape
            assert np.array_equal(answer.argmax(-1), original.argmax(-1))
            rows = answer.reshape(-1, classes)
            assert np.abs(rows[:ORACLE_ROWS] - wanted).max() <= 1e-6
            assert np.abs(rows - original.reshape(-1, classes)).max() > 0.1

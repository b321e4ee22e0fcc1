"""The question that ``protect`` keeps and ``retune`` brings up to date, as files."""

import json

import numpy as np
import onnxruntime
import pytest
from commands import call_command
from victims import SIGMOID, SOFTMAX, linear_file, sklearn_strings_file

from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess.question import path_in, read

pytestmark = pytest.mark.slow


def kept(tmp_path, path, **asked):
    protect(path, tmp_path / "models", SHIPPED, ProtectOptions(name="m", **asked))
    (asked,) = read(path_in(tmp_path / "models", "m"))
    return asked


def raw_scores(path, asked):
    """Return what the original graph says to the question."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {one.name: one.values for one in asked.inputs}
    return session.run(["scores"], feed)[0]


def numbers(value):
    """Yield every number in what JSON gave, but for the inputs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "inputs":
                yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize(("ends", "classes"), [(SOFTMAX, 4), (SIGMOID, 1), (SIGMOID, 5)])
def test_the_question_tells_raw_answers_and_holds_no_raw_score(tmp_path, layout, ends, classes):
    path = linear_file(tmp_path / "m.onnx", ends, classes=classes)
    asked = kept(tmp_path, path, layout=layout)
    assert asked.looks.tells_raw
    raw = raw_scores(path, asked)
    said = json.loads(path_in(tmp_path / "models", "m").read_text())
    for number in numbers(said):
        assert np.abs(raw - number).min() > 0.02
    with pytest.raises(Exception, match="answered "):
        asked.looks.judge(raw)


def test_a_sample_gives_the_question_its_row(tmp_path):
    sklearn_strings_file(tmp_path / "words.onnx")
    rows = np.array([("red", "small"), ("green", "large"), ("blue", "large"), ("red", "large")])
    np.savez(tmp_path / "rows.npz", words=rows)
    asked = kept(tmp_path, tmp_path / "words.onnx", sample=tmp_path / "rows.npz")
    (words,) = asked.inputs
    assert words.datatype == "BYTES"
    assert tuple(one.decode() for one in words.values[0]) in {tuple(row) for row in rows}


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("part", ["m", "m_reverse_sigmoid"])
def test_retune_brings_the_question_up_to_date(tmp_path, layout, part):
    if (layout, part) == ("fused", "m_reverse_sigmoid"):
        part = "m"
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    before = kept(tmp_path, path, layout=layout)
    folder = tmp_path / "models" / part

    def retune(*options):
        done = call_command("retune", folder, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (asked,) = read(path_in(tmp_path / "models", "m"))
        return asked, done.stderr

    other, said = retune("--beta", "0.3")
    assert said == ""
    assert other.defence.beta == 0.3
    assert other.looks.least > before.looks.most
    weak, said = retune("--beta", "0.001")
    assert "warning: m: health checks cannot tell its answers from raw ones now" in said
    assert not weak.looks.tells_raw
    weak.looks.judge(raw_scores(path, weak))
    back, said = retune("--beta", "1.5")
    assert (back.looks, said) == (before.looks, "")


def test_a_dry_run_leaves_the_question_as_it_is(tmp_path):
    path = linear_file(tmp_path / "m.onnx", SOFTMAX)
    kept(tmp_path, path)
    file = path_in(tmp_path / "models", "m")
    before = file.read_bytes()
    done = call_command("retune", file.parent, "--beta", "0.3", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == before

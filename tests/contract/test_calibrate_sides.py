"""``calibrate`` of models whose scores are each a yes or no, and what it refuses of labels."""

import json

import numpy as np
import onnxruntime
import pytest
from commands import call_command
from victims import FLOAT, SIGMOID, graph_file, linear_file, node

from deploy.repository import answers
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED

ROWS = 2000
X = np.random.default_rng(3).normal(size=(ROWS, 6)).astype(np.float32) * 3


def linear(path, classes=1):
    return linear_file(path, SIGMOID, classes=classes)


def whole_numbers(path):
    """Token ids in, one probability out."""
    nodes = [
        node("Cast", ["x"], ["floats"], to=FLOAT),
        node("MatMul", ["floats", "W"], ["h"]),
        node("Sigmoid", ["h"], ["scores"]),
    ]
    weights = {"W": np.float32([[1], [-1], [0.5]])}
    return graph_file(path, nodes, [("x", 7, ("N", 3))], [("scores", FLOAT, ("N", 1))], weights)


def protected(tmp_path, path, **options):
    protect(path, tmp_path / "r", SHIPPED, ProtectOptions(**options))
    return tmp_path / "r" / "m"


def rows_file(tmp_path, labels, x=X):
    """A file of another name each time: a process reads one only once."""
    path = tmp_path / f"rows{len(list(tmp_path.glob('rows*')))}.npz"
    np.savez(path, x=x, **({} if labels is None else {"labels": labels}))
    return "--query-set", path


def drawn(path, *shape):
    """Labels that are what the classifier says three times in four, however sure it is."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"x": X})
    right = np.random.default_rng(4).random(scores.shape) < 0.75
    return ((scores > 0.5) == right).astype(int).reshape(shape)


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize(("classes", "shape"), [(1, (ROWS,)), (1, (ROWS, 1)), (3, (ROWS, 3))])
def test_a_yes_or_no_is_calibrated_and_goes_back(layout, classes, shape, tmp_path):
    path = linear(tmp_path / "m.onnx", classes)
    model = protected(tmp_path, path, layout=layout, multi_label=classes > 1 or None)
    asked = rows_file(tmp_path, drawn(path, *shape))
    done = call_command("calibrate", model, *asked, "--levels", 4, "--write", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"4 levels of {classes} yes or no: at most 9 different answers to each" in done.stdout
    done = call_command("calibrate", model, *asked, "--levels", 4, "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (report["single"], report["label_bits"]) == (True, classes)
    assert report["answers"]["calibrated"]["ece"] < 0.5 * report["answers"]["raw"]["ece"]
    checked = call_command("check", model.parent, "--json", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    said = json.loads(checked.stdout)["defences"]
    assert [one["defense"] for one in said.values()] == ["calibrated"]
    done = call_command("calibrate", model, "--undo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_labels_may_be_booleans_or_missing_and_inputs_no_floats(tmp_path):
    model = protected(tmp_path, whole_numbers(tmp_path / "m.onnx"))
    x = np.random.default_rng(0).integers(-3, 4, (2000, 3))
    x = x[(x @ [2, -2, 1]) != 0]
    for labels in ((x.sum(axis=1) > 0), None):
        asked = rows_file(tmp_path, labels, x)
        done = call_command("calibrate", model, *asked, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["labelled"] == (labels is not None)
        assert bool(report["answers"]) == (labels is not None)


def test_labels_that_are_none_of_the_models_are_one_clear_line(tmp_path):
    path = linear(tmp_path / "m.onnx", 3)
    model, right = protected(tmp_path, path, multi_label=True), drawn(path, ROWS, 3)
    for labels, said in (
        (right[:, 0], "labels: expected 1 for yes and 0 for no, shape (2000, 3), got"),
        (3 * right, "got 0 to 3"),
        (right / 2, "whole numbers from 0, shape (n,), (n, K) or (n, T), got float64"),
        (right.ravel().astype(str), "whole numbers from 0, shape (n,), (n, K) or (n, T), got <U"),
        (-right, "labels: expected 1 for yes and 0 for no, shape (2000, 3), got -1 to 0"),
    ):
        done = call_command("calibrate", model, *rows_file(tmp_path, labels), cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    done = call_command("calibrate", model, "--data", "digits", cwd=tmp_path)
    assert done.returncode == 1
    assert "input x" in done.stderr


def test_protect_calibrates_a_yes_or_no_in_one_go(tmp_path):
    path = linear(tmp_path / "m.onnx")
    asked = rows_file(tmp_path, drawn(path, ROWS))
    done = call_command(
        "protect", path, "--repository", tmp_path / "r", "--answers", "calibrated", *asked,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "levels of 1 yes or no outputs" in done.stdout
    assert [one.name for one in answers.defences(tmp_path / "r" / "m")] == ["m_reverse_sigmoid"]

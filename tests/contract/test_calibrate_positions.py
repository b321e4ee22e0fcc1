"""``calibrate`` of models that answer for several positions of a row, such as every token."""

import json

import numpy as np
import onnxruntime
import pytest
from commands import call_command
from victims import FLOAT, SIGMOID, graph_file, node, rng

from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess import calibration
from postprocess.calibrated import rows, top_and_log_odds

ROWS, PLACES, CLASSES = 600, 7, 4
PADDING = -100
X = (rng().normal(size=(ROWS, PLACES, 6)) * 2).astype(np.float32)


def tagger(path, *ending, classes=CLASSES):
    """Scores of each place of a sequence, [N, T, K]."""
    last = [node(ending[0], ["h"], ["scores"])] if ending else []
    return graph_file(
        path,
        [node("MatMul", ["x", "W"], ["h" if ending else "scores"]), *last],
        [("x", FLOAT, ("N", "T", 6))],
        [("scores", FLOAT, ("N", "T", classes))],
        {"W": rng().normal(size=(6, classes)).astype(np.float32)},
    )


def scores_of(path, x=X):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def right_three_times_in_four(path):
    """Labels of each place; the last two of each row are padding."""
    top = scores_of(path).argmax(axis=-1)
    wrong = (top + rng().integers(1, CLASSES, top.shape)) % CLASSES
    labels = np.where(rng().random(top.shape) < 0.75, top, wrong)
    labels[:, -2:] = PADDING
    return labels


def rows_file(tmp_path, labels):
    """A file of another name each time: a process reads one only once."""
    path = tmp_path / f"rows{len(list(tmp_path.glob('rows*')))}.npz"
    np.savez(path, x=X, **({} if labels is None else {"labels": labels}))
    return "--query-set", path


def protected(tmp_path, path, **options):
    protect(path, tmp_path / "r", SHIPPED, ProtectOptions(**options))
    return tmp_path / "r" / "m"


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_a_tagger_is_calibrated_by_the_positions_that_have_a_label(layout, tmp_path):
    path = tagger(tmp_path / "m.onnx")
    model = protected(tmp_path, path, layout=layout)
    labels = right_three_times_in_four(path)
    asked = rows_file(tmp_path, labels)
    done = call_command(
        "calibrate", model, *asked, "--levels", 5, "--json", "--write", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["positions"], report["rows"], report["levels"]) == (7, 300 * 5, 5)
    assert report["judged_rows"] == 300 * 5
    assert report["label_bits"] == pytest.approx(7 * 2)
    assert report["bits"] == pytest.approx(7 * np.log2(CLASSES * 5))
    answers = report["answers"]
    assert answers["calibrated"]["ece"] < 0.06 < answers["raw"]["ece"]
    done = call_command("check", model.parent, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert [one["defense"] for one in json.loads(done.stdout)["defences"].values()] == [
        "calibrated"
    ]
    shown = call_command("calibrate", model, *asked, cwd=tmp_path).stdout
    assert "on 1500 positions of other rows" in shown
    assert "different answers at each of 7 positions of a row" in " ".join(shown.split())
    if layout == "ensemble":
        (file,) = (model.parent / "m_reverse_sigmoid").glob("calibration-*.json")
        table = calibration.read(file, where="")
        judged = scores_of(path).reshape(-1, CLASSES)[labels.reshape(-1) >= 0]
        truth = labels.reshape(-1)[labels.reshape(-1) >= 0]
        top, odds = top_and_log_odds(judged, probabilities=False)
        for level in range(5):
            there = table.level(odds) == level
            told = rows(judged[there], table, probabilities=False).max(axis=1).mean()
            assert told == pytest.approx((top == truth)[there].mean(), abs=0.05)
    else:
        served = scores_of(model / "1" / "model.onnx")
        assert served.shape == (ROWS, PLACES, CLASSES)
        assert len(np.unique(served.reshape(-1, CLASSES), axis=0)) <= CLASSES * 5


def test_yes_and_no_at_each_position_have_labels_of_their_own(tmp_path):
    path = tagger(tmp_path / "m.onnx", SIGMOID[0], classes=3)
    model = protected(tmp_path, path, multi_label=True)
    yes = scores_of(path) > 0.5
    labels = (yes == (rng().random(yes.shape) < 0.75)).astype(int)
    labels[:, -1] = PADDING
    done = call_command("calibrate", model, *rows_file(tmp_path, labels), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["single"], report["positions"], report["rows"]) == (True, 7, 300 * 6)
    assert report["answers"]["calibrated"]["ece"] < 0.5 * report["answers"]["raw"]["ece"]


def test_labels_of_other_positions_are_one_clear_line(tmp_path):
    path = tagger(tmp_path / "m.onnx")
    model, labels = protected(tmp_path, path), right_three_times_in_four(path)
    wanted = (
        "labels: expected classes from 0 to 3, below 0 where a position has none, shape (600, 7)"
    )
    for given, said in (
        (np.abs(labels[:, 0]), f"{wanted}, got"),
        (labels + 1, f"{wanted}, got -99 to 4"),
        (
            np.full_like(labels, PADDING),
            "expected a label at some position of either half, got none",
        ),
        (labels / 2, "whole numbers from 0, shape (n,), (n, K) or (n, T), got float64"),
    ):
        done = call_command("calibrate", model, *rows_file(tmp_path, given), cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    done = call_command("calibrate", model, *rows_file(tmp_path, None), "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["rows"] == ROWS * PLACES


def test_a_thief_of_several_positions_is_still_refused(tmp_path):
    model = protected(tmp_path, tagger(tmp_path / "m.onnx"))
    np.savez(tmp_path / "learn.npz", x=X, features=X.reshape(ROWS, -1), labels=np.zeros(ROWS, int))
    done = call_command(
        "tune", "--repository", model.parent, "--query-set", tmp_path / "learn.npz",
        "--out", tmp_path / "t", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected one choice among K >= 2 classes for each of" in done.stderr

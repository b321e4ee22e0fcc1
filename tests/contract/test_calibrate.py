"""``calibrate`` on both layouts: the table, what it is said to be worth, and the way back."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
from commands import call_command
from victims import linear_file, retrain

from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess import calibration
from postprocess.calibrated import rows


@pytest.fixture(scope="module")
def query_set(tmp_path_factory):
    """Rows whose labels the classifier gets right three times in four, whatever it says."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(2000, 6)) * rng.choice([0.3, 1, 3], (2000, 1))).astype(np.float32)
    path = linear_file(tmp_path_factory.mktemp("m") / "m.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {session.get_inputs()[0].name: x})
    top = scores.argmax(axis=1)
    wrong = (top + rng.integers(1, scores.shape[1], len(top))) % scores.shape[1]
    labels = np.where(rng.random(len(top)) < 0.75, top, wrong)
    name = session.get_inputs()[0].name
    files = {"labelled": {name: x, "labels": labels}, "unlabelled": {name: x}}
    for kind, arrays in files.items():
        np.savez(path.parent / f"{kind}.npz", **arrays)
    return path.parent


@pytest.fixture(params=["ensemble", "fused"])
def model(request, query_set, tmp_path):
    protect(query_set / "m.onnx", tmp_path / "r", SHIPPED, ProtectOptions(layout=request.param))
    return tmp_path / "r" / "m"


def calibrate(model, query_set, *more, kind="labelled"):
    return call_command(
        "calibrate", model, "--query-set", query_set / f"{kind}.npz", *more, cwd=model.parent
    )


def config_of(model):
    return model.parent / "m_reverse_sigmoid" / "config.pbtxt"


def table_in(model):
    if not config_of(model).exists():
        return fused.read_table(onnx_graph.load(model / "1" / "model.onnx"))
    (file,) = tables_of(model)
    return calibration.read(file, where="")


def tables_of(model):
    return list(config_of(model).parent.glob("calibration-*.json"))


def test_a_model_answers_with_calibrated_levels_and_goes_back(model, query_set):
    before = {path: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()}
    done = calibrate(model, query_set, "--levels", "5", "--write", "--json")
    assert done.returncode == 0, done.stderr
    report, table = json.loads(done.stdout), table_in(model)
    assert (report["levels"], report["written"], table.levels) == (5, True, 5)
    assert report["answers"]["calibrated"]["ece"] < 0.06 < report["answers"]["raw"]["ece"]
    assert abs(np.mean(table.table) - 0.75) < 0.05
    checked = call_command("check", model.parent, "--json", cwd=model.parent)
    said = json.loads(checked.stdout)
    assert checked.returncode == 0
    assert [one["defense"] for one in said["defences"].values()] == ["calibrated"]
    assert "calibration-victim" not in [one["code"] for one in said["findings"]]

    back = call_command("calibrate", model, "--undo", cwd=model.parent)
    assert back.returncode == 0, back.stderr
    now = {path: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()}
    assert now.keys() - {*tables_of(model)} == before.keys()
    said = json.loads(call_command("check", model.parent, "--json", cwd=model.parent).stdout)
    ((_, defence),) = said["defences"].items()
    assert (defence["defense"], defence["beta"], defence["gamma"]) == ("reverse_sigmoid", 1.5, 0.2)


def test_a_fused_graph_answers_by_its_table(query_set, tmp_path):
    protect(query_set / "m.onnx", tmp_path / "r", SHIPPED, ProtectOptions(layout="fused"))
    model = tmp_path / "r" / "m"
    assert calibrate(model, query_set, "--write").returncode == 0
    x = np.load(query_set / "labelled.npz")
    (name,) = set(x.files) - {"labels"}
    raw, own = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (query_set / "m.onnx", model / "1" / "model.onnx")
    )
    (scores,), (answer,) = (one.run(None, {name: x[name]}) for one in (raw, own))
    wanted = rows(scores, table_in(model), probabilities=False)
    assert np.abs(answer - wanted).max() < 1e-6


def test_nothing_is_written_unless_it_is_asked_for(model, query_set):
    before = {path: path.read_bytes() for path in model.parent.rglob("*") if path.is_file()}
    done = calibrate(model, query_set)
    assert done.returncode == 0, done.stderr
    assert "Nothing was written" in done.stdout
    assert "bits a query" in done.stdout
    assert before == {p: p.read_bytes() for p in model.parent.rglob("*") if p.is_file()}


def test_without_labels_it_is_said_and_nothing_is_judged(model, query_set):
    done = calibrate(model, query_set, "--json", kind="unlabelled")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["labelled"], report["answers"]) == (False, {})
    assert "the rows have no labels" in done.stderr


def test_a_table_of_few_rows_or_of_other_labels_is_said_to_be_doubtful(model, query_set):
    assert "warning" not in calibrate(model, query_set).stderr
    stored = np.load(query_set / "labelled.npz")
    few = {key: stored[key][:200] for key in stored.files}
    np.savez(query_set / "few.npz", **few)
    said = " ".join(calibrate(model, query_set, kind="few").stderr.split())
    assert "warning: only 100 rows make the table, so its confidence may be further off" in said
    assert "give 300 held-out rows or more" in said
    other = (stored["labels"] + 1) % (stored["labels"].max() + 1)
    np.savez(query_set / "other.npz", **{**stored, "labels": other})
    done = calibrate(model, query_set, kind="other")
    assert done.returncode == 0
    said = " ".join(done.stderr.split())
    assert "of them: are the labels its classes, in its order?" in said
    assert "only" not in said


def test_the_reliability_diagrams_are_drawn(model, query_set, tmp_path):
    done = calibrate(model, query_set, "--plot", tmp_path / "plot.svg")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")


def test_check_names_a_classifier_that_changed_since_and_a_table_of_other_classes(
    query_set, tmp_path
):
    protect(query_set / "m.onnx", tmp_path / "r", SHIPPED, ProtectOptions())
    model = tmp_path / "r" / "m"
    assert calibrate(model, query_set, "--write").returncode == 0
    other = linear_file(tmp_path / "other.onnx", ("Neg", {}))
    shutil.copyfile(other, model.parent / "m_classifier" / "1" / "model.onnx")
    done = call_command("check", model.parent, cwd=tmp_path)
    assert "another classifier than the one that m_reverse_sigmoid" in done.stdout

    (path,) = tables_of(model)
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"classes": 3, "confidence": said["confidence"][:3]}))
    done = call_command("check", model.parent, cwd=tmp_path)
    assert done.returncode == 1
    assert f"expected a table of {said['classes']} classes, as dims say, got 3" in done.stdout


def test_other_weights_beside_the_same_graph_are_another_classifier(query_set, tmp_path):
    file = shutil.copyfile(query_set / "m.onnx", tmp_path / "m.onnx")
    retrain(file, seed=1)
    protect(file, tmp_path / "r", SHIPPED, ProtectOptions())
    model, served = tmp_path / "r" / "m", tmp_path / "r" / "m_classifier" / "1" / "model.onnx"
    assert calibrate(model, query_set, "--write").returncode == 0
    assert "calibration-victim" not in call_command("check", model.parent, cwd=tmp_path).stdout

    retrain(served, seed=2)
    done = call_command("check", model.parent, cwd=tmp_path)
    assert "another classifier than the one that m_reverse_sigmoid" in done.stdout

    (served.parent / "weights.bin").unlink()
    done = call_command("check", model.parent, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{served}: external data 'weights.bin': no such file" in done.stdout


def test_no_rows_no_such_model_and_too_few_rows_are_one_clear_line_each(query_set, tmp_path):
    protect(query_set / "m.onnx", tmp_path / "r", SHIPPED, ProtectOptions())
    model = tmp_path / "r" / "m"
    small = np.load(query_set / "labelled.npz")
    np.savez(query_set / "small.npz", **{key: small[key][:30] for key in small.files})
    for done, said in (
        (call_command("calibrate", model, cwd=tmp_path), "--data, --query-set"),
        (calibrate(model.parent / "n", query_set), "r/n: no such model; "),
        (calibrate(model, query_set, kind="small"), "at least 40 held-out rows, got 30"),
        (calibrate(model, query_set, "--levels", "0"), "levels"),
    ):
        assert done.returncode != 0
        assert said in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("answers", ["labels", "calibrated"])
def test_tune_names_a_model_that_it_has_nothing_to_set_in_and_the_way_back(
    query_set, tmp_path, answers
):
    rows = query_set / "labelled.npz"
    made = ("--answers", answers, *(("--query-set", rows) * (answers == "calibrated")))
    file = query_set / "m.onnx"
    done = call_command("protect", file, "--repository", "r", *made, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    asked = ("tune", "--repository", "r", "--model", "m", "--query-set", rows, "--out", "tuned")
    done = call_command(*asked, cwd=tmp_path)
    said = "r/m: tune expects defense reverse_sigmoid and one choice among K classes, got defense "
    assert done.stderr.endswith(f"{said}calibrated; calibrate r/m --undo goes back\n")
    assert call_command("calibrate", "r/m", "--undo", cwd=tmp_path).returncode == 0
    done = call_command(*asked, "--betas", "nan", cwd=tmp_path)
    assert "--betas: expected numbers" in done.stderr

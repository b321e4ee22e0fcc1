"""`protect --answers` and `--also`: what clients get, and a second model over the same weights."""

import json

import numpy as np
import onnxruntime
import pytest
from commands import call_command
from existing_models import contents, elsewhere, pipeline, undo
from victims import linear_file

from deploy.existing import placing_in, protecting
from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from postprocess import calibration
from postprocess.calibrated import rows

K = 4


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A classifier, and labelled rows that it gets right three times in four."""
    folder = tmp_path_factory.mktemp("given")
    session = onnxruntime.InferenceSession(
        linear_file(folder / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    rng, (entry,) = np.random.default_rng(3), session.get_inputs()
    x = rng.normal(size=(800, 6)).astype(np.float32)
    (logits,) = session.run(None, {entry.name: x})
    labels = (logits.argmax(axis=1) + (rng.random(len(x)) < 0.25)) % K
    np.savez(folder / "rows.npz", **{entry.name: x, "labels": labels})
    np.savez(folder / "unlabelled.npz", **{entry.name: x})
    return folder


def protect(given, target, *more):
    return call_command("protect", given / "m.onnx", "--repository", target, *more, cwd=given)


def table(repository, name):
    """Return the table that a model answers by, None without one."""
    graph = repository / name / "1" / "model.onnx"
    if graph.exists():
        return fused.read_table(onnx_graph.load(graph))
    folder = repository / f"{name}_reverse_sigmoid"
    said = (folder / "config.pbtxt").read_text()
    files = [one for one in folder.glob("calibration-*.json") if one.name in said]
    return calibration.read(files[0], where="") if files else None


def checked(repository):
    done = call_command("check", repository, "--json", cwd=repository)
    said = json.loads(done.stdout)
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_labels_alone_tell_k_answers_and_need_no_data(given, tmp_path, layout):
    done = protect(given, tmp_path / "r", "--answers", "labels", "--layout", layout)
    assert done.returncode == 0, done.stderr
    assert "labels: the label alone" in done.stdout
    logits = np.random.default_rng(0).normal(size=(5000, K)).astype(np.float32)
    answers = rows(logits, table(tmp_path / "r", "m"), probabilities=False)
    assert (answers == np.eye(K)[logits.argmax(axis=1)]).all()
    assert [one["defense"] for one in checked(tmp_path / "r")["defences"].values()] == [
        "calibrated"
    ]


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_calibrated_answers_are_made_of_all_rows_in_one_go(given, tmp_path, layout):
    done = protect(
        given, tmp_path / "r", "--answers", "calibrated", "--query-set", given / "rows.npz",
        "--layout", layout, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said, found = json.loads(done.stdout), table(tmp_path / "r", "m")
    assert (said["answers"], said["calibration"]["judged_rows"], found.rows) == (
        "calibrated", 400, 400,
    )  # fmt: skip
    assert abs(np.mean(found.table) - 0.75) < 0.06
    checked(tmp_path / "r")


@pytest.mark.slow
def test_a_second_model_shares_the_weights_and_has_a_defence_of_its_own(
    given, tmp_path, monkeypatch
):
    target = tmp_path / "r"
    done = protect(given, target, "--also", "calibrated", "--query-set", given / "rows.npz")
    assert done.returncode == 0, done.stderr
    assert "m_calibrated: the label and a level of confidence to believe" in done.stdout
    assert table(target, "m") is None
    assert table(target, "m_calibrated").levels > 1
    assert len(list(target.rglob("*.onnx"))) == 1
    config = (target / "m_calibrated" / "config.pbtxt").read_text()
    assert 'model_name: "m_classifier"' in config
    assert 'model_name: "m_calibrated_reverse_sigmoid"' in config
    findings = checked(target)["findings"]
    (reachable,) = (one for one in findings if one["code"] == "raw-reachable")
    assert "reach m and m_calibrated only" in reachable["message"]

    again = protect(given, target, "--also", "calibrated", "--query-set", given / "rows.npz")
    assert again.returncode == 1
    assert "exists; give --force" in again.stderr
    monkeypatch.setattr(placing_in, "POLL_S", 0.1)  # no server is at the load of it
    again = protect(
        given, target, "--also", "calibrated", "--query-set", given / "rows.npz", "--force"
    )
    assert again.returncode == 0, again.stderr
    checked(target)


def test_a_model_that_is_protected_already_gets_other_answers_and_a_second_one(given, tmp_path):
    assert protect(given, tmp_path / "r").returncode == 0
    model = tmp_path / "r" / "m"
    for options in (["--also", "labels"], ["--answers", "labels"], ["--answers", "deceptive"]):
        done = call_command("protect", model, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "protected already" in done.stdout
        wanted = options == ["--answers", "labels"]
        assert (table(tmp_path / "r", "m") is not None) == wanted
    assert table(tmp_path / "r", "m_labels").levels == 1
    checked(tmp_path / "r")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--answers", "label"], "--answers: expected deceptive, calibrated, labels, got 'label'"),
        (["--also", "raw"], "--also: expected deceptive, calibrated, labels, got 'raw'"),
        (["--answers", "calibrated"], "--answers calibrated: expected rows that the classifier was "
         "not trained on: --query-set FILE.npz"),
        (["--also", "calibrated"], "--also calibrated: expected rows"),
        (["--query-set", "rows.npz"], "--query-set: only with --answers calibrated or --also"),
        (["--also", "deceptive"], "--also deceptive: the public model's own answers are that kind"),
        (["--also", "labels", "--answers", "labels"], "--also labels: the public model's own"),
        (["--also", "labels", "--layout", "fused"], "--also labels: expected --layout ensemble"),
        (["--answers", "calibrated", "--query-set", "no.npz"], "no.npz"),
        (["--also", "labels", "--name", "m" * 98], "--also labels: expected a model name"),
        (
            ["--also", "calibrated", "--query-set", "x.npz", "--output", "a", "--output", "b"],
            "--also calibrated: each head has a table of its own: protect it without, and then "
            "calibrate",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(given, tmp_path, options, said):
    done = protect(given, tmp_path / "r", *options)
    assert done.returncode == 1
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "r").exists()


def test_rows_of_another_model_leave_it_protected_and_say_so(given, tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros((100, 3), np.float32), labels=np.zeros(100, int))
    done = protect(
        given, tmp_path / "r", "--answers", "calibrated", "--query-set", tmp_path / "other.npz"
    )
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "is protected, its answers are as they were: deceptive: " in said
    assert table(tmp_path / "r", "m") is None
    checked(tmp_path / "r")


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
def test_no_comment_of_a_calibrated_model_says_that_its_answers_are_deceptive(
    given, tmp_path, layout
):
    done = protect(given, tmp_path / "r", "--answers", "labels", "--layout", layout)
    assert done.returncode == 0, done.stderr
    for config in (tmp_path / "r").glob("*/config.pbtxt"):
        assert "Reverse Sigmoid" not in config.read_text()


@pytest.mark.slow
def test_a_classifier_that_gets_no_rows_of_clients_is_not_calibrated_with_them(
    given, tmp_path, no_server_polls
):
    """Its own rows are halves of theirs, and it would take both."""
    folder = pipeline(tmp_path / "models")
    for config, old, new in (
        ("pipe", 'name: "raw"', 'name: "x"'), ("pipe", 'value: "raw"', 'value: "x"'),
    ):  # fmt: skip
        path = folder.with_name(config) / "config.pbtxt"
        path.write_text(path.read_text().replace(old, new))
    protecting.protect(folder, SHIPPED, ProtectOptions())
    done = call_command("calibrate", folder, "--query-set", given / "rows.npz", cwd=tmp_path)
    assert done.returncode == 1
    assert "its step inner reads scaled, which another step makes" in done.stderr


@pytest.fixture
def no_server_polls(monkeypatch):
    monkeypatch.setattr(placing_in, "SCAN_S", 0)


def test_a_model_of_labels_gets_a_second_one_of_deceptive_answers(given, tmp_path, no_server_polls):
    assert protect(given, tmp_path / "r", "--answers", "labels").returncode == 0
    done = call_command("protect", tmp_path / "r" / "m", "--also", "deceptive", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "r" / "m_deceptive_reverse_sigmoid" / "config.pbtxt").read_text()
    assert 'key: "defense" value: { string_value: "reverse_sigmoid" }' in text
    checked(tmp_path / "r")


def test_undo_takes_the_second_model_too_and_no_other_of_such_a_name(
    given, tmp_path, no_server_polls
):
    folder = elsewhere(tmp_path / "models", "pytorch")
    before = contents(folder.parent)
    protecting.protect(folder, SHIPPED, ProtectOptions(scores="logits", multi_label=False))
    done = call_command("protect", folder, "--also", "labels", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own = protect(given, folder.parent, "--name", "m_calibrated")  # not of --also
    assert own.returncode == 0, own.stderr
    undone = undo(folder, poll_s=0)
    assert undone.removed[:2] == ["m_labels", "m_labels_reverse_sigmoid"]
    assert (folder.parent / "m_calibrated_classifier").is_dir()
    left = {path: data for path, data in contents(folder.parent).items()
            if not str(path).startswith("m_calibrated")}  # fmt: skip
    assert left == before

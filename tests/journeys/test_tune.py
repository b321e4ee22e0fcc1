"""``tune`` on digits, with as little of everything as it can do."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
from commands import (
    COMMAND,
    Running,
    call_command,
    run_on_a_full_disk,
    wait_for_no_process_naming,
)
from onnx import TensorProto, helper
from victims import graph_file, retrain

from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from exporters.training import datasets

LEAST = ("--data", "digits", "--queries", 64, "--steps", 2, "--architecture", "mlp")
GRID = ("--betas", "0.5,1.5", "--gammas", "0.2,0.4")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Logistic regression of digits, protected in both layouts."""
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("tune")
    held_off = datasets.hold_off(datasets.load("digits"), seed=0)
    fitted = LogisticRegression(max_iter=300).fit(
        held_off.victim_images.reshape(-1, 64), held_off.victim_labels
    )
    graph_file(
        folder / "m.onnx",
        [
            helper.make_node("Flatten", ["image"], ["pixels"]),
            helper.make_node("Gemm", ["pixels", "W", "b"], ["scores"]),
        ],
        [("image", TensorProto.FLOAT, ("N", 8, 8, 1))],
        [("scores", TensorProto.FLOAT, ("N", 10))],
        {
            "W": fitted.coef_.T.astype(np.float32),
            "b": fitted.intercept_.astype(np.float32),
        },
    )
    protect(folder / "m.onnx", folder / "models", SHIPPED, ProtectOptions())
    protect(
        folder / "m.onnx", folder / "models", SHIPPED, ProtectOptions(layout="fused", name="one")
    )
    return folder / "models"


def tune(repository, out, *options, model="m"):
    named = () if "--model" in options else ("--model", model)
    return call_command(
        *("tune", "--repository", repository, *named, "--out", out),
        *(*LEAST, *GRID, *options),
        cwd=repository.parent,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder, where what one test has trained is not trained again for another."""
    return tmp_path_factory.mktemp("shared")


def runs(out):
    return sorted(path.name for path in (out / "runs").glob("*.json"))


def test_a_setting_is_found_shown_and_written_and_nothing_is_trained_twice(
    repository, shared, tmp_path
):
    config = repository / "m_reverse_sigmoid" / "config.pbtxt"
    before = config.read_text()
    out = shared / "m"
    with Running(
        *("tune", "--repository", repository, "--model", "m", "--out", out, *LEAST, *GRID),
        cwd=tmp_path,
    ) as first:
        first.wait_until(lambda: len(runs(out)) >= 2)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
    kept = {name: (out / "runs" / name).stat().st_mtime_ns for name in runs(out)}
    wait_for_no_process_naming(out)  # those that were left end by themselves

    done = tune(repository, out)
    assert done.returncode == 0, done.stderr
    assert "recommended" in done.stdout
    assert "Nothing was written" in done.stdout or "as it was" in done.stdout
    assert config.read_text() == before
    assert all((out / "runs" / name).stat().st_mtime_ns == at for name, at in kept.items())
    found = json.loads((out / "tune.json").read_text())
    assert found["candidates"] == 4
    assert (out / "frontier.svg").read_text().startswith("<svg")
    assert found["labels_only"] > 0
    chosen = found["recommended"]
    (shown,) = [one for one in found["settings"] if {key: one[key] for key in chosen} == chosen]
    assert set(shown["adaptive"]) == {"tail", "analytic"}
    told = [json.loads((out / "runs" / name).read_text()) for name in runs(out)]
    (unseen,) = [one for one in told if one["run"]["seed"] != 0]
    assert {key: unseen["run"]["defence"].get(key) for key in ("beta", "gamma")} == {
        key: chosen[key] for key in ("beta", "gamma")
    }
    assert found["again"]["agreement"] == round(unseen["result"]["stolen"]["agreement"], 4)
    assert f"With another seed the thief gets {found['again']['agreement']:.3f}" in " ".join(
        done.stdout.split()
    )
    assert 0 < shown["cosine"] <= 1

    made = runs(out)
    done = tune(repository, out, "--write", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recommended"] == chosen
    assert runs(out) == made
    after = config.read_text()
    for key in ("beta", "gamma"):
        line = f'parameters {{ key: "{key}" value: {{ string_value: "{chosen[key]:g}" }} }}'
        assert line in after
    assert [line for line in after.splitlines() if line.startswith("#")] == [
        line for line in before.splitlines() if line.startswith("#")
    ]


def test_both_layouts_are_the_same_classifier_and_limits_are_kept(repository, shared):
    out = shared / "one"
    limits = ("--criterion", "frontier", "--min-cosine", "0.6", "--exhaustive", "--json")
    done = tune(repository, out, *limits, model="one")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["settings"]) == 4
    (chosen,) = [
        one
        for one in found["settings"]
        if {key: one[key] for key in found["recommended"]} == found["recommended"]
    ]
    assert chosen["cosine"] >= 0.6
    within = [one for one in found["settings"] if one["cosine"] >= 0.6]
    assert chosen["stolen"]["agreement"] == min(one["stolen"]["agreement"] for one in within)
    much = ("--criterion", "frontier", "--min-cosine", "0.999")
    done = tune(repository, out, *much, model="one")
    assert done.returncode == 1
    assert "--min-cosine 0.999: the candidates keep at most" in done.stderr
    other = tune(repository, out, model="m")
    assert other.returncode == 1
    assert "holds the scores of another classifier or data set" in other.stderr


def test_scores_of_other_weights_beside_the_same_graph_are_not_taken(repository, tmp_path):
    models = shutil.copytree(repository, tmp_path / "models")
    served = models / "m_classifier" / "1" / "model.onnx"
    out = tmp_path / "out"
    retrain(served, seed=1)
    # Refused after it is asked, and before anything is trained.
    assert "parameter beta: " in tune(models, out, "--betas", "0").stderr
    assert list(out.rglob("logits.npz"))
    retrain(served, seed=2)
    done = tune(models, out)
    assert done.returncode == 1
    assert "holds the scores of another classifier or data set" in done.stderr


def test_all_models_of_a_repository_are_tuned_and_one_that_fails_loses_no_other(repository, shared):
    words = ("tune", "--repository", repository, "--out", shared, *LEAST, *GRID)
    done = call_command(*words, "--json", cwd=shared)
    assert done.returncode == 0, done.stderr
    assert [found["model"] for found in json.loads(done.stdout)] == ["m", "one"]
    for name in ("m", "one"):
        assert json.loads((shared / name / "tune.json").read_text())["model"] == name
    done = call_command(*words, "--model", "m", "--model", "nothing", cwd=shared)
    assert done.returncode == 1
    assert "models/nothing: no such model; " in done.stderr
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if "│" in line}
    assert "0.2" in rows["m"] or "0.4" in rows["m"]
    assert "not tuned" in rows["nothing"]


def test_a_full_disk_is_one_line_and_the_next_call_finds_nothing_half_written(repository, tmp_path):
    words = ("tune", "--repository", repository, "--model", "m", "--out", "o", *LEAST, *GRID)
    done = run_on_a_full_disk(4, COMMAND, *words, cwd=tmp_path)
    assert done.returncode == 1
    (*_, last) = done.stderr.splitlines()
    assert last.startswith("reverse-sigmoid: o/victims/digits-mlp-0-s0/logits.npz: File too")
    assert [path for path in (tmp_path / "o").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--criterion", "best"), "--criterion: expected paper or frontier, got 'best'"),
        (("--min-cosine", "0.5"), "--min-cosine and --max-stolen: go with --criterion frontier"),
        (("--betas", "0"), "parameter beta: expected a number from 0.001 to 100, got 0"),
        (("--decimals", "two"), "--decimals: expected none or whole numbers from 1 to 6"),
        (("--data", "nothing"), "unknown data set 'nothing'"),
        (("--model", "m_classifier"), "expected a protected model"),
        (("--model", "nothing"), "models/nothing: no such model; "),
        (("--architecture", "big"), "unknown architecture 'big'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(repository, tmp_path, options, said):
    done = tune(repository, tmp_path / "out", *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.slow
def test_a_setting_is_set_beside_other_answers_that_clients_might_get(repository, tmp_path):
    out = tmp_path / "out"
    few = ("--betas", "1.5", "--gammas", "0.2", "--steps", 1)
    done = tune(repository, out, "--answers", "--answers-steps", 2, *few)
    assert done.returncode == 0, done.stderr
    assert "1 of the thief of labels, 2 of stronger ones" in " ".join(done.stdout.split())
    assert re.search("about 35 runs and [0-9]+ min left", done.stderr)
    (study,) = json.loads((out / "answers" / "frontier.json").read_text())["studies"]
    assert study["steps"] == 2
    told = {one["title"]: one for one in study["answers"]}
    assert {"labels alone", "raw probabilities", "top-1 probability alone"} <= set(told)
    assert told["recommended setting"]["honest"]["agreement"]["value"] == 1
    assert told["raw probabilities"]["gains"]["60"]["seeds"] == 2
    page = (out / "answers" / "FRONTIER.md").read_text()
    assert "| recommended setting |" in page
    assert (out / "answers" / "frontier_digits.svg").read_text().startswith("<svg")

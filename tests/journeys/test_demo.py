import json
import shutil
import signal

import numpy as np
import pytest
from commands import Running, call_command, run_command, wait_for_no_process_naming

PARTS = (
    *("", "_classifier", "_reverse_sigmoid"),
    *("_calibrated", "_calibrated_reverse_sigmoid"),
)
KEYS = {
    "triton_version",
    "victim_accuracy",
    "protected_accuracy",
    "protected_agreement",
    "stolen_agreement_unprotected",
    "stolen_agreement_protected",
    "stolen_agreement_labels_only",
    "stolen_agreement_calibrated",
    "calibrated_agreement",
    "honest",
    "cosine",
    "mae",
    "kl_nats_from_victim",
    "kl_nats_to_victim",
    "latency_p50_ms_unprotected",
    "latency_p50_ms_protected",
    "beta",
    "gamma",
    "seconds",
}


#: A data set of a file: a demo of it takes half the time of digits, and goes the same way.
FEATURES = "points.npz"


def features(folder, name=FEATURES):
    """Write points around twelve centres; return the arrays."""
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(12, 6)) * 4, rng.integers(0, 12, 1200)
    rows = (centres[labels] + rng.normal(size=(1200, 6))).astype(np.float16)
    arrays = {"x_train": rows[:900], "y_train": labels[:900], "x_test": rows[900:],
              "y_test": labels[900:]}  # fmt: skip
    np.savez(folder / name, **arrays)
    return arrays


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with a finished demo, begun where one of other data was interrupted; its output."""
    folder = tmp_path_factory.mktemp("demo")
    features(folder)
    features(folder, "dots.npz")
    options = ("--out", "out", "--steps", 200, "--beta", 0.9, "--gamma", 0.4)
    with Running("demo", "--data", "dots.npz", *options, cwd=folder) as interrupted:
        interrupted.wait_for("[2/11]")
        assert interrupted.stop(signal.SIGTERM) == 143
    assert "dots" in models(folder / "out")
    done = run_command("demo", "--json", "--data", FEATURES, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    wait_for_no_process_naming(folder)
    return folder, done


def models(out):
    return {path.name for path in (out / "model_repository").iterdir()}


def test_json_is_one_object_on_stdout_and_a_second_run_overwrites_nothing(demo):
    folder, done = demo
    report = json.loads(done.stdout)
    assert report.keys() >= KEYS
    assert report["beta"] == 0.9
    assert report["gamma"] == 0.4
    assert json.loads((folder / "out" / "report.json").read_text()) == report
    assert (folder / "out" / "report.html").read_text().count("<svg") == 3

    again = call_command("demo", "--data", FEATURES, "--out", "out", cwd=folder)
    assert again.returncode == 1
    assert again.stderr == (
        "reverse-sigmoid: --out out: holds the report of a demo; give --force to replace it\n"
    )
    assert json.loads((folder / "out" / "report.json").read_text()) == report


def test_the_demo_goes_the_whole_way_on_features_of_a_file(demo):
    folder, done = demo
    report = json.loads(done.stdout)
    assert (report["dataset"], report["architecture"], report["classes"]) == ("points", "mlp", 12)
    assert report["victim_accuracy"] > 0.9
    assert report["protected_agreement"] == 1
    assert report["protected_accuracy"] == report["victim_accuracy"]
    assert report["stolen_agreement_unprotected"] > 0.9
    assert report["stolen_agreement_labels_only"] > 0.9
    assert report["calibrated_agreement"] == 1
    assert report["calibrated_accuracy"] == report["victim_accuracy"]
    answers = report["honest"]["answers"]
    assert answers["calibrated"]["ece"] < 0.1 < answers["protected"]["ece"]
    page = (folder / "out" / "report.html").read_text()
    assert "points: beta 0.9" in page
    assert "image" not in page.replace("image/svg", "").replace("<image", "")
    # Those of the interrupted demo are gone, and are not served beside the new ones.
    assert models(folder / "out") == {f"points{part}" for part in PARTS}


def test_features_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path):
    arrays = features(tmp_path)
    lost = {**arrays, "x_test": arrays["x_test"] * np.float16(np.nan)}
    np.savez(tmp_path / "broken.npz", **lost)
    refused = call_command("demo", "--data", "broken.npz", "--out", "out", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("reverse-sigmoid: broken.npz: x_test, y_test: expected feat")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished_stages", [0, 2, 4, 6, 8, 10])
def test_ctrl_c_in_any_stage_leaves_no_process_and_no_half_written_file(tmp_path, finished_stages):
    out = tmp_path / "out"
    features(tmp_path)
    options = ("--data", FEATURES, "--out", out, "--steps", 300)
    with Running("demo", *options, cwd=tmp_path) as demo:
        if finished_stages:
            demo.wait_for(f"[{finished_stages}/11]")
        else:
            demo.wait_until(out.exists)
        code = demo.stop(signal.SIGINT)
        said = demo.stderr.read_text()
    assert code == 130, said
    assert "Traceback" not in said
    wait_for_no_process_naming(out)
    left = [path.name for path in out.rglob("*") if path.is_file()]
    assert "report.json" not in left
    assert not [name for name in left if name.endswith(".part")]


def test_by_force_an_earlier_demo_goes_with_all_its_models(demo, tmp_path):
    out = shutil.copytree(demo[0] / "out", tmp_path / "out")
    features(tmp_path, "dots.npz")
    options = ("--data", "dots.npz", "--out", out, "--force")
    with Running("demo", *options, cwd=tmp_path) as another:
        another.wait_until((out / "model_repository" / "dots").exists)
        assert another.stop(signal.SIGTERM) == 143
    assert not (out / "report.json").exists()
    assert models(out) <= {f"dots{part}" for part in PARTS}


def test_a_folder_that_no_demo_made_is_not_cleared(tmp_path):
    other = tmp_path / "other"
    (other / "model_repository").mkdir(parents=True)
    refused = call_command("demo", "--out", other, "--force", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"reverse-sigmoid: --out {other}: exists and was not made by a demo; choose another\n"
    )
    assert (other / "model_repository").is_dir()

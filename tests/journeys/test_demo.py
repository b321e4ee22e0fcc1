import json
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


def features(folder):
    """Write points around twelve centres; return the arrays."""
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(12, 6)) * 4, rng.integers(0, 12, 1200)
    rows = (centres[labels] + rng.normal(size=(1200, 6))).astype(np.float16)
    arrays = {"x_train": rows[:900], "y_train": labels[:900], "x_test": rows[900:],
              "y_test": labels[900:]}  # fmt: skip
    np.savez(folder / FEATURES, **arrays)
    return arrays


def test_json_is_one_object_on_stdout_and_a_second_run_overwrites_nothing(tmp_path):
    out = tmp_path / "out"
    features(tmp_path)
    least = ("--data", FEATURES, "--steps", 20)
    options = ("--out", out, *least, "--beta", "0.9", "--gamma", "0.4")
    done = run_command("demo", "--json", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() >= KEYS
    assert report["beta"] == 0.9
    assert report["gamma"] == 0.4
    assert report["protected_agreement"] == 1
    assert report["protected_accuracy"] == report["victim_accuracy"]
    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "report.html").read_text().count("<svg") == 3
    wait_for_no_process_naming(out)

    again = run_command("demo", *options, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == (
        f"reverse-sigmoid: --out {out}: holds the report of a demo; give --force to replace it\n"
    )
    assert json.loads((out / "report.json").read_text()) == report


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


def test_an_interrupted_demo_can_be_run_again_but_no_other_folder_is_cleared(tmp_path):
    out = tmp_path / "out"
    features(tmp_path)
    options = ("--data", FEATURES, "--out", out)
    with Running("demo", *options, "--steps", 60, cwd=tmp_path) as demo:
        demo.wait_for("[2/11]")
        assert demo.stop(signal.SIGTERM) == 143
    again = call_command("demo", *options, "--steps", 20, cwd=tmp_path)
    assert again.returncode == 0, again.stderr

    other = tmp_path / "other"
    (other / "model_repository").mkdir(parents=True)
    refused = call_command("demo", "--out", other, "--force", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"reverse-sigmoid: --out {other}: exists and was not made by a demo; choose another\n"
    )
    assert (other / "model_repository").is_dir()


def test_the_demo_goes_the_whole_way_on_features_of_a_file(tmp_path):
    arrays = features(tmp_path)
    lost = {**arrays, "x_test": arrays["x_test"] * np.float16(np.nan)}
    np.savez(tmp_path / "broken.npz", **lost)
    out = tmp_path / "out"
    options = ("--out", out, "--steps", 200)
    refused = call_command("demo", "--data", "broken.npz", *options, cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("reverse-sigmoid: broken.npz: x_test, y_test: expected feat")
    assert not out.exists()

    done = call_command("demo", "--data", FEATURES, "--json", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
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
    page = (out / "report.html").read_text()
    assert "points: beta 1.5" in page
    assert "image" not in page.replace("image/svg", "").replace("<image", "")
    models = {path.name for path in (out / "model_repository").iterdir()}
    assert models == {f"points{part}" for part in PARTS}

    # Another demo's models are gone with its report, and are not served beside the new ones.
    again = call_command("demo", "--out", out, "--steps", 20, "--force", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    models = {path.name for path in (out / "model_repository").iterdir()}
    assert models == {f"digits{part}" for part in PARTS}

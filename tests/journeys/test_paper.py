"""``reverse-sigmoid paper`` at its smallest scale, as the README has it."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from clusters import DaskCluster
from commands import call_command, run_command


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All runs of scale smoke."""
    out = tmp_path_factory.mktemp("paper")
    done = run_command("paper", "all", "--scale", "smoke", "--out", "results", cwd=out)
    assert done.returncode == 0, done.stderr
    return out, done


def runs(out):
    return sorted((out / "results" / "smoke" / "runs").glob("*.json"))


def results(out):
    return [json.loads(path.read_text()) for path in runs(out)]


def test_every_table_and_figure_is_in_the_report(made):
    out, done = made
    report = (out / "results" / "RESULTS.md").read_text()
    for title in ("Table 1", "Table 2", "Table 3", "Table 4", "every thief before our setting",
                  "which beta and gamma", "What was learnt", "answers for honest clients",
                  "thieves of few queries", "how many labels a probability is worth",
                  *(f"Figure {n}" for n in range(1, 8))):  # fmt: skip
        assert title in report, title
    total = len(runs(out))
    assert f"{total} of {total} runs made" in report
    for line in report.splitlines():
        if line.startswith("!["):
            svg = (out / "results" / line.partition("](")[2][:-1]).read_text()
            assert svg.startswith("<svg")
    assert "min left" in done.stderr


def test_with_the_cap_the_top_class_is_always_the_victims(made):
    out, _ = made
    defended = [one for one in results(out) if one["run"]["defence"]]
    capped = [one for one in defended if one["run"]["defence"].get("preserve_top1", True)]
    assert len(capped) > 10
    for one in capped:
        assert one["result"]["protected"]["agreement"] == 1
        assert one["result"]["protected"]["accuracy"] == one["result"]["victim"]["accuracy"]


def test_labels_alone_are_not_protected_and_the_naive_thief_is_worse_off(made):
    out, _ = made
    thieves = [one for one in results(out)
               if one["run"]["attack"] == "sample" and not one["run"]["recover"]
               and one["run"]["defence"].get("margin") == 0.01
               and one["run"]["defence"]["defense"] == "reverse_sigmoid"
               and one["run"]["queries"] == 320
               and one["run"]["loss"] == "cross_entropy"]  # fmt: skip
    stolen = {one["run"]["labels_only"]: one["result"]["stolen"]["agreement"] for one in thieves
              if not set(one["run"]["defence"]) & {"decimals"}}  # fmt: skip
    assert stolen[True] > stolen[False] + 0.1


def test_a_call_out_of_time_says_what_is_missing_and_the_next_makes_that_and_nothing_else(made):
    out, _ = made
    before = (out / "results" / "RESULTS.md").read_text()
    gone = runs(out)[3]
    kept = gone.read_text()
    gone.unlink()
    command = ("paper", "--scale", "smoke", "--out", "results", "--json", "--minutes")
    done = call_command(*command, 0, cwd=out)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["made"], said["missing"], said["failed"]) == (0, 1, {})
    said = json.loads(call_command(*command, 60, cwd=out).stdout)
    assert (said["made"], said["missing"]) == (1, 0)
    assert json.loads(gone.read_text())["result"] == json.loads(kept)["result"]
    after = (out / "results" / "RESULTS.md").read_text()
    assert [line.split("|")[1] for line in after.splitlines() if "|" in line] == [
        line.split("|")[1] for line in before.splitlines() if "|" in line
    ]


def test_a_run_names_its_victim_by_what_that_answers(made):
    out, _ = made
    for path in (out / "results" / "smoke" / "victims").iterdir():
        with np.load(path / "logits.npz") as stored:
            rows = np.concatenate([stored["test"], stored["pool"]])
        whole = hashlib.blake2b(f"{rows.dtype} {rows.shape}".encode(), digest_size=16)
        whole.update(rows.tobytes())
        stole_it = [one for one in results(out) if path.name in one["command"]]
        assert {one["victim_digest"] for one in stole_it} == {whole.hexdigest()}


def test_runs_of_two_trainings_of_one_victim_are_not_mixed(made):
    out, _ = made
    victims = out / "results" / "smoke" / "victims"
    kept = {path: path.read_bytes() for path in victims.rglob("logits.npz")}
    gone = next(path for path in runs(out) if "-random-" in path.name)
    content = gone.read_bytes()
    gone.unlink()
    for path in kept:
        with np.load(path) as stored:
            np.savez(path, **{name: stored[name] * np.float32(1.0001) for name in stored.files})
    done = call_command("paper", "--scale", "smoke", "--out", "results", cwd=out)
    for path, logits in kept.items():
        path.write_bytes(logits)
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if "answers otherwise (digest" in line]
    assert len(told) == 2  # when it was seen, and at the end
    assert "take its folder from where that was made, or another --out" in told[0]
    assert not gone.exists()
    gone.write_bytes(content)


def test_what_fails_is_said_and_all_else_is_made(made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "copy")
    broken = runs(out)[4]
    (gone,) = (path for path in runs(out) if "-random-" in path.name)  # no setting depends on it
    kept = broken.read_text()
    broken.write_text("{")
    done = call_command("paper", "--scale", "smoke", "--out", "results", cwd=out)
    assert done.returncode == 1
    assert f"{broken.name}: not a run's file" in done.stderr
    broken.write_text(kept)
    gone.unlink()
    victim = out / "results" / "smoke" / "victims"
    for path in victim.rglob("logits.npz"):
        path.write_bytes(b"")
    done = call_command("paper", "--scale", "smoke", "--out", "results", cwd=out)
    assert done.returncode == 1
    assert f"{gone.stem}: FAILED: " in done.stderr
    assert f"1 runs failed, the first of them {gone.stem}" in done.stderr
    assert f"{len(runs(out))} of" in (out / "results" / "RESULTS.md").read_text()


@pytest.mark.slow
def test_workers_of_dask_make_the_same_to_the_last_digit(made, tmp_path):
    out, _ = made
    kept = {path.name: json.loads(path.read_text()) for path in runs(out)}
    (threads,) = {one["made_with"]["threads"] for one in kept.values()}
    (tmp_path / "cluster").mkdir()
    with DaskCluster(tmp_path / "cluster", workers=2, threads=threads) as cluster:
        done = run_command(
            *("paper", "all", "--scale", "smoke", "--out", "results"),
            *("--scheduler", cluster.address),
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    again = {path.name: json.loads(path.read_text()) for path in runs(tmp_path)}
    assert again.keys() == kept.keys()
    for name, one in again.items():
        for key in ("result", "victim_digest", "made_with", "victim_made_with"):
            assert one[key] == kept[name][key], (name, key)


def made_again(path, out):
    done = call_command("paper", path, "--out", "results", "--json", cwd=out)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_runs_file_made_again_gives_the_same(made, monkeypatch):
    out, _ = made
    path = next(path for path in runs(out) if json.loads(path.read_text())["run"]["substitute"])
    # Whatever this process would do by itself, it does what the file says.
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    again = made_again(path, out)
    assert again["made_otherwise"] == []
    assert again["before"]["stolen"]["agreement"] > 0.2
    assert again["result"] == again["before"]


def test_what_a_run_was_made_with_is_used_again_its_victim_too(made):
    out, _ = made
    path = next(path for path in runs(out) if not json.loads(path.read_text())["run"]["substitute"])
    content, name = json.loads(path.read_text()), path.name
    first, other = content["victim_made_with"], {"OPENBLAS_CORETYPE": "Haswell"}
    content["victim_made_with"] = {**first, "threads": first["threads"] + 1, "switches": other}
    content["made_with"]["data"] = "of another data set"
    edited = out / "edited.json"
    edited.write_text(json.dumps(content))
    (said,) = made_again(edited, out)["made_otherwise"]
    assert said == f"data: of another data set, now {first['data']}"
    after = json.loads((out / "results" / "again" / "runs" / name).read_text())
    assert after["victim_made_with"] == content["victim_made_with"]
    assert after["made_with"] == {**content["made_with"], "data": first["data"]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("table9",), "paper: expected figure1, table1"),
        (("all", "--scale", "huge"), "--scale: expected smoke, cpu, text, full, got 'huge'"),
        (("none.json",), "none.json: No such file"),
        (
            ("table1", "--scale", "smoke", "--data", "mnist"),
            "--data: expected one that table1 of scale smoke has runs on, digits, got 'mnist'",
        ),
        (
            ("figure2", "--scale", "cpu", "--data-dir", "nowhere"),
            "--data-dir nowhere: no such folder",
        ),
    ],
)
def test_what_cannot_be_run_is_said(arguments, said, tmp_path):
    done = call_command("paper", *arguments, "--out", "results", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_backend_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonesuch")
    done = call_command("paper", "--scale", "smoke", "--out", "o", cwd=tmp_path)
    assert done.returncode == 1
    assert "KERAS_BACKEND: expected tensorflow, jax or torch" in done.stderr
    assert list(tmp_path.iterdir()) == []

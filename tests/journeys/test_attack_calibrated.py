"""``reverse-sigmoid attack`` against calibrated answers: thieves who know the table."""

import json
import shutil

import pytest
from commands import call_command
from ports import free_ports

from deploy.triton.server import TritonServer
from load_tests.stealing.thief import suite
from postprocess import calibration


@pytest.fixture(scope="module")
def calibrated(exported, tmp_path_factory):
    """A server of calibrated answers, and the file of its table."""
    folder = tmp_path_factory.mktemp("calibrated")
    repository = shutil.copytree(exported, folder / "model_repository")
    done = call_command("calibrate", repository / "digits", "--data", "digits", "--write",
                        cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (table,) = (repository / "digits_reverse_sigmoid").glob("calibration-*.json")
    with TritonServer(repository, ports=free_ports(), log=folder / "triton.log") as running:
        yield running, table


def attack(calibrated, what, out, *more):
    server, _ = calibrated
    words = ("--url", server.grpc_url, "--model", "digits", "--data", "digits", "--steps", 2)
    words += ("--queries", 50, "--architecture", "mlp", "--out", out)
    return call_command("attack", what, *words, *more, cwd=out.parent)


def test_a_thief_who_does_not_know_the_table_is_said_not_to(calibrated, tmp_path):
    _, table = calibrated
    looked_up = ("sample", tmp_path / "unknown", "--recover", "table")
    done = attack(calibrated, *looked_up)
    assert done.returncode == 0, done.stderr
    assert "warning: digits answers as if by a table of calibrated levels, which" in done.stderr
    assert "seem calibrated (--calibration names" in " ".join(done.stdout.split())
    refused = attack(calibrated, *looked_up, "--calibration", table)
    assert refused.returncode == 1
    assert f"holds an attack with table '', not '{table.name}'" in refused.stderr
    known = attack(calibrated, "sample", tmp_path / "known", *looked_up[2:], "--calibration", table)
    assert known.returncode == 0, known.stderr
    assert "warning" not in known.stderr
    assert f"know its table of calibrated answers, {table.name};" in " ".join(known.stdout.split())
    stolen = [
        json.loads((tmp_path / folder / "results" / "sample-table-50.json").read_text())
        for folder in ("unknown", "known")
    ]
    assert stolen[0]["cosine"] != stolen[1]["cosine"]  # they look answers up in different tables


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("--recover", "analytic"),
            "sample-analytic: is not for calibrated answers",
        ),
        (("--loss", "same_layer"), "sample-same_layer: is not for calibrated answers"),
        (("--calibration", "nothing.json"), "nothing.json: No such file or directory"),
        (("--calibration", "other.json"), "is not what digits answers by: test row"),
    ],
)
def test_a_table_that_is_none_or_anothers_is_refused_before_queries_are_paid_for(
    calibrated, tmp_path, more, said
):
    _, table = calibrated
    rightly = calibration.read(table, where="")
    other = [[level * 0.9 for level in row] for row in rightly.confidence]
    (tmp_path / "other.json").write_text(
        calibration.Calibration(
            classes=10, single=False, log_odds=rightly.log_odds, confidence=tuple(map(tuple, other))
        ).text()
    )
    done = attack(calibrated, "sample", tmp_path / "out", "--calibration", table, *more)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "sample" / "transfer_set.csv").exists()


@pytest.mark.slow
def test_all_attacks_of_a_table_are_of_thieves_who_know_it(calibrated, tmp_path):
    _, table = calibrated
    more = ("--calibration", table, "--budgets", 50, "--jobs", 1, "--json")
    done = attack(calibrated, "all", tmp_path / "out", *more)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    names = {each["name"] for each in report["results"]}
    assert names == {thief.name for thief in suite(with_victim=False, with_table=True)}
    (at,) = report["summary"]["budgets"]
    assert at["honest_score"] == at["best_agreement"] - at["labels_only"]
    assert report["settings"]["table"] == table.name
    assert report["unknown_table"] is False

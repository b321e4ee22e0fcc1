"""A classifier of ids of any length and of amounts, stolen, measured and loaded as any other."""

import json

import numpy as np
import pytest
from commands import PATIENCE_S, call_command
from locusts import locust, statistics, stopped_when_spent
from onnx import TensorProto
from ports import free_ports
from victims import graph_file, node

from deploy.triton.server import TritonServer
from load_tests.data.drawn import draw_from
from load_tests.stealing.transfer_set_file import TransferSetFile

CLASSES, ROWS, WORDS = 4, 200, 30
RNG = np.random.default_rng(0)
EMBEDDING = RNG.normal(size=(WORDS, 6)).astype(np.float32)
OF_IDS = 3 * RNG.normal(size=(6, CLASSES)).astype(np.float32)
OF_AMOUNT = RNG.normal(size=(2, CLASSES)).astype(np.float32)
IDS = RNG.integers(0, WORDS, (ROWS, 5))
AMOUNT = RNG.normal(size=(ROWS, 2)).astype(np.float32)
MEANS = EMBEDDING[IDS].mean(axis=1)
ARRAYS = {
    "ids": IDS,
    "amount": AMOUNT,
    "features": np.concatenate([MEANS, AMOUNT], axis=1),
    "labels": (MEANS @ OF_IDS + AMOUNT @ OF_AMOUNT).argmax(axis=1),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A server of the protected classifier, and the folder of its query set."""
    folder = tmp_path_factory.mktemp("pair")
    for name, of_ids, of_amount in (
        ("pair", OF_IDS, OF_AMOUNT),
        ("other", np.zeros_like(OF_IDS), -OF_AMOUNT),
    ):
        graph_file(
            folder / f"{name}.onnx",
            [
                node("Gather", ["embedding", "ids"], ["each"]),
                node("ReduceMean", ["each"], ["mean"], axes=[1], keepdims=0),
                node("MatMul", ["mean", "of_ids"], ["first"]),
                node("MatMul", ["amount", "of_amount"], ["second"]),
                node("Add", ["first", "second"], ["scores"]),
            ],
            [("ids", TensorProto.INT64, ("N", "L")), ("amount", TensorProto.FLOAT, ("N", 2))],
            [("scores", TensorProto.FLOAT, ("N", CLASSES))],
            {"embedding": EMBEDDING, "of_ids": of_ids, "of_amount": of_amount},
        )
        done = call_command("protect", f"{name}.onnx", "--repository", "repository", cwd=folder)
        assert done.returncode == 0, done.stderr
    np.savez(folder / "rows.npz", **ARRAYS)
    repository = folder / "repository"
    with TritonServer(repository, ports=free_ports(), log=folder / "triton.log") as server:
        yield server, folder


def attack(pair, name, *more):
    server, folder = pair
    asked = ("--url", server.grpc_url, "--model", "pair", "--queries", 60, "--steps", 20)
    return call_command("attack", name, *asked, *more, cwd=folder)


@pytest.mark.slow
def test_all_attacks_that_choose_rows_steal_it_and_the_others_are_left_out(pair):
    done = attack(pair, "all", "--victim", "pair_classifier", "--query-set", "rows.npz",
                  "--budgets", 60, "--jobs", 1, "--out", "theft", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["left_out"]) == {"random", "jacobian", "knockoff", "duplicates"}
    assert "knockoff is left out: it makes rows of its own" in done.stderr
    assert "one row in 5 is held out to judge by, 40 drawn with --split-seed 0" in done.stderr
    found = {result["name"]: result for result in report["results"]}
    assert {"sample", "sample-labels", "sample-analytic", "sample-linear"} <= set(found)
    assert found["sample-unprotected"]["agreement"] > 0.5
    assert report["protection"]["accuracy"] == report["protection"]["agreement"] == 1
    assert report["settings"]["architecture"] == "mlp"


@pytest.mark.slow
def test_without_labels_nothing_is_said_of_accuracy(pair):
    _, folder = pair
    np.savez(folder / "bare.npz", **{name: ARRAYS[name] for name in ("ids", "amount", "features")})
    done = attack(pair, "sample", "--query-set", "bare.npz", "--out", "bare", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert "accuracy" not in result
    assert 0 <= result["agreement"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "warned"), [("pair_classifier", 0), ("other_classifier", 1)])
def test_a_victim_that_is_another_models_is_said_to_be(pair, victim, warned):
    told = ("--query-set", "rows.npz", "--victim", victim, "--out", f"of {victim}")
    done = attack(pair, "sample", *told)
    assert done.returncode == 0, done.stderr
    said = "other_classifier is not the classifier behind it"
    assert done.stderr.count(said) == done.stderr.count("warning: ") == warned


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sample", {"amount": None}, "the query set has no array for input amount"),
        ("sample", {"more": AMOUNT}, "has no input more, an array of the query set"),
        ("sample", {"ids": IDS * 1.5}, "input ids is INT64: expected whole numbers, got float64"),
        ("sample", {"amount": np.zeros((ROWS, 3))}, "expected rows of shape [2], got [3]"),
        ("sample", {"features": AMOUNT[:9]}, "features: expected 200 rows, as ids has, got 9"),
        ("random", {}, "attack random: it makes rows of its own"),
    ],
)
def test_what_it_does_not_take_is_refused_and_nothing_is_written(pair, name, changes, said):
    _, folder = pair
    arrays = {key: values for key, values in {**ARRAYS, **changes}.items() if values is not None}
    file = f"wrong {said}.npz".replace("/", " ")  # a name of its own: what was read is kept
    np.savez(folder / file, **arrays)
    done = attack(pair, name, "--query-set", file, "--out", "refused")
    assert done.returncode == 1
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (folder / "refused").exists()


@pytest.mark.slow
def test_tune_and_overhead_ask_about_its_rows_too(pair):
    server, folder = pair
    done = call_command(
        *("tune", "--repository", "repository", "--model", "pair", "--query-set", "rows.npz"),
        *("--queries", 100, "--steps", 20, "--betas", "0.9,1.5", "--gammas", "0.2"),
        *("--out", "tuned", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recommended"]["beta"] in (0.9, 1.5)
    done = call_command(
        *("overhead", "--url", server.grpc_url, "--protected", "pair"),
        *("--unprotected", "pair_classifier", "--query-set", "rows.npz", "--batch", "1,4"),
        *("--concurrency", 1, "--seconds", 0.5, "--rounds", 2, "--under-attack", "--json"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [cell["protected"]["errors"] for cell in report["cells"]] == [0, 0]
    assert report["thief"]["errors"] == 0


@pytest.mark.slow
def test_thieves_of_locust_spend_their_budgets_on_its_rows(pair):
    server, folder = pair
    process = locust(
        *("--host", server.grpc_url, "--headless", "-u", 3, "-r", 3),
        *("--run-time", f"{PATIENCE_S}s", "--csv", "load", "--model", "pair"),
        *("--query-set", folder / "rows.npz", "--transfer-sets", folder / "sets"),
        *("--sample-thieves", 2, "--query-budget", 40, "--thief-batch", 10, "--think-time", 0.2),
        cwd=folder / "locust",
    )
    code = stopped_when_spent(process, folder / "locust", requests=8, model="pair")
    assert code == 0, (folder / "locust" / "locust.txt").read_text()
    counts = statistics(folder / "locust")
    assert all(failures == 0 for _, failures in counts.values())
    drawn = draw_from("", None, 0, str(folder / "rows.npz"), "")
    for thief in ("sample-0-0", "sample-0-1"):
        taken = TransferSetFile(folder / "sets" / thief, drawn.pool).read()
        assert len(taken) == 40
        assert np.abs(taken.scores.sum(axis=1) - 1).max() < 1e-5

"""``reverse-sigmoid attack`` against the real server, and outsiders who never heard of it."""

import json
import os
import re
import signal
import time

import numpy as np
import onnxruntime
import pytest
from commands import COMMAND, SOON_S, Running, call_command, processes_of, run_on_a_full_disk
from ports import free_ports
from scipy.special import softmax
from serving import read_url

from deploy.repository.config_edit import set_parameters
from deploy.triton.server import TritonServer
from exporters.repository.model_repository import SHIPPED
from exporters.training import datasets
from exporters.training.train import predict
from load_tests.asking.endpoint import Endpoint
from load_tests.reporting import measures
from load_tests.stealing import probabilities
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import Manner, collect
from load_tests.stealing.same_answers import ROWS
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.thief import suite
from postprocess.parameters import Parameters
from postprocess.postprocessor import Postprocessor

DIGITS = datasets.load("digits")
POOL = datasets.hold_off(DIGITS, seed=0).adversary_images
CLASSIFIER = "digits_classifier"


@pytest.fixture(scope="module")
def own(exported, tmp_path_factory):
    """A server that nobody else queries, so that its counters are ours."""
    log = tmp_path_factory.mktemp("own") / "triton.log"
    with TritonServer(exported, ports=free_ports(), log=log) as running:
        yield running


def answered(server, model="digits"):
    """Return how many images the server counts as answered by a model."""
    text = read_url(f"http://{server.address}:{server.ports.metrics}/metrics")
    (count,) = re.findall(rf'^nv_inference_count{{model="{model}".*}} ([0-9]+)', text, re.MULTILINE)
    return int(count)


def options(server, out, *more, queries=96, steps=20):
    return (
        *("--url", server.grpc_url, "--model", "digits", "--data", "digits"),
        *("--queries", queries, "--steps", steps, "--architecture", "mlp", "--out", out, *more),
    )


def test_an_attack_reports_what_a_thief_gets_and_the_next_asks_if_it_holds(own, tmp_path):
    out = tmp_path / "theft"
    command = ("attack", "sample", *options(own, out, "--victim", CLASSIFIER, "--budgets", "48"))
    before = answered(own)
    done = call_command(*command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sample: ask the endpoint, 96 queries" in done.stderr
    assert answered(own) - before == 96 + len(DIGITS.x_test)
    report = json.loads(done.stdout)
    assert json.loads((out / "report.json").read_text()) == report
    assert [each["queries"] for each in report["results"]] == [48, 96]
    assert report["protection"]["agreement"] == 1
    for each in report["results"]:
        assert 0 <= each["agreement"] <= 1
        assert 0 < each["cosine"] <= 1
        assert each["kl_nats_from_victim"] > 0
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2  # one for each panel that the naive thief is in
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(http", page)

    asked = answered(own), answered(own, CLASSIFIER)
    again = call_command(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "What a thief gets" in again.stdout
    # The protected model asks the classifier too.
    assert (answered(own) - asked[0], answered(own, CLASSIFIER) - asked[1]) == (ROWS, 2 * ROWS)
    assert json.loads((out / "report.json").read_text())["results"] == report["results"]


def test_an_interrupted_attack_resumed_sends_exactly_the_rest_of_its_budget(own, tmp_path):
    out = tmp_path / "theft"
    before = answered(own)
    command = options(own, out, "--batch-size", 1, "--concurrency", 3, queries=400, steps=1)
    with Running("attack", "sample", *command, cwd=tmp_path) as thief:
        rows = out / "sample" / "transfer_set.csv"
        thief.wait_until(lambda: rows.exists() and rows.read_bytes().count(b"\n") > 20)
        assert thief.stop(signal.SIGINT) == 130
    assert "interrupted; the same command goes on" in thief.stderr.read_text()
    paid = rows.read_bytes().count(b"\n") - 1
    spent = answered(own) - before - len(DIGITS.x_test)
    assert 20 <= paid == spent < 400
    done = call_command("attack", "sample", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert answered(own) - before == 400 + len(DIGITS.x_test) + ROWS
    assert rows.read_bytes().count(b"\n") - 1 == 400


@pytest.mark.slow
def test_several_trainings_interrupted_leave_no_process_and_none_is_made_again(own, tmp_path):
    out = tmp_path / "theft"
    command = options(own, out, "--budgets", 96, "--jobs", 2)
    before = answered(own)
    with Running("attack", "all", *command, cwd=tmp_path) as thief:
        results = out / "results"
        thief.wait_until(lambda: len(list(results.glob("*.json"))) > 2)
        assert len(processes_of(thief.process.pid)) >= 3  # two of them train
        assert thief.stop(signal.SIGINT) == 130
        deadline = time.monotonic() + SOON_S
        while left := processes_of(thief.process.pid):  # multiprocessing's own ends after it
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    assert thief.stderr.read_text().endswith("interrupted; the same command goes on\n")
    assert not list(out.rglob(".*.part"))
    made = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    done = call_command("attack", "all", *command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert made.items() <= after.items()
    told = re.findall(r"^\[([0-9]+)/([0-9]+)\] ", done.stderr, re.MULTILINE)
    assert sorted(int(number) for number, _ in told) == [*range(1, len(told) + 1)]
    assert {int(total) for _, total in told} == {len(told)}
    stolen = json.loads(done.stdout)["results"]
    assert len(stolen) == len(list(results.glob("*.json"))) == len(suite(with_victim=False))
    assert {each["threads"] for each in stolen} == {max(1, len(os.sched_getaffinity(0)) // 2)}
    attacks = len({each["attack"] for each in stolen})
    assert answered(own) - before == 96 * attacks + len(DIGITS.x_test) + ROWS


def killed(command, rows, tmp_path):
    with Running("attack", "sample", *command, cwd=tmp_path) as thief:
        thief.wait_until(lambda: rows.exists() and rows.read_bytes().count(b"\n") > 20)
        thief.stop(signal.SIGKILL)


def on_a_full_disk(command, rows, tmp_path):
    done = run_on_a_full_disk(40, COMMAND, "attack", "sample", *command, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == f"reverse-sigmoid: {rows}: File too large"


@pytest.mark.parametrize("ended", [killed, on_a_full_disk])
def test_an_attack_that_could_not_go_on_pays_for_nothing_twice(own, tmp_path, ended):
    out = tmp_path / "theft"
    rows, at_once = out / "sample" / "transfer_set.csv", 3
    before = answered(own)
    command = options(own, out, "--batch-size", 1, "--concurrency", at_once, queries=400, steps=1)
    ended(command, rows, tmp_path)
    paid = rows.read_bytes().rpartition(b"\n")[0].splitlines()[1:]
    assert len(paid) >= 20
    done = call_command("attack", "sample", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = rows.read_bytes().splitlines()[1:]
    assert set(paid) <= set(after)
    # What was under way was answered or not, and is not asked again.
    assert 400 - at_once <= len(after) <= 400
    assert answered(own) - before <= 400 + len(DIGITS.x_test) + ROWS


@pytest.mark.slow
def test_a_server_that_goes_away_is_named_and_the_next_call_pays_for_the_rest(exported, tmp_path):
    ports, log, out = free_ports(), tmp_path / "triton.log", tmp_path / "theft"
    with TritonServer(exported, ports=ports, log=log) as first:
        one_by_one = ("--batch-size", 1, "--retries", 1, "--jobs", 2, "--budgets", "100,2000")
        command = options(first, out, *one_by_one, queries=2000, steps=1)
        with Running("attack", "random", *command, cwd=tmp_path) as thief:
            rows = out / "random" / "transfer_set.csv"
            thief.wait_until(lambda: rows.exists() and rows.read_bytes().count(b"\n") > 20)
            first.stop(kill_after_s=0)
            assert thief.process.wait(SOON_S) == 1
    said = thief.stderr.read_text()
    assert f"reverse-sigmoid: {first.grpc_url}, model digits: " in said.splitlines()[-1]
    assert "Traceback" not in said
    paid = rows.read_bytes().splitlines()[1:]
    with TritonServer(exported, ports=ports, log=log) as second:
        done = call_command("attack", "random", *command, "--jobs", 1, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert answered(second) == 2000 - len(paid) + ROWS
    assert set(paid) <= set(rows.read_bytes().splitlines())


def test_a_transfer_set_that_is_there_becomes_a_report(own, tmp_path):
    first, out = tmp_path / "first", tmp_path / "out"
    done = call_command("attack", "sample", *options(own, first, steps=1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = first / "sample"
    command = ("--url", own.grpc_url, "--model", "digits", "--steps", 1, "--out", out)
    command += ("--architecture", "mlp")
    before = answered(own)
    done = call_command(
        "attack", "sample", "--labels-only", "--from-transfer-set", folder, *command, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert answered(own) - before == len(DIGITS.x_test)
    report = json.loads((out / "report.json").read_text())
    assert [(each["name"], each["queries"]) for each in report["results"]] == [
        ("sample-labels", 96)
    ]
    wrong = call_command("attack", "random", "--from-transfer-set", folder, *command, cwd=tmp_path)
    assert f"--from-transfer-set {folder}: was made by sample, not by random" in wrong.stderr


def test_a_folder_of_before_a_retune_is_refused_with_the_way_out(repository, tmp_path):
    thieves = (("sample",), ("sample", "--labels-only"))
    with TritonServer(
        repository, ports=free_ports(), log=tmp_path / "triton.log", control_mode="poll"
    ) as running:
        out = tmp_path / "theft"
        words = options(running, out, "--victim", CLASSIFIER, steps=1)
        first = call_command("attack", "sample", *words, cwd=tmp_path)
        assert first.returncode == 0, first.stderr
        paid = (out / "sample" / "transfer_set.csv").read_bytes()
        for thief in thieves:
            again = call_command("attack", *thief, *words, cwd=tmp_path)
            assert again.returncode == 0, again.stderr
            for model in ("digits", CLASSIFIER):
                assert f"{model}: 8 test images asked again, of no thief's budget" in again.stderr
        retuned = call_command("retune", repository / "digits", "--gamma", "0.3", cwd=tmp_path)
        assert retuned.returncode == 0, retuned.stderr
        with Endpoint(running.grpc_url, "digits") as live:
            before = np.load(out / "reference.npz")["protected"][:8]
            deadline = time.monotonic() + SOON_S
            while np.abs(live(DIGITS.x_test[:8]) - before).max() < 1e-3:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        for thief in thieves:
            refused = call_command("attack", *thief, *words, cwd=tmp_path)
            (*_, said) = refused.stderr.splitlines()
            assert refused.returncode == 1
            assert f"--out {out}: holds answers of digits, which now answers otherwise" in said
            assert "give --out another folder" in said
            assert (out / "sample" / "transfer_set.csv").read_bytes() == paid


def test_a_defence_that_draws_at_random_is_known_again_by_its_top_classes(repository, tmp_path):
    config = repository / "digits_reverse_sigmoid" / "config.pbtxt"
    drawing = set_parameters(
        config.read_text(), {"defense": "uniform", "gamma": None, "beta": "0.2"}
    )
    config.write_text(drawing)
    with TritonServer(repository, ports=free_ports(), log=tmp_path / "triton.log") as running:
        words = options(running, tmp_path / "theft", steps=1)
        assert call_command("attack", "sample", *words, cwd=tmp_path).returncode == 0
        again = call_command("attack", "sample", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "same top classes, as it draws its answers at random" in again.stderr


def test_the_report_tells_of_all_thieves_of_a_folder(own, tmp_path):
    words = options(own, tmp_path / "theft", steps=1)
    for more in ((), ("--labels-only",)):
        done = call_command("attack", "sample", *more, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "theft" / "report.json").read_text())
    assert [each["name"] for each in report["results"]] == ["sample", "sample-labels"]
    assert report["summary"]["budgets"][0]["honest_score"] is not None
    assert "sample-labels" in (tmp_path / "theft" / "report.html").read_text()


def test_a_folder_of_another_attack_is_refused_and_kept(own, tmp_path):
    out = tmp_path / "theft"
    out.mkdir()
    (out / "thesis.txt").write_text("theirs")
    done = call_command("attack", "sample", *options(own, out), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(f"--out {out}: holds other files; choose another folder\n")
    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    done = call_command("attack", "sample", *options(own, out, steps=1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = call_command("attack", "sample", *options(own, out, steps=2), cwd=tmp_path)
    assert done.stderr.endswith(
        f"--out {out}: holds an attack with steps 1, not 2; choose another folder\n"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--model", "digit"), "model digit: "),
        (("--url", "127.0.0.1:9"), "127.0.0.1:9, model digits: "),
        (("--queries", "0"), "--queries: say how many queries an attack may send"),
        (("--queries", "5000"), "query budget: expected 1 to 482 rows, got 5000"),
        (("--data", "mnits"), "unknown data set 'mnits'"),
        (("--budgets", "1,x"), "--budgets: expected whole numbers from 1 to 999999999, separated"),
        (("--budgets", "60.7"), "--budgets: expected whole numbers from 1 to 999999999, separated"),
        (("--budgets", "97"), "--budgets 97: is more than --queries 96"),
        (("--price", "1"), "--price: expected 2 numbers, separated by commas, got '1'"),
        (("--price", "10,1"), "--price: expected the lower price first, got '10,1'"),
        (("--loss", "hinge"), "--loss: expected cross_entropy, "),
        (("--recover", "magic"), "--recover: expected tail, "),
        (("--learn", "magic"), "--learn: expected self_training, "),
        (("--loss", "smoothed"), "--loss smoothed: is of labels, and goes with --labels-only"),
        (("--recover", "linear"), "--recover linear: needs --victim"),
        (("--architecture", "vgg"), "unknown architecture 'vgg'"),
        (("--tls-ca", "absent.pem"), "--tls-ca absent.pem: No such file or directory"),
        (("--batch-size", "1000"), "batch-size must be <= 256"),
    ],
)
def test_what_cannot_be_attacked_is_refused_in_one_line(own, tmp_path, changes, said):
    done = call_command("attack", "sample", *options(own, "out"), *changes, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("labels_only", [False, True])
def test_in_this_process_and_live_the_same_seed_steals_the_same(own, exported, labels_only):
    session = onnxruntime.InferenceSession(exported / CLASSIFIER / "1" / "model.onnx")
    settings = {"beta": SHIPPED.beta, "gamma": SHIPPED.gamma, "margin": SHIPPED.margin}
    defence = Postprocessor(Parameters(scores="logits", **settings))

    def in_process(images):
        return defence(session.run(["scores"], {"image": images})[0])

    def stolen(query):
        plan = sample(POOL, budget=400, rng=np.random.default_rng(0))
        taken = collect(plan, query, manner=Manner(batch_size=64))
        recipe = Recipe(steps=150, seed=1, labels_only=labels_only, architecture="mlp")
        model = train_substitute(taken, recipe)
        return taken, predict(model, DIGITS.x_test)

    with Endpoint(own.grpc_url, "digits") as endpoint:
        taken, live = stolen(probabilities.of(endpoint))
    same, local = stolen(in_process)
    assert np.array_equal(taken.rows, same.rows)
    assert np.abs(taken.scores - same.scores).max() <= 1e-6
    truth = session.run(["scores"], {"image": DIGITS.x_test})[0]
    assert measures.agreement(live, truth) == pytest.approx(
        measures.agreement(local, truth), abs=0.02
    )


def test_arts_knockoff_nets_run_against_the_protected_endpoint(own):
    """An outsider's tool, given nothing but a function that calls the endpoint."""
    from tritonclient.grpc import InferenceServerClient, InferInput

    def ask(model):
        def predict_live(images):
            tensor = InferInput("image", images.shape, "FP32")
            tensor.set_data_from_numpy(images.astype(np.float32))
            return client.infer(model, [tensor]).as_numpy("scores")

        return predict_live

    with InferenceServerClient(
        own.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)]
    ) as client:
        before = answered(own)
        from_protected = knocked_off(ask("digits"))
        assert answered(own) - before == 400
        from_victim = knocked_off(lambda images: softmax(ask(CLASSIFIER)(images), axis=1))
        truth = ask(CLASSIFIER)(DIGITS.x_test[:256])
    assert measures.agreement(from_victim, truth) > 0.85
    assert measures.agreement(from_protected, truth) < measures.agreement(from_victim, truth) - 0.1


def knocked_off(predict_live):
    """Return what ART's substitute answers to the first of the test images."""
    import torch
    from art.attacks.extraction import KnockoffNets
    from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier

    torch.manual_seed(0)
    np.random.seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    thieved = PyTorchClassifier(
        network,
        torch.nn.CrossEntropyLoss(),
        (8, 8, 1),
        10,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        device_type="cpu",
    )
    attack = KnockoffNets(
        BlackBoxClassifier(predict_live, (8, 8, 1), 10, clip_values=(0, 1)),
        batch_size_fit=64,
        batch_size_query=64,
        nb_epochs=40,
        nb_stolen=400,
        sampling_strategy="random",
        use_probability=True,
        verbose=False,
    )
    return attack.extract(POOL, thieved_classifier=thieved).predict(DIGITS.x_test[:256])

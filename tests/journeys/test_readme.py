"""The commands of the pages, read out of them and run in a copy of the checkout.

Word for word, but for the ports: whoever runs the tests may be serving on Triton's own.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import victims
import yaml
from commands import PATIENCE_S, Running, call_command, run_command, wait_for_no_process_naming
from gateways import write_files
from locusts import LOCUSTFILE, locust, stopped_when_spent
from onnx import TensorProto, helper
from pages import PAGES, README, ROOT, SHELL, block, blocks, shown_after, understood
from ports import free_addresses, free_ports
from serving import port_options

from deploy.triton.server import Ports

TEST_COMMAND = "pytest"
EXAMPLE = "reverse-sigmoid export digits\nreverse-sigmoid serve model_repository\n"
#: Pages that tell at length what the README is an index of.
GUIDE, DEFENCE = PAGES["deploy/README.md"], PAGES["postprocess/README.md"]


def at(ports, text):
    """Return a text with other ports in place of Triton's own."""
    other = {"8000": ports.http, "8001": ports.grpc, "8002": ports.metrics}
    return re.sub(r"\b800[012]\b", lambda found: str(other[found[0]]), text)


def numbers(text):
    return [float(number) for number in re.findall(r"[0-9.]+", text)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """What a clone holds, without what an earlier command may have left in ours."""
    copy = tmp_path_factory.mktemp("readme") / "checkout"
    shutil.copytree(
        ROOT / "model_repository",
        copy / "model_repository",
        ignore=shutil.ignore_patterns("*.onnx", "__pycache__"),
    )
    return copy


@pytest.fixture(scope="module")
def exported(checkout):
    """The same with the classifier that the README has exported."""
    export, _ = block(EXAMPLE).splitlines()
    done = call_command(*export.split()[1:], cwd=checkout)
    assert done.returncode == 0, done.stderr
    return checkout


def test_the_readme_has_these_commands_and_no_others():
    install = "python -m pip install -c deploy/constraints.txt -e"
    assert blocks(SHELL, README) == [
        f"{install} '.[all]' && reverse-sigmoid demo\n",
        "reverse-sigmoid export digits\nreverse-sigmoid serve model_repository\n",
        "reverse-sigmoid protect my_model.onnx --repository models\n",
        "reverse-sigmoid export digits --repository models --max-client-batch 1   "
        "# a request is a query\n"
        "reverse-sigmoid serve models --gateway operator.yaml\n"
        "REVERSE_SIGMOID_API_KEY=... reverse-sigmoid audit --url localhost:8443 --public digits "
        "--tls-ca tls/server.pem\n",
        "reverse-sigmoid attack all --model digits --victim digits_classifier --data digits \\\n"
        "    --queries 480 --steps 300 --out theft\n",
        f"{install} '.[all,test]' && {TEST_COMMAND}\n",
    ]


def test_the_ports_that_the_readme_names_are_those_without_options():
    served = understood(block(EXAMPLE).splitlines()[1].split())
    ports = Ports(served["http_port"], served["grpc_port"], served["metrics_port"])
    assert ports == Ports() == Ports(8000, 8001, 8002)
    attack = understood(shlex.split(block("reverse-sigmoid attack all --model digits ")))
    assert attack["url"] == "127.0.0.1:8001"


def test_ci_installs_and_tests_as_the_readme_does():
    script = (ROOT / ".ci" / "run").read_text()
    assert "python -m pip install --quiet -c deploy/constraints.txt -e '.[all,test]'" in script
    assert script.splitlines()[-1] == TEST_COMMAND


def test_the_demo_ends_with_the_readmes_table(checkout):
    done = run_command("demo", cwd=checkout)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for row in ("Accuracy on the test set", "Stolen: agreement of a substitute", "Latency p99"):
        assert row in said
    report = json.loads((checkout / "demo" / "report.json").read_text())
    assert report["protected_agreement"] == 1
    assert report["protected_accuracy"] == report["victim_accuracy"] > 0.97
    drop = report["stolen_agreement_unprotected"] - report["stolen_agreement_protected"]
    assert drop >= 0.20
    assert report["stolen_agreement_labels_only"] > 0.9
    for command in re.findall(r"^  (reverse-sigmoid \w+)", said, re.MULTILINE):
        assert call_command(command.split()[1], "--help", cwd=checkout).returncode == 0
    wait_for_no_process_naming(checkout)


def test_the_worked_example_is_exported_checked_served_and_queried_as_written(exported):
    checkout, ports = exported, free_ports()
    done = run_command(*block("reverse-sigmoid check model_repository").split()[1:], cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown_after("reverse-sigmoid check model_repository\n")
    calibrate = block("reverse-sigmoid export digits\nreverse-sigmoid calibrate ").splitlines()[1]
    done = call_command(*calibrate.split()[1:], cwd=checkout)
    assert (done.returncode, "bits a query" in done.stdout) == (0, True), done.stderr
    (client,) = [each for each in blocks("python") if "tritonclient" in each]
    serve = block(EXAMPLE).splitlines()[1].split()[1:]
    with Running(*serve, *port_options(ports), cwd=checkout) as server:
        server.wait_for("Ctrl-C stops")
        said = server.stdout.read_text()
        for line in at(ports, shown_after(EXAMPLE)).splitlines():
            assert line in said
        answer = subprocess.run(
            [sys.executable, "-c", at(ports, client)],
            cwd=checkout,
            timeout=PATIENCE_S,
            capture_output=True,
            text=True,
            check=True,
        )
        assert numbers(answer.stdout) == pytest.approx(numbers(blocks("text", GUIDE)[1]), abs=0.02)
        overhead = shlex.split(at(ports, block("reverse-sigmoid overhead ")))
        measured = run_command(*overhead[1:], "--seconds", 0.1, "--rounds", 2, cwd=checkout)
        assert measured.returncode == 0, measured.stderr
        for text in ("p50, ms", "p99, ms", "requests/s", "Under attack", "Measuring overhead: "):
            assert text in measured.stdout
        words = shlex.split(at(ports, block("locust ")))
        assert (ROOT / words[2]).samefile(LOCUSTFILE)
        load = locust(*words[3:], "--run-time", f"{PATIENCE_S}s", cwd=checkout)
        code = stopped_when_spent(load, checkout, requests=1)
        assert code == 0, (checkout / "locust.txt").read_text()
        assert "digits thief sample" in (checkout / "load.html").read_text()
        # The same command, with as little of everything as it can do.
        theft = shlex.split(block("reverse-sigmoid attack all --model digits "))
        least = ("--queries", 50, "--budgets", 50, "--steps", 1, "--url", f"127.0.0.1:{ports.grpc}")
        stolen = call_command(*theft[1:], *least, cwd=checkout)
        assert stolen.returncode == 0, stolen.stderr
        for thief in ("sample-labels", "sample-table", "jacobian", "duplicates", "sample-mlp *"):
            assert thief in stolen.stdout
        assert "honest score" in stolen.stdout
        assert (checkout / "theft" / "report.html").read_text().count("<svg") == 4
        assert server.stop() == 0


def test_a_setting_is_found_as_written(exported):
    tune = block("reverse-sigmoid tune ").split()[1:]
    least = ("--queries", 64, "--steps", 1, "--betas", "0.8,1.2", "--gammas", "0.1")
    done = call_command(*tune, *least, cwd=exported)
    assert done.returncode == 0, done.stderr
    assert "recommended" in done.stdout
    assert (exported / "tuned" / "frontier.svg").is_file()


def test_a_gateway_is_served_and_audited_as_written(tmp_path):
    export, serve, audit = block("reverse-sigmoid export digits --repository").splitlines()
    done = call_command(*shlex.split(export, comments=True)[1:], "--steps", 60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load(*blocks("yaml", README))
    # Loopback and free ports; else as written, with keys and a certificate where it says so.
    written["listen"], written["statistics"] = free_addresses(2)
    files = write_files(tmp_path)
    for folder in ("tls", "keys"):
        (tmp_path / folder).mkdir()
    # The guide's signs itself; of ours the signer stands behind it.
    chain = (tmp_path / "server.pem").read_text() + (tmp_path / "ca.pem").read_text()
    (tmp_path / written["tls"]["certificate"]).write_text(chain)
    (tmp_path / "server.key").rename(tmp_path / written["tls"]["key"])
    for name, client in written["clients"].items():
        (tmp_path / client["key_file"]).write_text(f"{name}-0123456789abcdef\n")
        (tmp_path / client["key_file"]).chmod(0o600)
    files.path.write_text(yaml.safe_dump(written))
    with Running(*serve.split()[1:], *port_options(free_ports()), cwd=tmp_path) as server:
        server.wait_for("Ctrl-C stops")
        asked = shlex.split(audit.replace("localhost:8443", written["listen"]))
        done = run_command(
            *asked[2:], cwd=tmp_path,
            env={**os.environ, "REVERSE_SIGMOID_API_KEY": "monitoring-0123456789abcdef"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.stop() == 0
    wait_for_no_process_naming(tmp_path)


def test_a_model_of_your_own_is_protected_as_written(tmp_path):
    images, weights = ("N", 3, 32, 32), victims.rng().normal(size=(3072, 10)) / 10
    victims.graph_file(
        tmp_path / "my_model.onnx",
        [
            helper.make_node("Flatten", ["image"], ["pixels"]),
            helper.make_node("MatMul", ["pixels", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"]),
        ],
        [("image", TensorProto.FLOAT, images)],
        [("scores", TensorProto.FLOAT, ("N", 10))],
        {"weights": weights.astype("float32")},
    )
    shown = block("reverse-sigmoid protect my_model.onnx --repository models\n")
    ensemble, fused = [
        each.split()[1:]
        for each in (shown, block("reverse-sigmoid protect my_model.onnx --repository fused"))
    ]
    done = call_command(*ensemble, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown_after(shown)
    done = call_command(*fused, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    retune = block("reverse-sigmoid retune ").split()[1:]
    done = call_command(*retune, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "beta 1.5 -> 1.2, gamma 0.2 -> 0.1" in done.stdout


def test_the_parameters_that_the_readme_shows_are_those_that_are_shipped():
    config = (ROOT / "model_repository/digits_reverse_sigmoid/config.pbtxt").read_text()
    shown = re.findall(r"^parameters \{.*?\} \}", DEFENCE, re.MULTILINE)
    assert len(shown) == 6
    assert all(line in config for line in shown)


def test_a_config_of_your_own_as_written_is_whole(tmp_path):
    (text,) = [each for each in blocks("text") if each.startswith('name: "my_defence"')]
    version = tmp_path / "models" / "my_defence" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(text)
    (line,) = re.findall(r"`1/model.py` is the line `(.*?)`", DEFENCE)
    (version / "model.py").write_text(line + "\n")
    done = call_command("check", "models", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["defences"]["my_defence"]["beta"] == 1.5


def test_the_metrics_that_the_readme_names_are_those_that_there_are():
    source = (ROOT / "postprocess" / "metrics.py").read_text()
    counters, gauges = (
        re.findall(r'^    "(\w+)":', held, re.MULTILINE)
        for held in re.findall(
            r"^(?:COUNTERS|GAUGES) = \{(.*?)^\}", source, re.DOTALL | re.MULTILINE
        )
    )
    made = [*(f"{name}_total" for name in counters), *gauges]
    table = GUIDE.partition("## Watch")[2].partition("```")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == made
    asked = re.findall(r"rate\(reverse_sigmoid_(\w+)\[", GUIDE)
    assert asked
    assert set(asked) <= set(made)

"""The commands of README.md, read out of it and run in a copy of the checkout."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import victims
from commands import Running, run_command, wait_for_no_process_naming
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TEST_COMMAND = "pytest"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block_after(command):
    """Return what is shown as the output of a command."""
    return re.search(
        r"^```text\n(.*?)^```$", README.partition(command)[2], re.DOTALL | re.MULTILINE
    )[1]


def block(start):
    """Return the one command that starts like this, in one line."""
    (found,) = [each for each in blocks("bash") if each.startswith(start)]
    return found.replace("\\\n", "")


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


def test_the_readme_has_these_commands_and_no_others():
    install = "python -m pip install -c deploy/constraints.txt -e"
    assert blocks("bash") == [
        f"{install} '.[all]' && reverse-sigmoid demo\n",
        f"{install} '.[all,test]' && {TEST_COMMAND}\n",
        "reverse-sigmoid export digits\n",
        "reverse-sigmoid serve model_repository\n",
        "reverse-sigmoid protect my_model.onnx --repository models\n",
        "reverse-sigmoid protect my_model.onnx --repository fused --layout fused\n",
        "reverse-sigmoid retune fused/my_model --beta 1.2 --gamma 0.1\n",
        "reverse-sigmoid check model_repository\n",
        "reverse-sigmoid attack all --model digits --victim digits_classifier --data digits \\\n"
        "    --queries 480 --steps 300 --out theft\n",
        "locust -f load_tests/locustfile.py --host 127.0.0.1:8001 -u 22 -r 22 "
        "--sample-thieves 2 \\\n    --headless --run-time 20s --csv load --html load.html\n",
        "reverse-sigmoid overhead --url 127.0.0.1:8001 --data digits --batch 1,32 "
        "--concurrency 1,8 \\\n    --protected digits --unprotected digits_classifier "
        "--seconds 30 --rounds 300 --under-attack\n",
        "reverse-sigmoid paper all --scale smoke --out results\n",
    ]


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
        assert run_command(command.split()[1], "--help", cwd=checkout).returncode == 0
    wait_for_no_process_naming(checkout)


def test_the_worked_example_is_exported_checked_served_and_queried_as_written(checkout):
    export, serve, check = (
        block(f"reverse-sigmoid {name} ").split() for name in ("export", "serve", "check")
    )
    done = run_command(*export[1:], cwd=checkout)
    assert done.returncode == 0, done.stderr
    done = run_command(*check[1:], cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout == block_after("reverse-sigmoid check model_repository\n")
    (client,) = blocks("python")
    with Running(*serve[1:], cwd=checkout) as server:
        server.wait_for("Ctrl-C stops")
        said = server.stdout.read_text()
        for line in blocks("text")[0].splitlines():
            assert line in said
        answer = subprocess.run(
            [sys.executable, "-c", client],
            cwd=checkout,
            timeout=60,
            capture_output=True,
            text=True,
            check=True,
        )
        assert numbers(answer.stdout) == pytest.approx(numbers(blocks("text")[1]), abs=0.02)
        overhead = shlex.split(block("reverse-sigmoid overhead "))
        measured = run_command(*overhead[1:], "--seconds", 0.1, "--rounds", 2, cwd=checkout)
        assert measured.returncode == 0, measured.stderr
        for text in ("p50, ms", "p99, ms", "requests/s", "Under attack", "Measuring overhead: "):
            assert text in measured.stdout
        locust = shlex.split(block("locust "))
        program = str(Path(sys.prefix) / "bin" / "locust")
        load = subprocess.run(
            [program, "-f", str(ROOT / locust[2]), *locust[3:], "--run-time", "6s"],
            cwd=checkout,
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
        assert load.returncode == 0, load.stderr
        assert "digits thief sample" in (checkout / "load.html").read_text()
        # The same command, with as little of everything as it can do.
        theft = shlex.split(block("reverse-sigmoid attack "))
        least = ("--queries", 16, "--budgets", 16, "--steps", 1)
        stolen = run_command(*theft[1:], *least, cwd=checkout)
        assert stolen.returncode == 0, stolen.stderr
        for thief in ("sample-labels", "sample-table", "jacobian", "duplicates", "sample-mlp *"):
            assert thief in stolen.stdout
        assert "honest score" in stolen.stdout
        assert (checkout / "theft" / "report.html").read_text().count("<svg") == 4
        assert server.stop() == 0


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
    ensemble, fused = [
        each.split()[1:] for each in blocks("bash") if each.startswith("reverse-sigmoid protect")
    ]
    done = run_command(*ensemble, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == blocks("text")[2]
    done = run_command(*fused, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    retune = block("reverse-sigmoid retune ").split()[1:]
    done = run_command(*retune, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "beta 1.5 -> 1.2, gamma 0.2 -> 0.1" in done.stdout


def test_the_parameters_that_the_readme_shows_are_those_that_are_shipped():
    config = (ROOT / "model_repository/digits_reverse_sigmoid/config.pbtxt").read_text()
    shown = re.findall(r"^parameters \{.*?\} \}", README, re.MULTILINE)
    assert len(shown) == 6
    assert all(line in config for line in shown)


def test_a_config_of_your_own_as_written_is_whole(tmp_path):
    (text,) = [block for block in blocks("text") if block.startswith('name: "my_defence"')]
    version = tmp_path / "models" / "my_defence" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(text)
    (line,) = re.findall(r"`1/model.py` is the line `(.*?)`", README)
    (version / "model.py").write_text(line + "\n")
    done = run_command("check", "models", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["defences"]["my_defence"]["beta"] == 1.5


def test_the_metrics_that_the_readme_names_are_those_that_there_are():
    source = (ROOT / "postprocess" / "metrics.py").read_text()
    counters = re.search(r"^COUNTERS = \{(.*?)^\}", source, re.DOTALL | re.MULTILINE)[1]
    made = [f"{name}_total" for name in re.findall(r'^    "(\w+)":', counters, re.MULTILINE)]
    assert "reverse_sigmoid_config_not_in_force" in source
    made.append("config_not_in_force")
    table = README.partition("## Watch")[2].partition("```")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == made
    asked = re.findall(r"rate\(reverse_sigmoid_(\w+)\[", README)
    assert asked
    assert set(asked) <= set(made)

"""Readiness of every layout and kind of model, against the real Triton and the real Envoy."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import SOON_S, Running, call_command, run_command, wait_for_no_process_naming
from ports import free_ports
from serving import port_options, stubs_of
from victims import FLOAT, INT64, SIGMOID, SOFTMAX, graph_file, linear_file, node, rng
from victims import sklearn_strings_file as strings_file

from deploy.triton.server import TritonServer
from exporters.protect import protect
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from load_tests.asking.endpoint import Access, connect
from postprocess.question import FILE

SECRET = "s" * 32
WORDS = np.array([("red", "small"), ("green", "large"), ("blue", "small"), ("red", "large")])
#: What no made-up input holds: token ids from 1000 on.
TOKENS = np.arange(1000, 1010)[:, None]


def picky_file(path):
    """Write a classifier that fails on whatever is not one of TOKENS."""
    return graph_file(
        path,
        [
            node("Sub", ["tokens", "first"], ["index"]),
            node("Gather", ["W", "index"], ["rows"]),
            node("ReduceMean", ["rows"], ["h"], axes=[1], keepdims=0),
            node("Softmax", ["h"], ["scores"], axis=-1),
        ],
        [("tokens", INT64, ("N", 1))],
        [("scores", FLOAT, ("N", 4))],
        {"W": 5 * rng().normal(size=(10, 4)).astype(np.float32), "first": np.array([1000])},
    )


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    """Every kind of model in both layouts; not to be changed."""
    folder = tmp_path_factory.mktemp("layouts")
    np.savez(folder / "words.npz", words=WORDS)
    np.savez(folder / "tokens.npz", tokens=TOKENS)
    linear_file(folder / "plain.onnx", SOFTMAX)
    linear_file(folder / "one.onnx", SIGMOID, classes=1)
    linear_file(folder / "labels.onnx", SIGMOID, classes=5)
    linear_file(folder / "alone.onnx", batch=None)
    strings_file(folder / "words.onnx")
    picky_file(folder / "tokens.onnx")
    for path in sorted(folder.glob("*.onnx")):
        sample = path.with_suffix(".npz")
        for layout in ("ensemble", "fused"):
            asked = ProtectOptions(
                name=f"{path.stem}_{layout}",
                layout=layout,
                sample=sample if sample.exists() else None,
            )
            protect(path, folder / "models", SHIPPED, asked)
    return folder / "models"


def copied(protected, tmp_path, *names):
    repository = tmp_path / "models"
    for folder in protected.iterdir():
        if folder.name.startswith(names):
            shutil.copytree(folder, repository / folder.name)
    return repository


def ready(ports, model, repository, key):
    """Run the health check as the Dockerfile does; return its exit code and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "postprocess.ready", model,
         "--url", f"http://127.0.0.1:{ports.http}"],
        capture_output=True, text=True, check=False, timeout=120, cwd="/",
        env={**os.environ, "MODEL_REPOSITORY": str(repository), "TRITON_KEY_FILE": str(key)},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(SECRET)
    return path


@pytest.fixture(scope="module")
def shut(protected, tmp_path_factory):
    log = tmp_path_factory.mktemp("shut") / "triton.log"
    with TritonServer(protected, ports=free_ports(), log=log, secret=SECRET) as running:
        yield running


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("kind", ["plain", "one", "labels", "alone", "words", "tokens"])
def test_every_kind_of_model_is_ready_in_both_layouts(shut, protected, key, kind, layout):
    assert ready(shut.ports, f"{kind}_{layout}", protected, key) == (0, "")


@pytest.fixture
def changing(protected, tmp_path):
    """Return a server whose models are loaded anew on demand, and its repository."""
    repository = copied(protected, tmp_path, "plain")
    log = tmp_path / "triton.log"
    options = {"ports": free_ports(), "log": log, "secret": SECRET, "control_mode": "explicit"}
    with TritonServer(repository, **options) as running:
        yield running, repository


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_no_protected_model_is_ready_without_its_defence(changing, protected, key):
    server, repository = changing

    def check(model):
        return ready(server.ports, model, repository, key)

    config = repository / "plain_ensemble_reverse_sigmoid" / "config.pbtxt"
    raw = protected / "plain_ensemble_classifier" / "1" / "model.onnx"
    fused = repository / "plain_fused"
    with connect(server.grpc_url, Access(triton_key=SECRET)) as client:
        assert check("plain_ensemble") == check("plain_fused") == (0, "")

        edit(config, '"reverse_sigmoid" }', '"none" }')
        client.load_model(config.parent.name)
        code, said = check("plain_ensemble")
        assert code == 1
        assert "says defense none, so nothing protects it" in said
        edit(config, '"none" }', '"reverse_sigmoid" }')
        client.load_model(config.parent.name)
        assert check("plain_ensemble") == (0, "")

        bare = bare_ensemble("plain_ensemble", repository)
        client.load_model("plain_ensemble", config=bare)
        assert check("plain_ensemble")[0] == 1

        # A graph that holds no defence, and a configuration that still says it does or does not.
        shutil.copyfile(raw, fused / "1" / "model.onnx")
        without = fused / "config.pbtxt"
        lines = without.read_text().splitlines()
        without.write_text("\n".join(line for line in lines if "reverse_sigmoid_fused" not in line))
        client.load_model("plain_fused")
        assert check("plain_fused")[0] == 1


def bare_ensemble(name, repository):
    """Return a configuration of the ensemble, as JSON, whose answer is the victim's."""
    from google.protobuf.json_format import MessageToDict

    from deploy.repository import model_config

    config = model_config.read(repository / name / "config.pbtxt")
    output = config.output[0].name
    del config.ensemble_scheduling.step[1]
    victim = config.ensemble_scheduling.step[0]
    victim.output_map[output] = output
    return json.dumps(MessageToDict(config, preserving_proto_field_name=True))


def test_a_fused_graph_that_says_it_defends_and_does_not_is_told_by_its_answer(
    changing, protected, key
):
    import onnx

    server, repository = changing
    path = repository / "plain_fused" / "1" / "model.onnx"
    model = onnx.load(path)
    raw = onnx.load(protected / "plain_ensemble_classifier" / "1" / "model.onnx")
    raw.metadata_props.extend(model.metadata_props)
    onnx.save(raw, path)
    with connect(server.grpc_url, Access(triton_key=SECRET)) as client:
        client.load_model("plain_fused")
    code, said = ready(server.ports, "plain_fused", repository, key)
    assert code == 1
    assert said.startswith("not ready: plain_fused: answered ")


@pytest.mark.parametrize("model", ["plain_ensemble_reverse_sigmoid", "plain_fused"])
def test_a_defence_whose_process_is_gone_is_not_ready(changing, key, model):
    server, repository = changing
    for stub in server.stubs()[model]:
        os.kill(stub, signal.SIGKILL)
    public = model.removesuffix("_reverse_sigmoid")
    code, said = ready(server.ports, public, repository, key)
    assert code == 1
    assert said.startswith(f"not ready: {public}/infer: ")


def test_a_damaged_question_is_not_ready_and_says_so(shut, protected, key, tmp_path):
    repository = copied(protected, tmp_path, "plain")
    path = repository / "plain_fused" / FILE
    path.write_text(path.read_text()[:100])
    code, said = ready(shut.ports, "plain_fused", repository, key)
    assert code == 1
    assert said.startswith(f"not ready: {path}: damaged: ")
    assert "write it anew with reverse-sigmoid protect --force" in said


def test_a_repository_of_before_is_asked_made_up_questions(shut, tmp_path, key):
    for model in ("plain_ensemble", "plain_fused", "one_ensemble", "words_ensemble"):
        assert ready(shut.ports, model, tmp_path, key) == (0, "")


# serve


class Watching(Running):
    """``reverse-sigmoid serve`` of a repository, with a status file."""

    def __init__(self, repository, *options, cwd):
        self.repository, self.ports = repository, free_ports()
        self.status_file = cwd / "status.json"
        options = (*port_options(self.ports), "--status-file", self.status_file, *options)
        super().__init__("serve", repository, *options, cwd=cwd)
        self.wait_for("Ctrl-C stops")

    @property
    def said(self):
        return self.stderr.read_text()

    @property
    def status(self):
        return json.loads(self.status_file.read_text())

    def model(self, name):
        return self.status["models"][name]


def test_a_model_that_takes_no_made_up_question_is_served_and_stops_no_other(protected, tmp_path):
    repository = copied(protected, tmp_path, "plain", "tokens")
    for model in ("tokens_fused", "tokens_ensemble"):  # as they were written before
        (repository / model / FILE).unlink()
    with Watching(repository, cwd=tmp_path) as serving:
        states = {name: one["state"] for name, one in serving.status["models"].items()}
        assert states == {
            "plain_ensemble": "ready",
            "plain_fused": "ready",
            "tokens_ensemble": "ready",
            "tokens_fused": "unwatched",
        }
        asked = {name: one["question"] for name, one in serving.status["models"].items()}
        assert asked == {
            "plain_ensemble": "kept",
            "plain_fused": "kept",
            "tokens_ensemble": "defence alone",
            "tokens_fused": "none",
        }
        assert serving.said.count("tokens_fused: no probe input works") == 1
        said = "UNWATCHED except for its process; protect it again, with rows of yours"
        assert said in serving.said
        for stub in stubs_of(repository, "tokens_fused"):
            os.kill(stub, signal.SIGKILL)
        serving.wait_for("tokens_fused: answers again")
        assert stubs_of(repository, "tokens_fused")
        assert serving.stop() == 0
    wait_for_no_process_naming(repository)


def test_a_model_that_needed_a_sample_is_watched_by_a_row_of_it(protected, tmp_path):
    repository = copied(protected, tmp_path, "tokens")
    with Watching(repository, cwd=tmp_path) as serving:
        for name in ("tokens_ensemble", "tokens_fused"):
            assert (serving.model(name)["state"], serving.model(name)["question"]) == (
                "ready",
                "kept",
            )
        assert "warning" not in serving.said
        assert serving.stop() == 0


@pytest.fixture(scope="module")
def plain(protected, tmp_path_factory):
    """Both layouts served; each test leaves them ready, and the first needs that none failed."""
    folder = tmp_path_factory.mktemp("plain")
    with Watching(copied(protected, folder, "plain"), cwd=folder) as serving:
        yield serving
        assert serving.stop() == 0


def test_retuned_in_either_layout_it_stays_ready(plain, tmp_path):
    for model in ("plain_ensemble", "plain_fused"):
        done = call_command("retune", plain.repository / model, "--beta", 0.3, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        plain.wait_until(lambda m=model: plain.model(m)["parameters"]["beta"] == "0.3")
        url = f"http://127.0.0.1:{plain.ports.http}"
        check = [sys.executable, "-m", "postprocess.ready", model, "--url", url]
        check += ["--repository", str(plain.repository)]
        plain.wait_until(lambda c=check: subprocess.run(c, check=False).returncode == 0)
    assert "DOWN" not in plain.said
    assert "UNPROTECTED" not in plain.said
    assert plain.status["state"] == "ready"


def test_a_defence_that_is_switched_off_while_served_is_said_and_not_ready(plain):
    config = plain.repository / "plain_ensemble_reverse_sigmoid" / "config.pbtxt"
    edit(config, '"reverse_sigmoid" }', '"none" }')
    plain.wait_for("plain_ensemble: UNPROTECTED: ")
    plain.wait_until(lambda: plain.status["state"] == "failed")
    assert "says defense none" in plain.model("plain_ensemble")["reason"]
    edit(config, '"none" }', '"reverse_sigmoid" }')
    plain.wait_until(lambda: plain.status["state"] == "ready")


def test_scores_that_the_defence_refuses_are_named_and_no_restart_is_tried(plain):
    config = plain.repository / "plain_ensemble_reverse_sigmoid" / "config.pbtxt"
    restarts = plain.status["restarts"]
    edit(config, '"logits" }', '"probabilities" }')
    plain.wait_for("plain_ensemble: REFUSED by its defence: ")
    plain.wait_until(lambda: plain.status["state"] == "failed")
    assert "plain_ensemble_reverse_sigmoid: " in plain.model("plain_ensemble")["reason"]
    edit(config, '"probabilities" }', '"logits" }')
    plain.wait_until(lambda: plain.status["state"] == "ready")
    assert plain.status["restarts"] == restarts == 0


def test_a_fused_graph_that_loses_its_defence_while_served_stops_triton(protected, tmp_path):
    import onnx

    from exporters.files.atomic_file import atomic_file

    repository = copied(protected, tmp_path, "plain_fused")
    path = repository / "plain_fused" / "1" / "model.onnx"
    raw = onnx.load(protected / "plain_ensemble_classifier" / "1" / "model.onnx")
    raw.metadata_props.extend(onnx.load(path).metadata_props)
    with Watching(repository, "--max-restarts", 1, cwd=tmp_path) as serving:
        with atomic_file(path) as part:
            onnx.save(raw, part)
        assert serving.process.wait(SOON_S) == 1
        assert "plain_fused: UNPROTECTED: answered " in serving.said
        assert "reverse-sigmoid: giving up after 1 restarts of Triton" in serving.said


def test_an_ensemble_without_its_defence_is_not_served_at_all(protected, tmp_path):
    repository = copied(protected, tmp_path, "plain_ensemble")
    config = repository / "plain_ensemble" / "config.pbtxt"
    text = config.read_text()
    start, end = text.index("    },\n    {"), text.index("  ]\n}")
    config.write_text(text[:start].replace('value: "victim_scores"', 'value: "scores"')
                      + "    }\n" + text[end:])  # fmt: skip
    done = run_command("serve", repository, *port_options(free_ports()), cwd=tmp_path)
    assert done.returncode == 1
    assert "plain_ensemble: UNPROTECTED: " in done.stderr
    wait_for_no_process_naming(repository)


def test_a_triton_that_runs_and_dies_comes_back_more_often_than_max_restarts(protected, tmp_path):
    repository = copied(protected, tmp_path, "plain_fused")
    with Watching(repository, "--max-restarts", 1, cwd=tmp_path) as serving:
        for number in (1, 2, 3):
            os.kill(serving.status["triton_pid"], signal.SIGKILL)
            serving.wait_until(lambda n=number: serving.said.count("answers again") >= n)
            serving.wait_until(lambda n=number: serving.status["restarts"] == n)
            serving.wait_until(lambda: serving.status["state"] == "ready")
        assert serving.stop() == 0

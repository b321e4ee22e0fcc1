"""Models that stand in a repository, protected and given back under a server that polls it."""

import json
import threading
import time

import existing_models
import numpy as np
import oracle
import pytest
from commands import SOON_S, call_command
from existing_models import contents
from ports import free_ports
from tritonclient.grpc import InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from deploy.existing import protecting
from deploy.triton.server import TritonServer
from exporters.reading import evidence
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED
from load_tests.asking.endpoint import connect
from postprocess.errors import InputError

GPUS = "instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]\n"
SETTINGS = {"beta": 1.5, "gamma": 0.2, "margin": 0.01, "preserve_top1": True}
X = np.random.default_rng(5).normal(size=(7, 6)).astype(np.float32)
PROBABILITIES, LOGITS = ("probabilities", -1), ("logits", -1)
#: How long Triton, which looks every second, may take until it serves what has moved.
TAKEN_UP_S = 5
#: Model to its writer, its input, and its outputs: what their scores are, and the classes' axis.
MODELS = {
    "versioned": (existing_models.versioned, {"x": X}, {"scores": PROBABILITIES}),
    "halves": (existing_models.halves, {"x": X.astype(np.float16)}, {"scores": LOGITS}),
    "one": (existing_models.one_class, {"x": X}, {"scores": PROBABILITIES}),
    "places": (existing_models.places, {"x": X.reshape(1, 7, 6)}, {"scores": PROBABILITIES}),
    "pixels": (
        existing_models.pixels, {"x": X.reshape(2, 3, 1, 7)}, {"scores": ("probabilities", 1)},
    ),
    "py": (existing_models.python, {"x": X}, {"out": LOGITS}),
    "pipe": (existing_models.pipeline, {"raw": X}, {"answer": LOGITS}),
    "bare": (existing_models.bare, {"x": X[:4]}, {"scores": LOGITS}),
    "completing": (existing_models.completing, {"x": X}, {"out": LOGITS}),
    "face": (existing_models.heads, {"x": X}, {"age": PROBABILITIES, "gender": LOGITS}),
    "faces": (existing_models.of_heads, {"raw": X}, {"years": PROBABILITIES, "sex": LOGITS}),
}  # fmt: skip
#: Those with a label that follows from the top class, and what is dropped.
LABELLED = {
    "py": (["label"], ["second"]), "completing": (["label"], []), "face": (["old"], []),
}  # fmt: skip


def infer(client, name):
    """Return a model's answers, by output."""
    inputs = []
    for key, array in MODELS[name][1].items():
        given = InferInput(key, array.shape, np_to_triton_dtype(array.dtype))
        given.set_data_from_numpy(array)
        inputs.append(given)
    answer = client.infer(name, inputs, client_timeout=60)
    return {output: answer.as_numpy(output) for output in MODELS[name][2]}


class Clients:
    """One for each model; their failures and answers are kept.

    They ask twenty times a second from when a model has moved in the repository until Triton has
    taken that up, where a request can fail, and twice a second while models are looked into.
    """

    def __init__(self, server):
        self.url, self.repository = server.grpc_url, server.repository
        self.failed, self.answers = [], {name: None for name in MODELS}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(name,)) for name in MODELS]

    def _ask(self, name):
        with connect(self.url) as client:
            while not self._stop.is_set():
                try:
                    self.answers[name] = infer(client, name)
                except InferenceServerException as error:
                    self.failed.append((name, str(error)))
                moved = time.time() - self.repository.stat().st_mtime < TAKEN_UP_S
                self._stop.wait(0.05 if moved else 0.5)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.until(lambda: all(one is not None for one in self.answers.values()))
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until(self, true):
        deadline = time.monotonic() + SOON_S
        while not true():
            assert time.monotonic() < deadline, self.failed
            time.sleep(0.1)


def protected(raw, name):
    """What clients must get for a model's own answers, float64, by output."""
    wanted = {}
    for output, (kind, axis) in MODELS[name][2].items():
        moved = np.moveaxis(raw[output], axis, -1)
        wanted[output] = np.moveaxis(oracle.protected(moved, kind=kind, **SETTINGS), -1, axis)
    return wanted


def close(answers, wanted):
    """Say whether answers are the reference, in their own type."""
    return all(
        np.abs(answer - wanted[output].astype(answer.dtype)).max() <= 1e-6
        for output, answer in answers.items()
    )


def top(scores, kind, axis):
    """The top class of each row; of one score its side."""
    if scores.shape[axis] == 1:
        return scores > (0.5 if kind == "probabilities" else 0)
    return scores.argmax(axis)


@pytest.fixture(scope="module")
def polled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("existing")
    repository = folder / "models"
    for make, *_ in MODELS.values():
        make(repository)
    existing_models.twice(repository)
    for config in repository.glob("*/config.pbtxt"):
        if 'backend: "onnxruntime"' in config.read_text():  # of these Triton starts two by itself
            with config.open("a") as file:
                file.write("instance_group [ { count: 1 } ]\n")
    log = folder / "triton.log"
    with TritonServer(
        repository, ports=free_ports(), log=log, control_mode="poll", poll_s=1
    ) as server:
        yield folder, repository, server


def test_existing_models_are_protected_and_given_back_without_a_failed_request(polled):
    folder, repository, server = polled
    before = contents(repository)
    with connect(server.grpc_url) as client, Clients(server) as clients:
        raw = {name: infer(client, name) for name in MODELS}
        plain = [name for name, (*_, outputs) in MODELS.items() if len(outputs) == 1]
        plain.remove("pixels")
        for words in (
            [repository / name for name in plain],
            [repository / "pixels", "--class-axis", 1],
            [repository / "face", "--output", "age", "--output", "gender"],
            [repository / "faces", "--output", "years", "--output", "sex"],
        ):
            done = call_command("protect", *words, "--json", cwd=folder)
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            for one in said if isinstance(said, list) else [said]:
                name, heads = one["models"][0], one.get("heads", [one])
                found = {head["output"]: (head["scores"], head["class_axis"]) for head in heads}
                assert found == MODELS[name][2], name
                assert (one["labels"], one["dropped"]) == LABELLED.get(name, ([], []))
                assert all(head["verified_rows"] > 0 for head in heads)
        wanted = {name: protected(raw[name], name) for name in MODELS}
        clients.until(lambda: all(close(clients.answers[name], wanted[name]) for name in MODELS))
        for name, (*_, outputs) in MODELS.items():
            answer = infer(client, name)
            for output, (kind, axis) in outputs.items():
                same = top(answer[output], "probabilities", axis) == top(
                    raw[name][output], kind, axis
                )
                assert same.all(), name
        assert labelled(client) == [f"{top}" for top in raw["versioned"]["scores"].argmax(1)]
        there = [one.name for one in client.get_model_metadata("py").outputs]
        assert there == ["out", "label"]
        assert not client.is_model_ready("versioned", "1")
        assert client.is_model_ready("versioned", "3")
        assert (repository / "versioned" / "question.json").is_file()
        checked = call_command("check", repository, cwd=folder)
        assert "0 errors" in checked.stdout, checked.stdout
        models = [repository / name for name in MODELS]
        done = call_command("protect", *models, "--undo", "--url", server.grpc_url, cwd=folder)
        assert done.returncode == 0, done.stderr
        clients.until(
            lambda: all(
                np.array_equal(clients.answers[name][output], raw[name][output])
                for name in MODELS
                for output in raw[name]
            )
        )
    assert clients.failed == []
    after = {path: data for path, data in contents(repository).items() if "__pycache__" not in path}
    assert after == {path: data for path, data in before.items() if "__pycache__" not in path}


def test_each_version_of_an_ensemble_is_answered_by_the_newest_of_its_steps(polled):
    """So a model of which several versions are served cannot become an ensemble."""
    _, _, server = polled
    given = InferInput("x", X.shape, "FP32")
    given.set_data_from_numpy(X)
    with connect(server.grpc_url) as client:
        one, three, old, new = (
            client.infer(name, [given], model_version=version).as_numpy("scores")
            for name in ("twice", "twice_inner")
            for version in ("1", "3")
        )
    assert not np.allclose(old, new)
    assert np.array_equal(one, new)
    assert np.array_equal(three, new)


def test_a_server_is_asked_about_a_model_that_does_not_run_here(polled, monkeypatch):
    folder, repository, server = polled
    monkeypatch.setattr(protecting, "EMBEDDED", ())
    monkeypatch.setattr(evidence, "ENOUGH_SECONDS", np.inf)  # of a busy machine too
    out = folder / "out"
    asked = ProtectOptions()
    with pytest.raises(InputError, match=r"give --url HOST:PORT of a Triton that serves it"):
        protecting.protect(repository / "py", SHIPPED, asked, out=out)
    with pytest.raises(InputError, match=r"--url 127.0.0.1:1: "):
        protecting.protect(repository / "py", SHIPPED, asked, out=out, url="127.0.0.1:1")
    assert not out.exists()
    done = protecting.protect(repository / "py", SHIPPED, asked, out=out, url=server.grpc_url)
    assert done.found.how == ["seen on 4096 rows"]
    assert (done.parameters[0].scores, done.found.labels, done.verified) == (
        "logits", ["label"], [0],
    )  # fmt: skip
    with (
        TritonServer(out, ports=free_ports(), log=folder / "out.log") as other,
        connect(server.grpc_url) as before,
        connect(other.grpc_url) as after,
    ):
        raw, answer = infer(before, "py"), infer(after, "py")
    assert close(answer, protected(raw, "py"))


def test_a_model_for_gpus_is_asked_and_run_without_one(tmp_path):
    folder = existing_models.linear(tmp_path / "models", more=GPUS)
    done = call_command("protect", folder, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["verified_rows"] > 0
    assert GPUS in (tmp_path / "models" / "m_classifier" / "config.pbtxt").read_text()


def test_a_server_that_serves_a_protected_model_is_not_asked_about_the_original(
    polled, tmp_path, monkeypatch
):
    _, _, server = polled
    monkeypatch.setattr(protecting, "EMBEDDED", ())
    folder = existing_models.linear(tmp_path / "models", "pipe")
    with pytest.raises(InputError, match="serves another model pipe"):
        protecting.protect(folder, SHIPPED, ProtectOptions(), url=server.grpc_url)


def labelled(client):
    """Return the class that the labels file says for each row, by its number there."""
    from tritonclient.grpc import InferRequestedOutput

    given = InferInput("x", X.shape, "FP32")
    given.set_data_from_numpy(X)
    wanted = InferRequestedOutput("scores", class_count=1)
    answer = client.infer("versioned", [given], outputs=[wanted]).as_numpy("scores")
    names = existing_models.LABELS.split()
    said = [one.decode().split(":") for one in answer.reshape(-1)]
    assert all(names[int(index)] == label for _, index, label in said)
    return [index for _, index, _ in said]


def test_undone_at_once_a_server_that_polls_goes_on_polling(tmp_path):
    """A defence that goes while Triton begins to load it would stop the poller for good."""
    repository = tmp_path / "models"
    folder = existing_models.linear(repository, "linear")
    before = contents(folder)
    log = tmp_path / "triton.log"
    told = ProtectOptions(scores="logits", multi_label=False)
    with TritonServer(
        repository, ports=free_ports(), log=log, control_mode="poll", poll_s=5
    ) as server:
        protecting.protect(folder, SHIPPED, told)
        done = call_command("protect", folder, "--undo", "--url", server.grpc_url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert contents(folder) == before
        assert [one.name for one in repository.iterdir()] == ["linear"]
        existing_models.python(repository, "later")
        deadline = time.monotonic() + SOON_S
        with connect(server.grpc_url) as client:
            while not client.is_model_ready("later"):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)

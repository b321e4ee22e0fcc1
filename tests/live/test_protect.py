"""Classifiers from the real exporters, protected by the command and served by one Triton."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import oracle
import pytest
import victims
from commands import SOON_S, call_command
from ports import free_ports
from protected_cases import CASES

from deploy.triton.server import TritonServer
from exporters.protect import protect
from exporters.reading import evidence
from exporters.reading.classifier import ProtectOptions
from exporters.repository.model_repository import SHIPPED, onnx_path
from load_tests.asking.endpoint import connect

SETTINGS = {
    "beta": SHIPPED.beta,
    "gamma": SHIPPED.gamma,
    "margin": SHIPPED.margin,
    "preserve_top1": True,
}


ROWS = (1, 2, 37, 256)


def fused(name):
    return f"{name}_fused"


@pytest.fixture(scope="module")
def protected(tmp_path_factory):
    """Every case protected in one model repository, in both layouts: the folder of the
    originals, and what was found about each."""
    folder = tmp_path_factory.mktemp("protected")
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        # Torch reads its operators again for each file, which takes longer than all else.
        once = staticmethod(cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        return folder, {name: in_both_layouts(folder, name) for name in CASES}


def in_both_layouts(folder, name):
    """Make a case's file and protect it twice; return what was found about it."""
    case, path = CASES[name], folder / name / f"{name}.onnx"
    path.parent.mkdir()
    case.make(path)
    asked = dict(case.asked)
    if "sample" in asked:
        sample = {key: array.astype(str) for key, array in case.draw(victims.rng(), 500).items()}
        asked["sample"] = path.with_suffix(".npz")
        np.savez(asked["sample"], **sample)
    in_fused = asked | {"self_contained": False, "layout": "fused", "name": fused(name)}
    with pytest.MonkeyPatch.context() as patch:
        if not case.batched:  # one row at a time, thousands take seconds
            patch.setattr(evidence, "ENOUGH_ROWS", 600)
        found = protect(path, folder / "repository", SHIPPED, ProtectOptions(**asked))
        protect(path, folder / "repository", SHIPPED, ProtectOptions(**in_fused))
    return found


@pytest.fixture(scope="module")
def triton(protected):
    folder, _ = protected
    log = folder / "triton.log"
    repository = folder / "repository"
    with TritonServer(
        repository, ports=free_ports(), log=log, startup_timeout_s=SOON_S
    ) as running:  # of many models
        yield running


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def ask(client, module, model, feed):
    """Return every output of a model by name, through the gRPC or the HTTP client."""
    from tritonclient.utils import np_to_triton_dtype

    given = []
    for name, array in feed.items():
        tensor = module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        given.append(tensor)
    result = client.infer(model, given)
    response = result.get_response()
    outputs = response["outputs"] if isinstance(response, dict) else response.outputs
    names = [one["name"] if isinstance(one, dict) else one.name for one in outputs]
    return {name: result.as_numpy(name) for name in names}


def clients(triton):
    import tritonclient.grpc
    import tritonclient.http

    yield connect(triton.grpc_url), tritonclient.grpc
    yield (
        tritonclient.http.InferenceServerClient(f"{triton.address}:{triton.ports.http}"),
        tritonclient.http,
    )


def reference(name, case, found, folder, feed):
    """Return (the answer that a client must get, the original's scores) from onnxruntime."""
    signature = found.classifier.signature
    scores = signature.scores[0].name
    flat = signature.scores[0].flat
    logits = session(onnx_path(folder / "repository", name)).run([scores], feed)[0]
    original = session(folder / name / f"{name}.onnx").run([scores], feed)[0]
    if flat:
        logits, original = logits[:, None], original[:, None]
    expected = oracle.protected(logits, kind=case.kind, multi_label=case.multi_label, **SETTINGS)
    return expected, original, logits


def top(scores, sides):
    return scores > 0.5 if sides else scores.argmax(axis=-1)


@pytest.mark.parametrize("name", CASES)
def test_what_is_found_in_the_graph(protected, name):
    _, found = protected
    case, one = CASES[name], found[name]
    assert (one.heads[0].scores.cut and one.heads[0].scores.cut.op) == case.cut
    assert one.heads[0].scores.kind == one.heads[0].parameters.scores == case.kind
    assert (
        one.heads[0].scores.multi_label == one.heads[0].parameters.multi_label == case.multi_label
    )
    assert one.heads[0].classes == case.classes
    assert one.classifier.signature.max_batch_size == (256 if case.batched else 0)
    assert tuple(label.name for label in one.classifier.signature.labels) == case.labels
    assert one.classifier.dropped == []
    assert [warning.partition(": ")[0] for warning in one.classifier.warnings] == case.warned
    assert one.heads[0].verified.rows >= 500


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("name", CASES)
def test_clients_get_equation_2_of_the_victims_scores(protected, triton, name, layout):
    folder, found = protected
    case, one = CASES[name], found[name]
    tolerance = 1e-3 if one.classifier.signature.scores[0].data_type == "TYPE_FP16" else 1e-6
    sides = case.classes == 1 or case.multi_label
    rng = np.random.default_rng(1)
    for rows in (1,) if name in ("one_row", "no_batch") else ROWS:
        feed = case.draw(rng, rows)
        expected, original, logits = reference(name, case, one, folder, feed)
        if case.cut:
            by_hand = oracle_activation(logits, case.cut)
            assert np.abs(by_hand - original).max() <= (1e-2 if tolerance == 1e-3 else 1e-6)
        public = dict(feed)
        if one.classifier.signature.inputs[0].flat:
            public = {key: array[:, None] for key, array in feed.items()}
        for client, module in clients(triton):
            served = ask(client, module, fused(name) if layout == "fused" else name, public)
            assert set(served) == {one.classifier.signature.scores[0].name, *case.labels}
            answer = served[one.classifier.signature.scores[0].name]
            assert answer.dtype == original.dtype
            assert answer.shape == original.shape
            assert np.abs(answer - expected).max() <= tolerance
            kind = original if case.cut or case.kind == "probabilities" else None
            wanted = top(original, sides) if kind is not None else original.argmax(axis=-1)
            assert np.array_equal(top(answer, sides), wanted)
            for label in case.labels:
                (own,) = session(folder / name / f"{name}.onnx").run([label], feed)
                own = [str(entry) for entry in own.reshape(-1)]
                got = [
                    entry.decode() if isinstance(entry, bytes) else str(entry)
                    for entry in served[label].reshape(-1)
                ]
                assert got == own


def oracle_activation(logits, op):
    from scipy import special

    logits = logits.astype(np.float64)
    return special.expit(logits) if op == "Sigmoid" else special.softmax(logits, axis=-1)


def test_requests_of_one_client_get_an_error_of_their_own(triton):
    """A token outside the vocabulary fails its request, not the server, and tells nothing."""
    from tritonclient.utils import InferenceServerException

    for client, module in clients(triton):
        with pytest.raises(InferenceServerException) as raised:
            ask(client, module, "texts", {"input_ids": np.array([[51]])})
        assert "failed, see the server's log" in str(raised.value)
        assert ask(client, module, "texts", {"input_ids": np.array([[49]])})


def test_requests_of_different_lengths_at_once_get_their_own_rows(protected, triton):
    folder, _ = protected
    rng = np.random.default_rng(3)
    feeds = [
        {"input_ids": rng.integers(0, 50, (1 + index % 3, 2 + index % 4))} for index in range(48)
    ]
    logits = session(onnx_path(folder / "repository", "texts"))
    expected = [
        oracle.protected(logits.run(["scores"], feed)[0], kind="logits", **SETTINGS)
        for feed in feeds
    ]
    (client, module), _ = clients(triton)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda feed: ask(client, module, "texts", feed)["scores"], feeds))
    for answer, wanted in zip(answers, expected, strict=True):
        # Merged batches of another size may change the victim's own last digit.
        assert np.abs(answer - wanted).max() <= 1e-5


def test_the_check_finds_no_error_in_what_protect_writes(protected):
    folder, _ = protected
    done = call_command("check", folder / "repository", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{4 * len(CASES)} models, 0 errors" in done.stdout + done.stderr  # 3 and a fused one


def test_external_data_stands_beside_the_graph(protected):
    folder, _ = protected
    version = folder / "repository" / "torch_external_data_classifier" / "1"
    original = folder / "torch_external_data" / "torch_external_data.onnx.data"
    assert (version / original.name).read_bytes() == original.read_bytes()


def test_a_self_contained_defence_runs_its_own_copy(protected, triton):
    folder, _ = protected
    log = (folder / "triton.log").read_text()
    copy = folder / "repository" / "flat_reverse_sigmoid" / "1" / "postprocess"
    at = [
        line.rpartition(" at ")[2].strip('"')
        for line in log.splitlines()
        if "triton-reverse-sigmoid" in line
    ]
    assert str(copy) in at
    assert len(set(at)) == 2  # all others are the installed package
    assert not (folder / "repository" / "bytes_reverse_sigmoid" / "1" / "postprocess").exists()


def test_the_command_says_what_it_found_and_json_says_the_same(protected, tmp_path):
    folder, _ = protected
    onnx = folder / "mlp" / "mlp.onnx"
    done = call_command("protect", onnx, "--repository", "models", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{onnx}, protected as mlp in models",
        "  input      X FP32 [?, 64]",
        "  output     probabilities FP32 [?, 10]: 10 classes",
        "  label      label INT64 [?, 1], passed through",
        "  victim     logits, cut before the graph's Softmax",
        "  batch      up to 256 rows; Triton merges requests",
        "  defence    beta 1.5, gamma 0.2, margin 0.01",
        "  verified   4096 rows against the original graph",
        "Next: reverse-sigmoid serve models",
    ]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    options = ("--repository", "models", "--json")
    again = call_command("protect", onnx, *options, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "reverse-sigmoid: models/mlp exists; give --force to replace it\n"
    forced = call_command("protect", onnx, *options, "--force", "--beta", "0.9", cwd=tmp_path)
    assert forced.returncode == 0, forced.stderr
    said = json.loads(forced.stdout)
    assert (said["scores"], said["cut"], said["classes"]) == ("logits", "Softmax", 10)
    assert said["models"] == ["mlp", "mlp_classifier", "mlp_reverse_sigmoid"]
    assert said["next"] == "reverse-sigmoid serve models"
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert {path.relative_to(tmp_path) for path in after if after[path] != before[path]} == {
        Path("models/mlp_reverse_sigmoid/config.pbtxt"),
        Path("models/mlp/question.json"),
    }

"""Which client may ask which model, enforced by the real gateway before the real Triton."""

import http.client
import json
import os
import shutil

import numpy as np
import pytest
from commands import run_command
from gateways import Gated
from google.protobuf.internal.encoder import _VarintBytes
from ports import free_addresses
from serving import CLASSIFIER, DEFENCE, IMAGES
from tritonclient.grpc import service_pb2

from load_tests.asking.endpoint import SERVICE, Access, Endpoint, EndpointError

OTHER = "digits_other"
#: Client to the models that it may ask.
MAY = {
    "alice": ["digits"],
    "partner": [OTHER],
    "inhouse": [CLASSIFIER, "digits"],
    "plain": ["digits"],  # has no list of its own
}
KEYS = {name: f"{name}-0123456789abcdef" for name in MAY}
MODELS = ("digits", OTHER, CLASSIFIER, DEFENCE)


def line(name, models, more=""):
    models = f", models: [{', '.join(models)}]" if models else ""
    return f"  {name}: {{key_file: {name}.key, queries: unlimited{models}{more}}}\n"


def write_operator(folder, lists):
    for name, key in KEYS.items():
        path = folder / f"{name}.key"
        path.write_text(key)
        path.chmod(0o600)
    url, statistics = free_addresses(2)
    path = folder / "operator.yaml"
    path.write_text(f"listen: {url}\nstatistics: {statistics}\ntls: off\nmodels: [digits]\n{lists}")
    return path, url


LISTS = "clients:\n" + "".join(
    line(name, None if name == "plain" else models, ", raw: true" if name == "inhouse" else "")
    for name, models in MAY.items()
)


class Files:
    def __init__(self, path, url):
        self.path, self.url = path, url


@pytest.fixture(scope="module")
def gated(exported, tmp_path_factory):
    """Two public ensembles over one classifier, behind a gateway with a list for each client."""
    folder = tmp_path_factory.mktemp("gated")
    repository = shutil.copytree(exported, folder / "model_repository")
    for name in ("digits", DEFENCE):
        other = name.replace("digits", OTHER)
        shutil.copytree(repository / name, repository / other)
        config = repository / other / "config.pbtxt"
        text = config.read_text().replace('"digits"', f'"{OTHER}"')
        config.write_text(text.replace(f'"{DEFENCE}"', f'"{OTHER}_reverse_sigmoid"'))
    files, rarely = Files(*write_operator(folder, LISTS)), ("--probe-seconds", 3600)
    with Gated(repository, files, *rarely, cwd=folder) as running:  # edits hold soon all the same
        yield running
        assert running.stop() == 0


def access(name):
    return Access(KEYS.get(name), None)


def question(model):
    """The message of gRPC, and the JSON of HTTP."""
    message = service_pb2.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="image", datatype="FP32", shape=[1, 8, 8, 1])
    message.raw_input_contents.append(IMAGES[:1].tobytes())
    data = {"name": "image", "datatype": "FP32", "shape": list(tensor.shape),
            "data": IMAGES[:1].ravel().tolist()}  # fmt: skip
    return message, json.dumps({"inputs": [data]}).encode()


def over_http(gated, name, path, body=None, headers=None, connection=None):
    connection = connection or http.client.HTTPConnection(gated.files.url, timeout=30)
    headers = {"x-api-key": KEYS[name], **(headers or {})}
    connection.request("POST" if body else "GET", path, body, headers)
    response = connection.getresponse()
    return response.status, response.read().decode(errors="replace")


def over_grpc(gated, name, method, raw, more=()):
    """Return the status, and the answer or the words of the refusal."""
    import grpc

    with grpc.insecure_channel(gated.files.url) as channel:
        call = channel.unary_unary(f"{SERVICE}/{method}")
        try:
            return "OK", call(raw, timeout=30, metadata=[("x-api-key", KEYS[name]), *more])
        except grpc.RpcError as error:
            return error.code().name, error.details()


@pytest.mark.parametrize("name", MAY)
@pytest.mark.parametrize("model", MODELS)
def test_a_client_reaches_the_models_of_its_list_and_no_other(gated, name, model):
    message, body = question(model)
    path, may = f"/v2/models/{model}", model in MAY[name]
    wanted = "OK" if may else "PERMISSION_DENIED"
    for method, raw in (
        ("ModelInfer", message.SerializeToString()),
        ("ModelMetadata", service_pb2.ModelMetadataRequest(name=model).SerializeToString()),
        ("ModelReady", service_pb2.ModelReadyRequest(name=model).SerializeToString()),
    ):
        status, said = over_grpc(gated, name, method, raw)
        assert status == wanted, (method, said)
    for where, sent in ((f"{path}/infer", body), (f"{path}/versions/1/infer", body), (path, None),
                        (f"{path}/ready", None)):  # fmt: skip
        status, said = over_http(gated, name, where, sent)
        assert status == (200 if may else 403), (where, said)
        if not may:
            assert json.loads(said)["error"] == (
                f"gateway: only inference and metadata of {', '.join(MAY[name])}, and health, "
                "are open to this key"
            )


@pytest.mark.parametrize(
    ("name", "allowed", "closed"),
    [
        ("alice", "digits", OTHER),
        ("alice", "digits", CLASSIFIER),
        ("partner", OTHER, "digits"),
        ("partner", OTHER, CLASSIFIER),
    ],
)
def test_no_odd_spelling_reaches_what_others_may_ask(gated, name, allowed, closed):
    encoded = "".join(f"%{ord(letter):02x}" for letter in closed)
    _, body = question(closed)
    for path in (
        f"/v2/models/{encoded}/infer",
        f"/v2/models/{closed[0]}%{ord(closed[1]):02X}{closed[2:]}/infer",
        f"/v2/models/{allowed}/../{closed}/infer",
        f"/v2/models/{allowed}/%2e%2e/{closed}/infer",
        f"/v2/models/{allowed}%2f..%2f{closed}/infer",
        f"//v2/models//{closed}/infer",
        f"/v2/models/{closed}/infer?x=/v2/models/{allowed}/infer",
        f"/v2/models/{closed}/infer;/v2/models/{allowed}/infer",
        f"/v2/models/{closed}/versions/1/../1/infer",
        f"/v2/models/{closed}/versions/01/infer",
        f"/v2/models/{closed}//infer",
        f"/v2//models/{closed}/versions//1/infer",
        f"/v2/./models/{closed}/infer",
        f"/v2\\models\\{closed}\\infer",
        f"/v2/models/{allowed}/..%5c{closed}/infer",
        f"/v2/models/{closed}%20/infer",
        f"/v2/models/%20{closed}/infer",
        f"/v2/models/{closed}%00/infer",
        f"/v2/models/{allowed}%00{closed}/infer",
        f"/v2/models/{closed.upper()}/infer",
        f"/V2/MODELS/{closed}/INFER",
        f"/v2/models/%2564{closed[1:]}/infer",
        f"/v2/models/{closed}/infer#/v2/models/{allowed}/infer",
        f"/v2/models/{closed}/generate",
        f"/v2/models/{closed}/config",
        f"/v2/models/{closed}/stats",
        f"/v2/repository/models/{closed}/load",
        f"http://x/v2/models/{closed}/infer",
    ):
        status, said = over_http(gated, name, path, body)
        assert status in (400, 403, 404), (path, said)
    for headers in (
        {"x-client-id": "inhouse"},
        {"x-envoy-original-path": f"/v2/models/{allowed}/infer"},
    ):
        assert over_http(gated, name, f"/v2/models/{closed}/infer", body, headers)[0] == 403
    outer = question(allowed)[0].SerializeToString()
    inner = question(closed)[0].SerializeToString()
    rename = service_pb2.ModelInferRequest(model_name=closed).SerializeToString()
    field = b"\x8a\x00"  # the same field's number, in more bytes than it needs
    padded = field + _VarintBytes(len(closed)) + closed.encode()
    for said in (inner, outer + rename, rename + outer, outer + padded, padded + outer,
                 outer + b"\x0a\x00" + rename):  # fmt: skip
        status, answer = over_grpc(gated, name, "ModelInfer", said, [("x-client-id", "inhouse")])
        if status == "OK":
            answered = service_pb2.ModelInferResponse.FromString(answer)
            assert answered.model_name == allowed
        else:
            assert status in ("PERMISSION_DENIED", "INVALID_ARGUMENT"), answer


@pytest.mark.parametrize(
    ("name", "allowed", "closed"),
    [("alice", "digits", OTHER), ("alice", "digits", CLASSIFIER), ("partner", OTHER, CLASSIFIER)],
)
def test_no_odd_name_in_a_message_and_no_other_call_reaches_them_either(
    gated, name, allowed, closed
):
    for odd in (
        f"{closed} ", f" {closed}", f"\t{closed}", f"{closed}\n", f"{closed}\0", f"{closed}/",
        f"./{closed}", f"{allowed}/../{closed}", f"{allowed}\0{closed}", f"{closed}/versions/1",
        closed.upper(), closed.title(), closed.replace("_", "%5f"), f"\ufeff{closed}",
        closed.replace("d", "\uff44", 1),
    ):  # fmt: skip
        assert over_grpc(gated, name, "ModelInfer", question(odd)[0].SerializeToString())[0] != "OK"
        assert over_grpc(gated, name, "ModelReady", service_pb2.ModelReadyRequest(
            name=odd).SerializeToString())[0] != "OK"  # fmt: skip
    inference = question(closed)[0].SerializeToString()
    for method, raw in (
        ("ModelConfig", service_pb2.ModelConfigRequest(name=closed).SerializeToString()),
        ("ModelStatistics", service_pb2.ModelStatisticsRequest(name=closed).SerializeToString()),
        ("RepositoryIndex", b""),
        ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(
            model_name=closed).SerializeToString()),
        ("ModelStreamInfer", inference),
        ("modelinfer", inference),
        ("/ModelInfer", inference),
        ("./ModelInfer", inference),
        ("%4dodelInfer", inference),
        ("ModelInfer/", inference),
        ("ModelInfer?", inference),
    ):  # fmt: skip
        status, said = over_grpc(gated, name, method, raw)
        assert status != "OK", (method, said)


def test_raw_scores_reach_whom_they_are_said_for_and_it_is_logged(gated):
    with Endpoint(gated.files.url, CLASSIFIER, access=access("inhouse")) as raw:
        scores = raw(IMAGES)
    with Endpoint(gated.files.url, "digits", access=access("inhouse")) as protected:
        answers = protected(IMAGES)
    assert np.ptp(scores) > 2  # logits
    assert (scores.argmax(axis=1) == answers.argmax(axis=1)).all()
    assert f"RAW: inhouse gets the scores of {CLASSIFIER}" in gated.stdout.read_text()

    def logged():
        lines = [json.loads(one) for one in gated.access_log.read_text().splitlines()]
        return {(one["client"], one["model"]) for one in lines if one["path"].endswith("Infer")}

    gated.wait_until(lambda: ("inhouse", f"{CLASSIFIER} (raw)") in logged())
    assert ("inhouse", "digits") in logged()
    assert not [one for one in logged() if one[1] and "(raw)" in one[1] and one[0] != "inhouse"]


def audited(gated, path):
    done = run_command(
        *("audit", "--json", "--url", gated.files.url, "--public", "digits", "--gateway", path),
        cwd=path.parent,
        env={one: value for one, value in os.environ.items() if one != "REVERSE_SIGMOID_API_KEY"},
    )
    ways = json.loads(done.stdout)["ways"]
    # Whoever else uses this machine may listen on Triton's usual ports.
    return {one["way"]: one["verdict"] for one in ways if not one["way"].startswith("port ")}


def test_the_audit_tries_each_client_on_each_model(gated):
    found = audited(gated, gated.files.path)
    assert not [way for way, verdict in found.items() if verdict not in ("closed", "works")]
    for name, models in MAY.items():
        for model in ("digits", OTHER, CLASSIFIER):
            wanted = "works" if model in models else "closed"
            over_grpc = "ModelInfer" if model in models else "infer"
            assert found[f"{name}: gRPC {over_grpc} {model}"] == wanted
            assert found[f"{name}: HTTP POST /v2/models/{model}/infer"] == wanted


def test_the_audit_finds_where_the_gateway_does_not_do_what_a_file_says(gated, tmp_path):
    for key in gated.files.path.parent.glob("*.key"):
        shutil.copy2(key, tmp_path)
    text = gated.files.path.read_text()
    text = text.replace(f"[{CLASSIFIER}, digits], raw: true", "[digits]")
    text = text.replace(f"[{OTHER}]", f"[{OTHER}, {CLASSIFIER}], raw: true")
    (tmp_path / "other.yaml").write_text(text)
    found = audited(gated, tmp_path / "other.yaml")
    assert found[f"inhouse: gRPC infer {CLASSIFIER}"] == "OPEN"
    assert found[f"inhouse: HTTP POST /v2/models/{CLASSIFIER}/versions/1/infer"] == "OPEN"
    assert found[f"partner: gRPC ModelMetadata {CLASSIFIER}"] == "FAILS"
    assert found[f"alice: gRPC infer {CLASSIFIER}"] == "closed"


def test_a_key_moved_between_lists_is_held_to_the_new_one_on_old_connections_too(gated):
    _, body = question(OTHER)
    connection = http.client.HTTPConnection(gated.files.url, timeout=30)
    path = f"/v2/models/{OTHER}/infer"
    assert over_http(gated, "partner", path, body, connection=connection)[0] == 200
    text = gated.files.path.read_text()

    def allowed(connection):
        try:
            return over_http(gated, "partner", path, body, connection=connection)[0] == 200
        except (OSError, http.client.HTTPException):
            return False  # closed: a new connection tells

    gated.files.path.write_text(text.replace(f"models: [{OTHER}]", "models: [digits]"))
    gated.wait_until(lambda: not allowed(connection))

    def refused():
        try:
            return over_http(gated, "partner", path, body)[0] == 403
        except (OSError, http.client.HTTPException):
            return False

    gated.wait_until(refused)
    assert not allowed(connection)
    gated.files.path.write_text(text)
    gated.wait_until(lambda: allowed(None))


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (f"clients:\n{line('alice', ['digts'])}",
         f"models: digts, for alice, is no protected model of this repository; those are "
         f"digits, {OTHER}"),
        (f"clients:\n{line('alice', [CLASSIFIER])}",
         "raw scores are for a client with a list of its own and raw: true"),
        (f"clients:\n{line('alice', ['digits'], ', raw: true')}",
         "clients: alice: raw: expected a model without a defence in its list, got digits, all "
         "protected; leave raw out"),
        (f"clients:\n{line('alice', ['digits_clasifier'], ', raw: true')}",
         "models: digits_clasifier is no model of this repository; those are digits, "),
    ],
)  # fmt: skip
def test_an_edit_that_opens_nonsense_changes_nothing_and_is_said(gated, lists, said):
    text = gated.files.path.read_text()
    gated.files.path.write_text(text.split("clients:")[0] + lists)
    try:
        gated.wait_until(lambda: said in gated.said)
        _, body = question(OTHER)
        assert over_http(gated, "partner", f"/v2/models/{OTHER}/infer", body)[0] == 200
        with pytest.raises(EndpointError, match="are open to this key"):
            Endpoint(gated.files.url, CLASSIFIER, access=access("alice"))
    finally:
        before = gated.said.count("the gateway takes")
        gated.files.path.write_text(text)
        gated.wait_until(lambda: gated.said.count("the gateway takes") > before)

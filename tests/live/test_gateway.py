"""The real Envoy before the real Triton: the only door, and what happens when it is hurt."""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from commands import call_command, run_command
from gateways import BUDGET, KEYS, Gated, write_files
from onnx import TensorProto, helper
from serving import DEFENCE, IMAGES, read_url, stubs_of

from load_tests.asking.endpoint import Endpoint, EndpointError, connect
from load_tests.timing.overhead import OverheadOptions, measure

DEPLOY = Path(__file__).parents[2] / "deploy"
SECONDS = 12  # that one request may take
BIG = 2_600_000  # floats in a row of the big model: more than 10 MB


def big_model(path):
    """A classifier whose one row of input has more than 10 MB; its logits are the first ten."""
    slices = [helper.make_tensor(name, TensorProto.INT64, [1], [value])
              for name, value in (("start", 0), ("end", 10), ("axis", 1))]  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Slice", ["row", "start", "end", "axis"], ["logits"])],
        "big",
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["batch", BIG])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        slices,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def gated(exported, tmp_path_factory):
    """Two protected models behind one gateway, with TLS."""
    folder = tmp_path_factory.mktemp("gated")
    repository = shutil.copytree(exported, folder / "model_repository")
    config = repository / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 256", "max_batch_size: 1"))
    big_model(folder / "big.onnx")
    # Rows to be seen and verified by: of random ones it takes as many as 10 s give.
    np.savez(folder / "rows.npz", row=np.random.default_rng(0).random((4, BIG), np.float32))
    done = call_command(
        *("protect", folder / "big.onnx", "--repository", repository, "--sample", "rows.npz"),
        *("--scores", "logits", "--max-batch-size", 2, "--max-client-batch", 1),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    more = f"limits: {{timeout_seconds: {SECONDS}}}\n"
    files = write_files(folder, models=("digits", "big"), more=more)
    with Gated(repository, files, cwd=folder) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def bob(gated):
    with Endpoint(gated.files.url, "digits", access=gated.files.access("bob")) as endpoint:
        yield endpoint


def http(gated, method, path, body=None, *, client="bob"):
    """Return status, headers and text of a request over HTTP and TLS."""
    request = urllib.request.Request(
        f"https://{gated.files.url}{path}", method=method, data=body,
        headers={"x-api-key": KEYS[client]} if client else {},
    )  # fmt: skip
    context = ssl.create_default_context(cafile=gated.files.ca)
    handler = urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, dict(response.headers), response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read().decode()


def status(gated, client):
    """Return what a client is told, None while Envoy is being exchanged."""
    try:
        return http(gated, "GET", "/v2/models/digits", client=client)[0]
    except OSError:
        return None


def question(rows=1):
    tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 8, 8, 1]}
    data = np.repeat(IMAGES[:1], rows, axis=0).ravel().tolist()
    return json.dumps({"inputs": [tensor | {"data": data}]}).encode()


def audit(*arguments, cwd, key="bob"):
    environment = {**os.environ, "REVERSE_SIGMOID_API_KEY": KEYS[key]}
    return run_command("audit", "--json", *arguments, cwd=cwd, env=environment)


def test_the_audit_finds_every_way_closed_and_every_needed_call_working(gated, tmp_path):
    done = audit(
        *("--url", gated.files.url, "--public", "digits", "--tls-ca", gated.files.ca),
        *("--port", gated.files.statistics.split(":")[1]),
        cwd=tmp_path,
    )
    found = json.loads(done.stdout)
    bad = [one for one in found["ways"] if one["verdict"] in ("OPEN", "FAILS")]
    # Whoever else uses this machine may listen on Triton's usual ports.
    bad = [one for one in bad if not one["way"].startswith("port ")]
    assert bad == []
    assert sum(one["verdict"] == "works" for one in found["ways"]) == 8
    assert len(found["ways"]) > 120


def test_the_audit_of_a_bare_server_finds_its_ways_open(server, tmp_path):
    done = audit(
        *("--url", server.grpc_url, "--http-url", f"127.0.0.1:{server.ports.http}"),
        *("--public", "digits", "--port", server.ports.metrics),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    found = {one["way"]: one["verdict"] for one in json.loads(done.stdout)["ways"]}
    for way in (
        "gRPC infer digits_classifier",
        "gRPC digits, renamed in the same message to digits_classifier",
        "gRPC stream digits_classifier",
        "gRPC config digits_reverse_sigmoid",
        "gRPC repository index",
        "gRPC SystemSharedMemoryRegister",
        "HTTP POST /v2/models/digits_classifier/infer",
        "HTTP GET /v2/logging",
        "gRPC ModelInfer digits, no key",
        f"port {server.ports.metrics}",
    ):
        assert found[way] == "OPEN", way
    assert sum(verdict == "OPEN" for verdict in found.values()) > 60


def test_tritonclient_over_http_and_curl_work_through_it(gated, bob):
    from tritonclient import http as client_of_http

    tls = {"ssl_context_factory": lambda: ssl.create_default_context(cafile=gated.files.ca)}
    with client_of_http.InferenceServerClient(gated.files.url, ssl=True, **tls) as client:
        tensor = client_of_http.InferInput("image", [1, 8, 8, 1], "FP32")
        tensor.set_data_from_numpy(IMAGES[:1])
        headers = {"x-api-key": KEYS["bob"]}
        answer = client.infer("digits", [tensor], headers=headers).as_numpy("scores")
    assert np.abs(answer - bob(IMAGES[:1])).max() < 1e-6
    curl = subprocess.run(
        [
            *("curl", "--silent", "--cacert", gated.files.ca, "-H", f"x-api-key: {KEYS['bob']}"),
            *("--data-binary", "@-", f"https://{gated.files.url}/v2/models/digits/infer"),
        ],
        input=question(),
        capture_output=True,
        check=True,
    )
    (output,) = json.loads(curl.stdout)["outputs"]
    assert np.abs(np.array(output["data"]) - answer[0]).max() < 1e-6


def test_requests_of_more_than_ten_megabytes_pass_one_after_the_other(gated):
    from tritonclient import grpc

    row = np.zeros((1, BIG), np.float32)
    row[0, 3] = 4
    with connect(gated.files.url, gated.files.access("bob")) as client:
        tensor = grpc.InferInput("row", row.shape, "FP32")
        tensor.set_data_from_numpy(row)
        for _ in range(5):
            scores = client.infer("big", [tensor]).as_numpy("logits")
            assert scores.argmax() == 3
            assert abs(scores.sum() - 1) < 1e-5
    assert "big: " not in gated.said  # serve asks such questions itself


def test_a_request_beyond_the_limit_is_refused_with_the_limit(gated):
    status, _, said = http(gated, "POST", "/v2/models/digits/infer", b"x" * (17 * 2**20))
    assert (status, json.loads(said)) == (
        413,
        {"error": "gateway: the request is larger than 16 MiB"},
    )


def test_a_spent_budget_says_when_it_renews_and_no_query_is_over(gated, bob):
    answered, refused = collections.Counter(), set()
    access = gated.files.access("alice")

    def ask():
        with Endpoint(gated.files.url, "digits", access=access) as alice:
            for _ in range(10):
                try:
                    alice(IMAGES[:1])
                    answered["alice"] += 1
                except EndpointError as error:
                    refused.add((error.status, str(error)))

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered["alice"] == BUDGET
    ((status, said),) = {(status, said.split("granted")[0]) for status, said in refused}
    assert status == "RESOURCE_EXHAUSTED"
    assert "the query budget or rate limit of this API key is spent" in said
    assert all("granted in 86" in said for _, said in refused)  # 86400 s / 100 queries
    code, headers, text = http(gated, "POST", "/v2/models/digits/infer", question(),
                               client="alice")  # fmt: skip
    assert code == 429
    assert "spent" in text
    assert 0 < int(headers["x-ratelimit-reset"]) <= 864
    code, headers, _ = http(gated, "POST", "/v2/models/digits/infer", question())
    assert code == 200  # somebody else's key
    assert not [name for name in headers if "ratelimit" in name]


def test_statistics_tell_who_asked_how_much(gated, bob):
    bob(IMAGES[:1])
    said = read_url(f"http://{gated.files.statistics}/stats/prometheus")
    assert 'envoy_virtual_cluster="bob"' in said
    lines = [json.loads(line) for line in gated.access_log.read_text().splitlines()]
    assert any(line["client"] == "bob" and line["status"] == 200 for line in lines)
    assert not any(key in gated.access_log.read_text() for key in KEYS.values())


def test_dashboard_and_alerts_ask_for_metrics_that_exist(gated, bob):
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "protected_triton.json").read_text())
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for group in rules for rule in group["rules"]]
    names = set(re.findall(r"\b(?:reverse_sigmoid|nv|envoy)_\w+", " ".join(asked)))
    labels = {
        *("envoy_virtual_cluster", "envoy_local_http_ratelimit_prefix"),
        *("envoy_cluster_name", "envoy_response_code_class"),
    }
    time.sleep(1.1)  # the defence sends its metrics once a second
    bob(IMAGES[:1])
    said = read_url(f"http://127.0.0.1:{gated.ports.metrics}/metrics")
    said += read_url(f"http://{gated.files.statistics}/stats/prometheus")
    served = {re.split(r"[{ ]", line)[0] for line in said.splitlines() if line[:1] != "#"}
    assert len(names - labels) > 10
    assert names - labels - served == set()


@pytest.mark.parametrize(
    ("rows", "model", "said"),
    [
        (2, "digits", "batch-size must be <= 1 for 'digits'"),
        (1, "digits_classifier", "only inference and metadata of digits, big"),
    ],
)
def test_refusals_say_what_is_wrong_and_name_no_inner_model(gated, rows, model, said):
    path = f"/v2/models/{model}/infer"
    status, _, text = http(gated, "POST", path, question(rows))
    assert status in (400, 403)
    assert said in text
    assert "_classifier" not in text
    assert "/" not in text.replace("</", "")


def test_a_failure_inside_names_nothing(gated):
    with connect(gated.files.url, gated.files.access("bob")) as client:
        from tritonclient.utils import InferenceServerException

        with pytest.raises(InferenceServerException) as caught:
            client.get_model_metadata("digits", "7")
    assert caught.value.message() == "gateway: the model server failed on this request"


def test_half_sent_requests_are_dropped_and_do_not_keep_others_out(gated, bob):
    context = ssl.create_default_context(cafile=gated.files.ca)
    host, port = gated.files.url.split(":")
    held = []
    for _ in range(50):
        one = context.wrap_socket(socket.create_connection((host, int(port))),
                                  server_hostname="localhost")  # fmt: skip
        one.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\nx-api")
        held.append(one)
    assert bob(IMAGES[:1]).shape == (1, 10)
    held[0].settimeout(20)
    began = time.monotonic()
    said = held[0].recv(4096)
    assert time.monotonic() - began < 15
    assert b"HTTP/1.1 408" in said or said == b""
    for one in held:
        one.close()


def test_half_open_streams_end_and_do_not_keep_others_out(gated, bob):
    from grpc import RpcError, secure_channel, ssl_channel_credentials

    held, ended = threading.Event(), []

    def nothing_more():
        yield b""
        held.wait(60)

    def hold(channel):
        ask = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with contextlib.suppress(RpcError):
            ended.append(ask(nothing_more(), metadata=[("x-api-key", KEYS["bob"])]))
        ended.append(None)

    with secure_channel(
        gated.files.url, ssl_channel_credentials(gated.files.ca.read_bytes())
    ) as channel:
        threads = [threading.Thread(target=hold, args=(channel,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        assert bob(IMAGES[:1]).shape == (1, 10)
        for thread in threads:
            thread.join(SECONDS + 20)
        held.set()
    assert ended == [None] * 20


def test_triton_itself_answers_nobody_without_the_key(gated):
    with pytest.raises(EndpointError, match="restricted"):
        Endpoint(f"127.0.0.1:{gated.ports.grpc}", "digits_classifier")


def test_overhead_is_measured_through_it_with_a_key_and_tls(gated):
    asked = OverheadOptions(
        url=gated.files.url, protected="digits", unprotected="digits", batches=(1,),
        concurrencies=(2,), seconds=0.5, rounds=2, seed=0, under_attack=True,
        access=gated.files.access("bob"),
    )  # fmt: skip
    report = measure(asked, stages=lambda total: lambda title: contextlib.nullcontext(None))
    (cell,) = report["cells_under_attack"]
    assert cell["protected"]["errors"] == 0
    assert report["thief"]["requests"] > 0
    assert report["thief"]["errors"] == 0


@pytest.mark.parametrize("program", ["envoy", "tritonserver", "stub"])
def test_whichever_is_killed_comes_back_and_raw_scores_never_leave(gated, bob, program):
    def running():
        if program == "stub":
            return stubs_of(gated.repository, DEFENCE)
        return gated.children(program)

    before, victims = bob(IMAGES[:1]), running()
    assert victims
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    access, answers, failures = gated.files.access("bob"), [], set()

    def answered():
        try:
            with Endpoint(gated.files.url, "digits", access=access, timeout_s=5) as endpoint:
                answers.append(endpoint(IMAGES[:1]))
        except EndpointError as error:
            failures.add(error.status)
        return bool(answers)

    gated.wait_until(answered)
    assert failures <= {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"}
    assert np.abs(answers[0] - before).max() < 1e-6
    assert running()
    assert set(running()).isdisjoint(victims)
    with pytest.raises(EndpointError, match="only inference and metadata of digits, big"):
        Endpoint(gated.files.url, "digits_classifier", access=access)


@pytest.mark.parametrize("take_away", [Path.unlink, lambda key: key.write_text("")])
def test_a_key_whose_file_is_taken_away_is_refused_until_it_is_back(gated, take_away):
    key = gated.files.path.with_name("alice.key")
    take_away(key)
    gated.wait_until(lambda: "LOCKED OUT: alice, whose key file is gone" in gated.said)
    gated.wait_until(lambda: status(gated, "alice") == 401)
    gated.wait_until(lambda: status(gated, "bob") == 200)
    key.write_text(KEYS["alice"])
    key.chmod(0o600)
    gated.wait_until(lambda: status(gated, "alice") == 200)


def test_a_revoked_key_is_refused_and_a_bad_edit_changes_nothing(gated, bob):
    key = gated.files.path.with_name("alice.key")
    key.write_text("another-0123456789abcdef")
    gated.wait_until(lambda: "the gateway takes" in gated.said)
    gated.wait_until(lambda: status(gated, "alice") == 401)
    text = gated.files.path.read_text()
    gated.files.path.write_text(text.replace("models:", "modles:"))
    gated.wait_until(lambda: "did you mean models?" in gated.said)
    assert http(gated, "POST", "/v2/models/digits/infer", question())[0] == 200

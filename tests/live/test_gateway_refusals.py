"""What the gateway refuses, and in which words: asked over a bare socket, gRPC and curl."""

import gzip
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import grpc
import numpy as np
import pytest
from gateways import BUDGET, KEYS, Gated, write_files
from serving import IMAGES
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from load_tests.asking.endpoint import Endpoint, EndpointError, connect

INFER = "/v2/models/dig.its/infer"
SERVICE = "/inference.GRPCInferenceService"
MIB = 2**20
#: Brackets that may be open at once, and bytes of what is no tensor's data.
DEEPEST, LONGEST = 64, 1024
TOO_LONG = "more than 1024 bytes; only the data of tensors may be longer"
SOON_S = 2  # well under any timeout of the gateway's, and enough for a busy machine


@pytest.fixture(scope="module")
def gated(exported, tmp_path_factory):
    """One protected model with a dot in its name, one row a request, behind the gateway."""
    folder = tmp_path_factory.mktemp("gated")
    repository = shutil.copytree(exported, folder / "model_repository")
    (repository / "digits").rename(repository / "dig.its")
    config = repository / "dig.its" / "config.pbtxt"
    text = config.read_text().replace("max_batch_size: 256", "max_batch_size: 1")
    config.write_text(text.replace('name: "digits"\n', 'name: "dig.its"\n', 1))
    files = write_files(folder, models=("dig.its",))
    with Gated(repository, files, cwd=folder) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def bob(gated):
    with Endpoint(gated.files.url, "dig.its", access=gated.files.access("bob")) as endpoint:
        yield endpoint


def opened(gated):
    """Return a connection with TLS."""
    host, port = gated.files.url.split(":")
    context = ssl.create_default_context(cafile=gated.files.ca)
    plain = socket.create_connection((host, int(port)), timeout=30)
    return context.wrap_socket(plain, server_hostname="localhost")


def ask(gated, body=b"", *, line=f"POST {INFER} HTTP/1.1", client="bob", sized=True, **headers):
    """Return the status and the text of an answer to bytes that no client library would send."""
    if sized:
        headers["content-length"] = len(body)
    if client:
        headers["x-api-key"] = KEYS[client]
    head = [line, "host: localhost", "connection: close"]
    head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with opened(gated) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        said = b""
        while more := connection.recv(65536):
            said += more
    head, _, text = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), text.decode(errors="replace")


def question(pixel=0.5, **changed):
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 8, 8, 1], "data": ["?"] * 64}
    text = json.dumps({"inputs": [tensor | changed]})
    return text.replace('"?"', str(pixel)).encode()


def deep(opening, size=200_000):
    return (opening * (size // len(opening) + 1)).encode()


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (deep("["), "application/json"),
        (deep("["), "text/plain"),
        (deep("["), "image/png"),
        (deep("[1,[1,"), "application/json"),
        (deep('{"a":'), "application/json"),
        (deep('["\\"]]]]",'), "application/json"),  # closed in strings alone
        (deep("[", 16 * MIB - 10), "application/json"),
        (b"[]" * 1000 + deep("["), "application/json"),
    ],
    ids=["brackets", "text", "image", "numbers", "objects", "strings", "16 MiB", "later"],
)
def test_json_that_would_end_triton_is_refused(gated, body, content_type):
    (before,) = gated.children("tritonserver")
    status, said = ask(gated, body, content_type=content_type)
    assert (status, said.strip()) == (
        400, f'{{"error":"gateway: the JSON is nested deeper than {DEEPEST} levels"}}'
    )  # fmt: skip
    assert gated.children("tritonserver") == [before]


def shaped(shape, key='"shape"'):
    return b'{"inputs":[{"name":"image",%s:%s,"datatype":"FP32","data":[0]}]}' % (
        key.encode(), shape.encode())  # fmt: skip


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (shaped("[268435456]"), "a shape has more elements than bytes were sent"),
        (shaped("[1, 1048576 , 1048576]"), "a shape has more elements than bytes were sent"),
        (shaped('[1],"shape" : [1099511627776]'), "a shape has more elements than bytes were sent"),
        (shaped("[-1]"), "shape: expected a list of whole numbers"),
        (shaped("[1e12]"), "shape: expected a list of whole numbers"),
        (shaped("[268435456]", r'"sh\u0061pe"'), r"letters are to be sent as they are, not as "
         r"\u0061 and the like"),
        (b'"shape":[],' * 5000, "more than 4096 shapes"),
    ],
    ids=["long", "product", "twice", "negative", "float", "escaped", "many"],
)  # fmt: skip
def test_a_shape_that_triton_would_make_room_for_is_refused(gated, body, reason):
    (before,) = gated.children("tritonserver")
    status, said = ask(gated, body)
    assert (status, json.loads(said)) == (400, {"error": f"gateway: {reason}"})
    assert gated.children("tritonserver") == [before]


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1, 15 * MIB])
@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
def test_an_identifier_is_repeated_up_to_a_kibibyte_and_refused_beyond(gated, length, sized):
    body = json.dumps({**json.loads(question()), "id": "Z" * length}).encode()
    headers = {} if sized else {"transfer_encoding": "chunked"}
    sent = body if sized else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    status, said = ask(gated, sent, sized=sized, **headers)
    if length == LONGEST:
        assert (status, json.loads(said)["id"]) == (200, "Z" * length)
    else:
        assert (status, json.loads(said)["error"]) == (400, f"gateway: a name or text: {TOO_LONG}")


@pytest.mark.parametrize(
    ("where", "named"),
    [("id", "id"), ("parameter", "parameters"), ("output", "outputs"), ("name", "an input's name")],
)
def test_grpc_bounds_every_text_that_is_no_data(gated, where, named):
    long, tensor = "Z" * (LONGEST + 1), InferInput("image", [1, 8, 8, 1], "FP32")
    tensor.set_data_from_numpy(IMAGES[:1])
    if where == "name":
        tensor = InferInput(long, [1], "FP32").set_data_from_numpy(np.zeros(1, np.float32))
    asked = {
        "id": {"request_id": long},
        "parameter": {"parameters": {"p": long}},
        "output": {"outputs": [InferRequestedOutput(long)]},
        "name": {},
    }[where]
    with connect(gated.files.url, gated.files.access("bob")) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("dig.its", [tensor], **asked)
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert refused.value.message() == f"gateway: {named}: {TOO_LONG}"
        if where != "name":
            short = "Z" * LONGEST if where == "id" else ""
            answer = client.infer("dig.its", [tensor], request_id=short).get_response()
            assert answer.id == short


def test_nesting_counts_in_the_part_that_is_json_and_nowhere_else(gated):
    body = question()
    status, said = ask(gated, body + deep("["), inference_header_content_length=len(body))
    assert "unexpected additional input data" in said  # Triton's own: it was let through
    status, said = ask(gated, deep("["), inference_header_content_length=150_000)
    assert (status, "nested deeper" in said) == (400, True)
    at_most = b"[" * DEEPEST + b"]" * DEEPEST
    assert "nested deeper" not in ask(gated, at_most)[1]
    assert "nested deeper" in ask(gated, b"[" + at_most + b"]")[1]
    quoted = json.dumps({"id": '["\\' * 1000, "inputs": []}).encode()
    assert "nested deeper" not in ask(gated, quoted)[1]


@pytest.mark.parametrize("length", ["-1", "x", "4294967297", "99999999999999999999", "1e2", "999"])
def test_a_length_of_json_that_cannot_be_is_refused(gated, length):
    body = deep("[", 500)
    status, said = ask(gated, body, inference_header_content_length=length)
    assert status == 400
    assert "inference-header-content-length: expected how many of the 501 bytes" in said


@pytest.mark.parametrize(
    "piece", ["[]", '"', "\\", '"\\', '"a', "0.12345678,", '\\"', '{"a":1},'], ids=repr
)
def test_sixteen_mib_of_anything_keep_nobody_else_waiting(gated, bob, piece):
    (before,) = gated.children("tritonserver")
    body = (piece * (16 * MIB // len(piece)))[: 16 * MIB - 10].encode()
    one = threading.Thread(target=ask, args=(gated, body))
    one.start()
    worst = 0.0
    while one.is_alive():
        began = time.monotonic()
        assert bob(IMAGES[:1]).shape == (1, 10)
        worst = max(worst, time.monotonic() - began)
    assert worst < SOON_S
    assert gated.children("tritonserver") == [before]


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"line": f"POST {INFER} HTTP/1.0"}, 426, "HTTP/1.0 is not spoken; use HTTP/1.1 or HTTP/2"),
        ({"transfer_encoding": "gzip, chunked", "sized": False}, 501,
         "of transfer encodings only chunked is taken"),
        ({"transfer_encoding": "chunked"}, 400, "no valid HTTP request"),
        ({"body": gzip.compress(question()), "content_encoding": "gzip"}, 415,
         "compressed bodies are not taken; send it without content-encoding"),
        ({"content_encoding": "br"}, 415, "send it without content-encoding"),
        ({"x_long": "x" * 70_000}, 431, "more than 60 KiB or more than 100"),
        ({"line": "GET /v2/health/live HTTP/1.1", "body": b"x" * MIB, "client": None}, 413,
         "the request is larger than 64 KiB"),
        ({"client": None}, 401, "no valid API key; send yours as x-api-key"),
        ({"line": "GET /v2/models/digXits HTTP/1.1"}, 403, "only inference and metadata of"),
        ({"body": b"hello"}, 500, "failed to parse the request JSON buffer"),
    ],
)  # fmt: skip
def test_every_odd_request_is_told_its_own_reason(gated, request_, status, said):
    got, text = ask(gated, **request_)
    assert got == status
    assert said in json.loads(text)["error"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc-web", "multipart/mixed"])
def test_the_content_type_of_json_does_not_matter(gated, content_type):
    assert ask(gated, question(), content_type=content_type)[0] == 200


def grpc_refusal(gated, method, requests, *, client="bob"):
    """Return gRPC's code and message of a call, and how long it took."""
    credentials = grpc.ssl_channel_credentials(gated.files.ca.read_bytes())
    metadata = [("x-api-key", KEYS[client])] if client else []
    began = time.monotonic()
    with grpc.secure_channel(gated.files.url, credentials) as channel:
        stream = channel.stream_stream(f"{SERVICE}/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(requests, metadata=metadata, timeout=25))
    return caught.value.code(), caught.value.details(), time.monotonic() - began


@pytest.mark.parametrize(
    ("client", "code", "said"),
    [
        ("bob", grpc.StatusCode.PERMISSION_DENIED, "streaming is not open; ask by ModelInfer"),
        (None, grpc.StatusCode.UNAUTHENTICATED, "no valid API key; send yours as x-api-key"),
    ],
)
def test_streaming_is_refused_at_once(gated, client, code, said):
    held = threading.Event()

    def one_and_wait():
        yield b""
        held.wait(30)

    got, text, took = grpc_refusal(gated, "ModelStreamInfer", one_and_wait(), client=client)
    held.set()
    assert (got, text) == (code, f"gateway: {said}")
    assert took < 10


def test_whatever_else_is_not_open_is_refused_before_it_is_sent(gated):
    held = threading.Event()

    def never():
        yield b""
        held.wait(30)

    for method in ("ModelConfig", "RepositoryModelLoad", "NoSuchMethod"):
        code, said, took = grpc_refusal(gated, method, never())
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert "only inference and metadata" in said
        assert took < 10
    held.set()


def test_grpc_without_a_message_is_refused_at_once(gated):
    began = time.monotonic()
    done = subprocess.run(
        [
            *("curl", "--silent", "--http2", "--cacert", gated.files.ca, "-X", "POST", "-i"),
            *("-H", f"x-api-key: {KEYS['bob']}", "-H", "content-type: application/grpc"),
            f"https://{gated.files.url}{SERVICE}/ModelInfer",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "grpc-message: gateway: the request has no message" in done.stdout
    assert time.monotonic() - began < 10


def test_a_compressed_message_is_told_that_it_is(gated):
    with (
        connect(gated.files.url, gated.files.access("bob")) as client,
        pytest.raises(InferenceServerException, match="compressed messages are not taken"),
    ):
        client.infer("dig.its", [], compression_algorithm="gzip")


def test_a_spent_key_is_refused_before_its_body_comes(gated):
    with Endpoint(gated.files.url, "dig.its", access=gated.files.access("alice")) as alice:
        for _ in range(BUDGET):
            alice(IMAGES[:1])
        began = time.monotonic()
        with opened(gated) as connection:
            head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEYS['alice']}\r\n"
            connection.sendall(f"{head}content-length: {15 * MIB}\r\n\r\n".encode())
            said = connection.recv(4096)
        assert said.startswith(b"HTTP/1.1 429")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("pixel", ["NaN", "1e38", "1e39"])
def test_input_that_breaks_the_model_shows_nothing_of_its_inside(gated, bob, pixel):
    status, said = ask(gated, question(pixel))
    with np.errstate(over="ignore"):
        row = np.full((1, 8, 8, 1), float(pixel), np.float32)
    with pytest.raises(EndpointError) as caught:
        bob(row)
    assert status == 400
    for text in (said, str(caught.value)):
        assert "the model refused this input; see its metadata" in text
        for inner in ("logit", "victim", "classifier", "sigmoid", "ensemble", "probabilit"):
            assert inner not in text.lower()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "picture"}, "unexpected inference input 'picture' for model 'dig.its'"),
        ({"shape": [1, 64]}, "unexpected shape for input 'image' for model 'dig.its'"),
        ({"datatype": "FP64"}, "data-type is 'FP64', but model 'dig.its' expects 'FP32'"),
        ({"data": [1]}, "Unable to parse 'data'"),
        # What only the inside is called by is not repeated, whoever says it first.
        ({"name": "victim_scores"}, "the model refused this input"),
        ({"name": "digits_classifier"}, "the model refused this input"),
    ],
)
def test_a_clients_own_mistake_is_told_as_triton_tells_it(gated, changed, said):
    assert said in ask(gated, question(**changed))[1]


@pytest.mark.parametrize("letter", ["Z", "/", "a_", "-", "'", "]", "[request id: "])
def test_a_long_identifier_costs_no_time(gated, bob, letter):
    bob(IMAGES[:1])
    with connect(gated.files.url, gated.files.access("bob")) as client:
        for length in (1500, 30_000):
            began = time.monotonic()
            with pytest.raises(InferenceServerException):
                client.infer("dig.its", [], request_id=(letter * length)[:length])
            assert time.monotonic() - began < SOON_S


def test_an_identifier_cannot_make_an_inner_error_look_harmless(gated):
    for identifier in ("unexpected inference input '", "] unexpected inference input '"):
        body = json.loads(question("1e38")) | {"id": identifier}
        assert "the model refused this input" in ask(gated, json.dumps(body).encode())[1]


def test_nobody_is_logged_under_a_name_that_he_only_claims(gated, bob):
    bob(IMAGES[:1])
    forged = {"x_client_id": "carol"}
    asked = [
        ask(gated, question(), **forged),
        ask(gated, question(), client=None, **forged),
        ask(gated, line="GET /v2/health/live HTTP/1.1", client=None, **forged),
        ask(gated, line=f"POST {INFER} HTTP/1.0", **forged),
        ask(gated, line="GET /v2/models/none HTTP/1.1", **forged),
    ]
    assert [status for status, _ in asked] == [200, 401, 200, 426, 403]
    refused = gated.access_log.with_name("access.refused.jsonl")

    def logged():
        return [json.loads(line) for path in (gated.access_log, refused)
                for line in path.read_text().splitlines()]  # fmt: skip

    gated.wait_until(lambda: {200, 401, 426, 403} <= {one["status"] for one in logged()})
    assert {one["client"] for one in logged()} <= {"alice", "bob", "(serve)", None}
    kept = [json.loads(line) for line in gated.access_log.read_text().splitlines()]
    assert {one["client"] for one in kept} <= {"alice", "bob", "(serve)"}
    assert not any(one["status"] in (401, 429) for one in kept)
    assert os.stat(gated.access_log).st_mode & 0o002 == 0

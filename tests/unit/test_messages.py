"""What a request may say beside its tensors: the gateway's reading in C against other parsers."""

import ctypes
import json
from ctypes import POINTER, c_bool, c_char_p, c_size_t

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc.service_pb2 import ModelInferRequest

from deploy.gateway.envoy import bounds

LONGEST, MOST_FIELDS, MOST_ELEMENTS = 1024, 65536, 2**20


class Text(ctypes.Structure):
    _fields_ = [("ptr", c_char_p), ("length", c_size_t)]


@pytest.fixture(scope="module")
def library():
    loaded = ctypes.CDLL(str(bounds.installed()))
    loaded.good_message.argtypes = [POINTER(Text), c_size_t, c_char_p]
    loaded.good_json.argtypes = [POINTER(Text), c_size_t, c_size_t, c_char_p]
    loaded.good_message.restype = loaded.good_json.restype = c_bool
    return loaded


def pieces(body, rng):
    """Return a body cut anywhere, with empty pieces in it."""
    cuts = sorted(rng.integers(len(body) + 1, size=rng.integers(12)).tolist())
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    return (Text * len(parts))(*(Text(part, len(part)) for part in parts)), len(parts)


def fault(library, body, *, rng=None):
    """Return what is wrong with a message, "" for nothing, however it is cut."""
    said, rng = ctypes.create_string_buffer(160), rng or np.random.default_rng(0)
    framed = b"\0" + len(body).to_bytes(4, "big") + body
    good = library.good_message(*pieces(framed, rng), said)
    assert good == (said.value == b"")
    return said.value.decode()


def json_fault(library, body, *, rng=None):
    said, rng = ctypes.create_string_buffer(160), rng or np.random.default_rng(0)
    good = library.good_json(*pieces(body, rng), len(body), said)
    assert good == (said.value == b"")
    return said.value.decode()


def asked(**fields):
    request = ModelInferRequest(model_name="m", raw_input_contents=[b"x" * 100_000], **fields)
    tensor = request.inputs.add(name="image", datatype="FP32", shape=[1, 8, 8, 1])
    tensor.contents.bytes_contents.append(b"y" * 100_000)
    return request


def change(where, text):
    """Return a request with a text in one place."""
    request = asked()
    if where in ("model_name", "model_version", "id"):
        setattr(request, where, text)
    elif where == "a parameter":
        request.parameters["p"].string_param = text
    elif where == "a parameter's name":
        request.parameters[text].bool_param = True
    elif where == "an output":
        request.outputs.add(name=text)
    elif where == "an input's parameter":
        request.inputs[0].parameters["p"].string_param = text
    else:
        setattr(request.inputs[0], where, text)
    return request.SerializeToString()


@pytest.mark.parametrize(
    "where",
    ["model_name", "model_version", "id", "a parameter", "a parameter's name", "an output",
     "an input's parameter", "name", "datatype"],
)  # fmt: skip
def test_whatever_is_no_data_is_bounded(library, where):
    assert fault(library, change(where, "Z" * 1000)) == ""
    said = fault(library, change(where, "Z" * (LONGEST + 1)))
    assert said.endswith("more than 1024 bytes; only the data of tensors may be longer")


@pytest.mark.parametrize(
    ("field", "most", "inside"),
    [(b"\x32\0", MOST_FIELDS, False), (b"\x2a\0", MOST_FIELDS, False),
     (b"\x3a\0", MOST_FIELDS, False), (b"\x42\0", MOST_ELEMENTS, True)],
    ids=["outputs", "inputs", "raw contents", "strings"],
)  # fmt: skip
def test_empty_fields_of_which_triton_makes_objects_are_counted(library, field, most, inside):
    def body(count):
        if not inside:
            return field * count
        contents = ModelInferRequest.InferInputTensor.FromString(field_of(5, field * count))
        return ModelInferRequest(inputs=[contents]).SerializeToString()

    assert fault(library, body(most - 10)) == ""
    assert f"more than {most}" in fault(library, body(most + 1))


def field_of(number, content):
    size, left = b"", len(content)
    while left > 127:
        size, left = size + bytes([left % 128 + 128]), left // 128
    return bytes([number << 3 | 2]) + size + bytes([left]) + content


def too_long(request):
    """Return whether protobuf's own reading finds a text beyond the bound."""
    texts = [request.model_name, request.model_version, request.id]
    texts += [one.ByteSize() * "x" for one in request.outputs]
    for said in request.inputs:
        texts += [said.name, said.datatype]
    return any(len(text.encode()) > LONGEST for text in texts)


def test_no_mutation_hides_a_long_text_from_the_gateway_that_protobuf_reads(library):
    rng, compared = np.random.default_rng(0), 0
    for turn in range(4000):
        where = rng.choice(["id", "model_version", "an output", "name"])
        raw = bytearray(change(where, "Z" * rng.choice([10, 1000, 1500, 20_000])))
        for _ in range(rng.integers(4)):
            at = rng.integers(min(len(raw), 200)) if turn % 2 else rng.integers(len(raw))
            raw[at] = rng.integers(256)
        try:
            seen = ModelInferRequest.FromString(bytes(raw))
        except DecodeError:
            continue
        compared += 1
        if too_long(seen):
            assert fault(library, bytes(raw), rng=rng) != ""
    assert compared > 1000


def test_a_number_spelt_long_is_still_the_identifier(library):
    text = b"Z" * (LONGEST + 1)
    assert "id: more than" in fault(library, b"\x9a\x00" + b"\x81\x88\x00" + text)


@pytest.mark.parametrize(
    "body",
    [b"\x1b", b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x1a\x05Z", b"\x1a"],
    ids=["group", "huge", "short", "no length"],
)
def test_what_is_no_message_is_refused(library, body):
    assert fault(library, body) == "the message cannot be read"


def test_json_is_bounded_in_every_text_of_an_object_and_in_no_data(library):
    def body(**changed):
        tensor = {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["y" * 100_000]}
        return json.dumps({"inputs": [tensor | changed.pop("tensor", {})], **changed}).encode()

    long = "Z" * (LONGEST + 1)
    assert json_fault(library, body(id=long[:LONGEST])) == ""
    for changed in (
        {"id": long}, {long: 1}, {"parameters": {"p": long}}, {"parameters": {long: 1}},
        {"outputs": [{"name": long}]}, {"tensor": {"name": long}}, {"tensor": {"datatype": long}},
        {"id": "\\" * LONGEST},
    ):  # fmt: skip
        assert json_fault(library, body(**changed)).startswith("a name or text: more than 1024")
    many = {"parameters": {str(number): 1 for number in range(MOST_FIELDS)}}
    assert json_fault(library, body(**many)) == "more than 65536 names and texts"


def test_json_says_the_same_however_it_is_cut(library):
    rng = np.random.default_rng(0)
    bodies = [
        b'{"shape":[2, 3]}' + b" " * 10, b'{"shape" : [99999]}', b'{"x":"shape","shape":["a"]}',
        b'{"sh\\u0061pe":[1]}', b'{"a":["shape"],"b":"\\"shape"}', b'["\\\\"]' + b"[" * 70,
        b'{"shapes":["shape", 3]}', b'{"shape":[1', b'{"shape":',
    ]  # fmt: skip
    expected = ["", "a shape has", "shape: expected", "letters are", "", "the JSON is nested", "",
                "shape: expected", "shape: expected"]  # fmt: skip
    for body, beginning in zip(bodies, expected, strict=True):
        for _ in range(50):
            said = json_fault(library, body, rng=rng)
            assert said.startswith(beginning), body
            assert bool(said) == bool(beginning), body

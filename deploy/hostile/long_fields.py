"""Long fields that Triton says again in its refusal, for filters that read refusals slowly."""

import json
import time
from collections.abc import Iterator
from typing import Any

from deploy.audit.door import INFER, Door, told
from deploy.audit.http1 import request
from deploy.hostile.crowd import crowd, turns
from deploy.hostile.heard import Heard
from deploy.hostile.wire import hear

#: The first two are short enough for the gateway to let them through.
LENGTHS = (500, 1_000, 5_000, 15_000, 55_000)
#: Each makes another pattern of a filter try again from every letter.
TEXTS = (
    "Z", "_", "-", "/", "a/", "/.", "triton", "triton-", "a_classifie", "_reverse_sigmoi", "Zé",
)  # fmt: skip


def echoed(door: Door, heard: Heard, seconds: float) -> None:
    """Send requests whose refusal holds a long text of the client's."""

    def client(number: int) -> None:
        with door.channel() as channel:
            call = channel.unary_unary(INFER)
            for turn in turns(seconds):
                length = LENGTHS[turn % len(LENGTHS)]
                text = (TEXTS[(turn // 3 + number) % len(TEXTS)] * length)[:length]
                for message in _messages(door, text):
                    began = time.monotonic()
                    kind, said = told(call, message, metadata=door.keys, timeout=5)
                    heard.answer(kind, said, after_s=time.monotonic() - began)
                for body in _bodies(door, text):
                    hear(door, request(door, body), heard)

    crowd(2, client)


def _messages(door: Door, text: str) -> Iterator[bytes]:
    from tritonclient.grpc import service_pb2

    yield service_pb2.ModelInferRequest(model_name=door.model, id=text).SerializeToString()

    def changed(change: Any) -> bytes:
        request = service_pb2.ModelInferRequest.FromString(door.message)
        change(request)
        raw: bytes = request.SerializeToString()
        return raw

    yield changed(lambda said: setattr(said, "model_version", text))
    yield changed(lambda said: setattr(said.inputs[0], "name", text))
    yield changed(lambda said: setattr(said.inputs[0], "datatype", text))
    yield changed(lambda said: said.outputs.add(name=text))
    yield changed(lambda said: said.parameters[text].CopyFrom(
        service_pb2.InferParameter(double_param=1)))  # fmt: skip
    yield changed(lambda said: said.inputs[0].parameters["shared_memory_region"].CopyFrom(
        service_pb2.InferParameter(string_param=text)))  # fmt: skip


def _bodies(door: Door, text: str) -> Iterator[bytes]:
    question = json.loads(door.body)
    (first, *rest) = question["inputs"]
    for said in (
        {"id": text, "inputs": []},
        {**question, "inputs": [{**first, "name": text}, *rest]},
        {**question, "inputs": [{**first, "datatype": text}, *rest]},
        {**question, "outputs": [{"name": text}]},
        {**question, "parameters": {"sequence_id": text, "priority": text}},
    ):
        yield json.dumps(said).encode()

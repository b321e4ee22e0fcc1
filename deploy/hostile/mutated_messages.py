"""ModelInfer messages that are almost right: fields, shapes, parameters, and the bytes of them."""

import random
from collections.abc import Callable, Sequence
from typing import Any

#: Numbers that sizes, shapes and times break on.
NUMBERS = (
    0, 1, -1, 2, 8, 255, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63),
)  # fmt: skip
DATATYPES = (
    "FP32", "FP16", "FP64", "BF16", "INT8", "INT32", "INT64", "UINT8", "UINT64", "BOOL", "BYTES",
    "", "fp32", "FP33", "STRING",
)  # fmt: skip
#: Names of parameters that mean something to Triton, somewhere.
PARAMETERS = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output",
    "binary_data", "binary_data_size", "classification", "shared_memory_region",
    "shared_memory_byte_size", "shared_memory_offset", "triton_enable_empty_final_response",
    "triton_final_response", "headers", "x-client-id", "content-length", "response_cache", "",
)  # fmt: skip
_CONTENTS = (
    "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
    "fp32_contents", "fp64_contents", "bytes_contents",
)  # fmt: skip
#: Headers that a call may bring along.
METADATA = (
    ("grpc-timeout", "1n"), ("grpc-timeout", "99999999H"), ("grpc-encoding", "gzip"),
    ("grpc-encoding", "nonsense"), ("x-client-id", "root"), ("x-envoy-retry-on", "5xx"),
    ("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-original-path", "/v2/logging"),
    ("content-length", "3"), ("triton-grpc-protocol-triton-key", "guess"), ("triton-key", "x"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)  # fmt: skip

Message = Any  # a ModelInferRequest: protobuf makes its classes at run time
Mutation = Callable[["Mutator", Message, random.Random], None]


class Mutator:
    """Makes mutated messages from one that is answered, each from its seed and number alone."""

    def __init__(self, message: bytes, *, seed: int, names: Sequence[str]) -> None:
        """Say what to begin with, and which names of models and tensors to try."""
        from tritonclient.grpc import service_pb2

        self._pb, self._seed = service_pb2, seed
        self._right = service_pb2.ModelInferRequest.FromString(message)
        self.names = (*names, self._right.model_name, self._right.inputs[0].name, "", "nothing")

    def message(self, number: int) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """Return the message of that number, and the headers that go with it."""
        rng = random.Random(f"message {self._seed} {number}")  # noqa: S311
        message = self._pb.ModelInferRequest()
        message.CopyFrom(self._right)
        if rng.random() < 0.3:
            _typed_contents(message)
        for mutate in rng.choices(_MUTATIONS, k=rng.randint(0, 3)):
            mutate(self, message, rng)
        raw: bytes = message.SerializeToString()
        for _ in range(rng.choice([0, 0, 0, 1, 2, 8])):
            raw = rng.choice(BYTES)(raw, rng)
        metadata = (rng.choice(METADATA),) if rng.random() < 0.1 else ()
        return raw, metadata

    def parameter(self, parameters: Any, rng: random.Random) -> None:
        """Set a parameter to something."""
        value = self._pb.InferParameter()
        kind = rng.choice(["bool", "int64", "string", "double", "uint64", "none"])
        if kind == "bool":
            value.bool_param = rng.random() < 0.5
        elif kind == "int64":
            value.int64_param = rng.choice(NUMBERS[:8])
        elif kind == "uint64":
            value.uint64_param = rng.choice([0, 1, 2**63, 2**64 - 1])
        elif kind == "double":
            value.double_param = rng.choice([0.0, -1.0, 1e308, float("nan"), float("inf")])
        elif kind == "string":
            value.string_param = rng.choice([*self.names, text(rng), "/dev/shm/x"])  # noqa: S108
        parameters[rng.choice([*PARAMETERS, *self.names])].CopyFrom(value)


def text(rng: random.Random) -> str:
    """Return a text that readers may stumble over."""
    letters = rng.choice(["Z", "_", "%00", "%s", "é", "\0", "../", "\U0001f600", "'\"", "\r\n"])
    return letters * rng.choice([1, 3, 50, 1000])


def _typed_contents(message: Message) -> None:
    """Say the tensor as numbers instead of bytes."""
    import numpy as np

    if message.inputs[0].datatype == "FP32" and message.raw_input_contents:
        values = np.frombuffer(message.raw_input_contents.pop(0), np.float32)
        message.inputs[0].contents.fp32_contents.extend(values)


def _parameter(self: Mutator, message: Message, rng: random.Random) -> None:
    holders = [message, *message.inputs, *message.outputs]
    for _ in range(rng.choice([1, 1, 2, 20])):
        self.parameter(rng.choice(holders).parameters, rng)


def _set(field: str, value: Callable[["Mutator", random.Random], str]) -> Mutation:
    """Return what sets a field of the first input, or of the message."""

    def mutate(self: Mutator, message: Message, rng: random.Random) -> None:
        of_input = field in ("name", "datatype")
        for one in message.inputs[:1] if of_input else [message]:
            setattr(one, field, value(self, rng))

    return mutate


def _shape(self: Mutator, message: Message, rng: random.Random) -> None:
    for one in message.inputs[:1]:
        shape = list(one.shape)
        how = rng.randrange(5)
        if how == 0 and shape:
            shape[rng.randrange(len(shape))] = rng.choice(NUMBERS)
        elif how == 1:
            shape.insert(rng.randint(0, len(shape)), rng.choice(NUMBERS))
        elif how == 2 and shape:
            shape.pop(rng.randrange(len(shape)))
        elif how == 3:
            rng.shuffle(shape)
        else:
            shape = [rng.choice(NUMBERS) for _ in range(rng.choice([0, 1, 4, 500]))]
        del one.shape[:]
        one.shape.extend(shape)


def _inputs(self: Mutator, message: Message, rng: random.Random) -> None:
    how = rng.randrange(3)
    if how == 0:
        del message.inputs[:]
    elif message.inputs:
        for _ in range(rng.choice([1, 2, 100])):
            message.inputs.add().CopyFrom(message.inputs[0])
        if how == 1 and message.raw_input_contents:
            message.raw_input_contents.append(message.raw_input_contents[0])


def _raw_contents(self: Mutator, message: Message, rng: random.Random) -> None:
    if not message.raw_input_contents:
        message.raw_input_contents.append(rng.randbytes(rng.choice([0, 1, 256])))
        return
    content = message.raw_input_contents[0]
    message.raw_input_contents[0] = rng.choice(
        [
            content[: rng.randint(0, len(content))],
            content + rng.randbytes(rng.choice([1, 4, 256, 100_000])),
            rng.randbytes(len(content)),
            b"\xff" * len(content),
            b"",
        ]
    )
    if rng.random() < 0.2:
        message.raw_input_contents.extend([content] * rng.choice([1, 3, 100]))


def _contents(self: Mutator, message: Message, rng: random.Random) -> None:
    for one in message.inputs[:1]:
        name = rng.choice(_CONTENTS)
        value = b"x" if name.startswith("bytes") else rng.randint(0, 1)
        getattr(one.contents, name).extend([value] * rng.choice([1, 63, 64, 65, 1000]))


def _outputs(self: Mutator, message: Message, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 50])):
        output = message.outputs.add(name=rng.choice([*self.names, "scores", text(rng)]))
        if rng.random() < 0.5:
            self.parameter(output.parameters, rng)


_VERSIONS = ("1", "2", "-1", "0", "01", "1.0", str(2**63))
_MUTATIONS: tuple[Mutation, ...] = (
    _set("model_name", lambda self, rng: rng.choice([*self.names, text(rng)])),
    _set("model_version", lambda self, rng: rng.choice([*_VERSIONS, text(rng)])),
    _set("id", lambda self, rng: text(rng)),
    _parameter, _parameter,
    _set("name", lambda self, rng: rng.choice([*self.names, text(rng)])),
    _set("datatype", lambda self, rng: rng.choice(DATATYPES)),
    _shape, _shape, _inputs, _raw_contents, _raw_contents, _contents, _outputs, _outputs,
)  # fmt: skip


# Of any bytes


def _flip(raw: bytes, rng: random.Random) -> bytes:
    if not raw:
        return raw
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]


def _flip_early(raw: bytes, rng: random.Random) -> bytes:
    """Hit tags and lengths, most of which come first."""
    return _flip(raw[:60], rng) + raw[60:]


def _cut(raw: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.choices(range(len(raw) + 1), k=2))
    return raw[:start] + raw[end:]


def _twice(raw: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.choices(range(len(raw) + 1), k=2))
    return raw[:end] + raw[start:end] + raw[end:]


def _insert(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(raw))
    return raw[:at] + rng.randbytes(rng.choice([1, 2, 10, 300])) + raw[at:]


def _unknown_field(raw: bytes, rng: random.Random) -> bytes:
    """Append a field that no version knows, of any wire type, or groups within groups."""
    number = rng.choice([0, 8, 100, 15000])
    tag = bytes([number << 3 & 0x7F | rng.randrange(8) | 0x80, number >> 4 & 0x7F])
    deep = b"\x0b" * rng.choice([1, 99, 101, 5000])
    return raw + rng.choice([tag + rng.randbytes(9), deep, b"\xff" * rng.choice([5, 10, 11])])


#: Mutations of bytes, whatever these are.
BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    lambda raw, rng: _flip(raw[:60], rng) + raw[60:],  # tags and lengths, most of which come first
    _cut,
    lambda raw, rng: raw[: rng.randint(0, len(raw))],
    _twice, _insert, _unknown_field,
)  # fmt: skip

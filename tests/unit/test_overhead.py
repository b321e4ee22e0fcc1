"""The measuring itself, against a server that speaks Triton's protocol and fails on demand."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from load_tests.asking.endpoint import EndpointError, connect
from load_tests.timing import interleaved
from load_tests.timing.closed_loop import ClosedLoop, Slice
from load_tests.timing.overhead import OverheadOptions, measure
from load_tests.timing.prepared import Preparer, RefusedError
from postprocess.errors import InputError

IMAGE = (("image", "FP32", (-1, 4)),)


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers without inferring; ``fails`` says of the n-th request to a model if it fails."""

    def __init__(self, inputs=IMAGE, *, most=256, delay_s=0, fails=lambda *_: False):
        self.inputs, self.most, self.delay_s, self.fails = inputs, most, delay_s, fails
        self.requests = []

    def ModelMetadata(self, request, context):  # noqa: N802
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        for name, datatype, shape in self.inputs:
            answer.inputs.add(name=name, datatype=datatype, shape=shape)
        return answer

    def ModelInfer(self, request, context):  # noqa: N802
        self.requests.append(request)
        time.sleep(self.delay_s)
        rows = request.inputs[0].shape[0]
        if rows > self.most:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"batch-size must be <= {self.most}")
        number = sum(one.model_name == request.model_name for one in self.requests)
        if self.fails(request.model_name, number):
            context.abort(grpc.StatusCode.INTERNAL, "the defence\nfailed")
        return service_pb2.ModelInferResponse(model_name=request.model_name)

    def shapes(self):
        return [tuple(tensor.shape) for tensor in self.requests[-1].inputs]


@contextmanager
def listening(triton):
    server = grpc.server(ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def measured(triton, **settings):
    with listening(triton) as url:
        asked = OverheadOptions(
            **{
                **{"url": url, "protected": "ours", "unprotected": "raw"},
                **{"batches": (1,), "concurrencies": (1,), "seconds": 0.2, "rounds": 2, "seed": 0},
                **settings,
            }
        )
        return measure(asked, stages=lambda _: lambda _: nullcontext(lambda *_: None))


def test_errors_are_counted_for_the_model_that_made_them():
    report = measured(Triton(fails=lambda model, number: model == "ours" and number % 3 == 0))
    (cell,) = report["cells"]
    assert cell["unprotected"]["errors"] == 0
    answered, errors = cell["protected"]["requests"], cell["protected"]["errors"]
    assert errors > 0
    assert errors / (answered + errors) == pytest.approx(1 / 3, abs=0.1)
    assert cell["ratio"]["requests_per_second"]["value"] > 0


@pytest.mark.parametrize("failing", [("ours",), ("ours", "raw")])
def test_a_model_that_answers_nothing_is_an_error_that_says_why(failing):
    """The first request is the one with which a batch is tried."""
    triton = Triton(fails=lambda model, number: model in failing and number > 1)
    with pytest.raises(EndpointError, match=r"model ours: all [1-9]\d* requests failed: the def"):
        measured(triton)


def test_a_model_that_fails_at_once_is_not_measured_at_all():
    with pytest.raises(EndpointError, match=r"model raw: the defence failed$"):
        measured(Triton(fails=lambda model, _: model == "raw"))


@pytest.mark.slow
def test_a_batch_that_a_model_refuses_is_skipped_and_the_others_measured():
    report = measured(Triton(most=8), batches=(16, 2, 8), concurrencies=(1, 2))
    assert [(one["batch"], one["concurrency"]) for one in report["cells"]] == [
        (2, 1), (2, 2), (8, 1), (8, 2),
    ]  # fmt: skip
    why = "ours refuses it: batch-size must be <= 8"
    assert report["skipped"] == [
        {"batch": 16, "concurrency": clients, "why": why} for clients in (1, 2)
    ]
    assert report["measuring_overhead"]["batch"] == 2


def test_there_is_an_error_where_no_batch_is_left():
    with pytest.raises(InputError, match=r"no batch is left to measure; batch 16: ours refuses"):
        measured(Triton(most=8), batches=(16, 32))


@pytest.mark.slow
def test_the_measuring_overhead_is_known_even_if_one_client_is_not_asked_for():
    report = measured(Triton(), batches=(4, 2), concurrencies=(3,))
    assert [one["concurrency"] for one in report["cells"]] == [3, 3]
    overhead = report["measuring_overhead"]
    assert (overhead["batch"], overhead["concurrency"], overhead["model"]) == (2, 1, "raw")
    assert overhead["ratio"]["value"] == pytest.approx(
        overhead["latency_p50_ms"] / overhead["bare_latency_p50_ms"]
    )


@pytest.mark.parametrize(("latency_ms", "rounds", "slice_s"), [(1, 40, 0.025), (50, 10, 0.15)])
def test_slow_requests_get_fewer_and_longer_slices(latency_ms, rounds, slice_s):
    asked = []

    def load(seconds):
        asked.append(seconds)
        return Slice(np.full(3, float(latency_ms)), seconds)

    found = interleaved.measure(
        {"ours": load, "raw": load}, seconds=1, rounds=40, rng=np.random.default_rng(0)
    )
    assert [len(slices) for slices in found.values()] == [rounds, rounds]
    assert asked[2:] == pytest.approx([slice_s] * 2 * rounds)


@pytest.mark.slow
def test_slow_requests_are_several_in_a_slice():
    slow = measured(Triton(delay_s=0.05), seconds=1, rounds=40)["cells"][0]
    assert slow["rounds"] == 10
    for role in ("protected", "unprotected"):
        assert slow[role]["requests"] >= 2 * slow["rounds"]


def test_a_server_that_tells_nothing_of_itself_is_measured_too():
    assert measured(Triton())["triton_version"] == "unknown"


@pytest.mark.slow
def test_both_models_are_asked_about_the_same_numbers_which_the_seed_draws():
    def sent(seed):
        triton = Triton()
        measured(triton, seed=seed)
        return {
            model: {
                bytes(one.raw_input_contents[0])
                for one in triton.requests
                if one.model_name == model
            }
            for model in ("ours", "raw")
        }

    first = sent(0)
    assert first["ours"] == first["raw"] == sent(0)["ours"]
    assert len(first["ours"]) == 1
    assert first["ours"] != sent(1)["ours"]


@pytest.mark.parametrize(
    ("inputs", "rows", "shapes"),
    [
        ([("a", "FP16", (-1, 3))], 5, [(5, 3)]),
        ([("a", "INT64", (-1, 2)), ("b", "BYTES", (-1, 1)), ("c", "BOOL", (-1,))], 4,
         [(4, 2), (4, 1), (4,)]),
        ([("a", "UINT8", (-1, 3, -1, -1))], 2, [(2, 3, 1, 1)]),
        ([("a", "FP32", (1, 6))], 1, [(1, 6)]),
    ],
)  # fmt: skip
def test_input_is_made_up_of_what_the_model_says_it_takes(inputs, rows, shapes):
    triton = Triton(inputs)
    with listening(triton) as url, closing(connect(url)) as client:
        request = Preparer(client, url, "m").request(rows, rng=np.random.default_rng(0))
    assert (request.rows, triton.shapes()) == (rows, shapes)
    assert [one.datatype for one in triton.requests[-1].inputs] == [one[1] for one in inputs]


def test_a_model_without_a_batch_dimension_takes_one_row_alone():
    with listening(Triton([("a", "FP32", (1, 6))])) as url, closing(connect(url)) as client:
        preparer = Preparer(client, url, "m")
        with pytest.raises(RefusedError, match="m takes no batches"):
            preparer.request(2, rng=np.random.default_rng(0))


def test_images_are_for_models_with_one_float_input():
    inputs = [("a", "FP32", (-1, 8, 8, 1)), ("b", "INT64", (-1, 1))]
    with pytest.raises(
        InputError,
        match="model ours: expected one input of floats, got a FP32, b INT64; --query-set",
    ):
        measured(Triton(inputs), data="digits")


def test_the_clients_start_together_and_none_asks_after_the_end():
    triton = Triton()
    with listening(triton) as url, ClosedLoop(url, 4) as loop:
        with closing(connect(url)) as client:
            request = Preparer(client, url, "m").request(2, rng=np.random.default_rng(0))
        done = loop.run([request], clients=3, seconds=0.3)
        asked = len(triton.requests)
        assert asked - 1 == len(done.latencies_ms) > 3
        assert 0.3 <= done.seconds < 3
        assert done.latencies_ms.sum() / 1000 <= 3 * done.seconds
        loop.run([request], clients=4, seconds=0.01)
        assert len(triton.requests) - asked >= 4

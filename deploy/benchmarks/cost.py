"""How cost grows: ``python -m deploy.benchmarks.cost --out DIR [step|start|protect|attack ...]``.

| part | measures | against |
| --- | --- | --- |
| ``step`` | the defence of a batch: the C kernel, NumPy, fused; and a mere copy | classes, rows |
| ``start`` | ``--help``, ``check``, ``protect``; ``serve`` to ready against Triton alone | |
| ``protect`` | seconds and memory of ``reverse-sigmoid protect`` | size of the ONNX file |
| ``attack`` | queries per second of the attack driver, of a live endpoint | concurrency |

Each part is a JSON file in DIR; ``COSTS.md`` and its plots are written from those that are there.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deploy.benchmarks import arguments
from deploy.benchmarks.start_cost import start
from exporters.files.atomic_file import write_json
from exporters.fusing import fused
from exporters.repository.model_repository import SHIPPED
from exporters.training import datasets
from load_tests.timing.interleaved import call_seconds
from load_tests.timing.machine import machine
from postprocess.postprocessor import Postprocessor

CLASSES = (10, 100, 1_000, 10_000, 100_000)
ROWS = (1, 32, 256)
#: Scores of one batch, at most.
MOST_SCORES = 2**24
#: Of embedding tables, in MiB; above 64 the weights stand in a file of their own.
SIZES = (1, 16, 64, 256, 1024, 2048)
#: Of one table: a tensor has to be smaller than 2 GiB.
_MOST_MIB = 1024
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
QUERIES = 4000
KERNEL, NUMPY, FUSED = "kernel", "NumPy", "fused"
#: The roof: each score is read and each answer is written to a new array, and nothing computed.
COPY = "copy"
#: How long perf counts the kernel's instructions.
_COUNTED_S = 0.3


def main() -> int:
    """Measure the parts that were asked for, write the page, and return an exit code."""
    parser = arguments.parser("cost", "--seed")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--repository", type=Path, help="of the model that is served")
    parser.add_argument("--model", default="digits", help="default: %(default)s")
    parser.add_argument("--data", default="digits", help="default: %(default)s")
    asked = parser.parse_args()
    parts = asked.parts or list(PARTS)
    if set(parts) - set(PARTS):
        parser.error(f"expected {', '.join(PARTS)}, got {' '.join(parts)}")
    serving = {"attack", "start"} & set(parts)
    if serving and asked.repository is None:
        parser.error(f"{', '.join(sorted(serving))}: needs --repository")
    asked.out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        measured = PARTS[part](asked)
        about = {"machine": machine(), "seed": asked.seed, "command": arguments.command("cost")}
        write_json(asked.out / f"{part}.json", {**about, "rows": measured}, indent=1)
    from deploy.benchmarks.cost_page import write

    print(write(asked.out))
    return 0


def step(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the median seconds of a call, ways taking turns within each round.

    And how many instructions the kernel takes for it, None where perf cannot count them.
    """
    rng = np.random.default_rng(asked.seed)
    found = []
    for classes in CLASSES:
        session = _fused_session(classes)
        for rows in ROWS:
            if rows * classes > MOST_SCORES:
                continue
            print(f"K = {classes}, {rows} rows", file=sys.stderr)
            logits = (rng.normal(size=(rows, classes)) * 3).astype(np.float32)
            ways = _ways(session, logits)
            seconds = call_seconds(ways, rounds=asked.rounds, rng=rng, at_least_s=0.001)
            found.append(
                {
                    "classes": classes,
                    "rows": rows,
                    "seconds": {name: float(np.median(each)) for name, each in seconds.items()},
                    "kernel_instructions": _instructions(ways[KERNEL]) if KERNEL in ways else None,
                }
            )
    return found


def _ways(session: Any, logits: Any) -> dict[str, Callable[[], object]]:
    native, plain = Postprocessor(SHIPPED), Postprocessor(SHIPPED, native=False)
    ways: dict[str, Callable[[], object]] = {
        COPY: logits.copy,
        NUMPY: lambda: plain(logits),
        FUSED: lambda: session.run(None, {"x": logits}),
    }
    if native.kernel is not None:
        ways[KERNEL] = lambda: native(logits)
    return ways


def _instructions(call: Callable[[], object]) -> float | None:
    """Return the instructions of a call as perf counts them, None where it does not."""
    counting = ["perf", "stat", "-x,", "-e", "instructions:u", "-p", str(os.getpid())]
    command = [*counting, "sleep", str(_COUNTED_S)]
    try:
        perf = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    except OSError:
        return None
    calls = 0
    while perf.poll() is None:
        for _ in range(10):
            call()
        calls += 10
    counted = perf.communicate()[1].partition(",")[0]
    return int(counted) / calls if counted.isdigit() else None


def _fused_session(classes: int) -> Any:
    """Return a classifier whose scores are its input, fused, in onnxruntime."""
    import onnxruntime
    from onnx import TensorProto, helper

    shape = ["rows", classes]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["scores"])],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fused.fuse(model, "scores", SHIPPED)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def protect(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds and peak memory of the command, a process of its own for each file."""
    found = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{size} MiB", file=sys.stderr)
            path = Path(folder) / "tokens.onnx"
            _write_tokens(path, size, np.random.default_rng(asked.seed))
            for layout in ("ensemble", "fused"):
                command = ["protect", str(path), "--repository", f"{folder}/{layout}"]
                seconds, peak = _run([*command, "--layout", layout])
                found.append(
                    {"mebibytes": size, "layout": layout, "seconds": seconds, "peak_mib": peak}
                )
    return found


def _write_tokens(path: Path, size: int, rng: np.random.Generator) -> None:
    """Write a classifier of token ids, nearly all of it embedding tables of so many MiB."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    width = 256
    count = -(-size // _MOST_MIB)
    tables = [f"table_{number}" for number in range(count)]
    shape = (size * 2**20 // (4 * width * count), width)
    weights = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name in tables
    ]
    head = rng.normal(size=(width, 10)).astype(np.float32)
    gathers = [helper.make_node("Gather", [name, "ids"], [f"{name}_embedded"]) for name in tables]
    graph = helper.make_graph(
        [
            *gathers,
            helper.make_node("Sum", [node.output[0] for node in gathers], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "head"], ["scores"]),
        ],
        "tokens",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [*weights, numpy_helper.from_array(head, "head")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    apart = size > 64
    onnx.save(model, str(path), save_as_external_data=apart, location="weights.bin")


#: Python code of the command line, which says last how many KiB it took. What the system says of a
#: child holds its parent's peak too.
_TELLING_ITS_PEAK = """
import atexit
from deploy.entry import main

def tell():
    with open("/proc/self/status") as status:
        (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
    print(peak)

atexit.register(tell)
main()
"""


def _run(arguments: list[str]) -> tuple[float, float]:
    """Run the command line; return its seconds and its peak resident size in MiB."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _TELLING_ITS_PEAK, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, int(done.stdout.split()[-1]) / 1024


def attack(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return queries per second of Sample, images of their own in each request."""
    from deploy.triton.server import on_free_ports
    from load_tests.asking.endpoint import Endpoint
    from load_tests.stealing.attacks.sample import sample
    from load_tests.stealing.collect import Manner, collect

    pool = datasets.load(asked.data).x_train
    pool = np.concatenate([pool] * (-(-QUERIES // len(pool))))
    found = []
    with (
        on_free_ports(asked.repository) as server,
        Endpoint(server.grpc_url, asked.model) as endpoint,
    ):
        for batch, clients in itertools.product((1, 16, 64), CONCURRENCIES):
            print(f"batch {batch}, {clients} at once", file=sys.stderr)
            plan = sample(pool, budget=QUERIES, rng=np.random.default_rng(asked.seed))
            start = time.perf_counter()
            collect(plan, endpoint, manner=Manner(batch_size=batch, concurrency=clients))
            speed = QUERIES / (time.perf_counter() - start)
            row = {"batch": batch, "concurrency": clients, "queries_per_second": speed}
            found.append(row)
    return found


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "step": step,
    "start": start,
    "protect": protect,
    "attack": attack,
}

if __name__ == "__main__":
    sys.exit(main())

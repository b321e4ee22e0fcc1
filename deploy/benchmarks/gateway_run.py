"""``reverse-sigmoid serve --gateway`` as a benchmark runs it: apart, watched, on free ports."""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from deploy.audit import target
from deploy.gateway.operator_file import Client, read
from deploy.hostile.heard import Secrets, raw
from deploy.triton.server import free_ports
from load_tests.asking.endpoint import Access, EndpointError
from postprocess.errors import InputError

STARTUP_S = 120.0
#: What has to go on with the process id that it had.
SERVERS = ("tritonserver", "envoy")


class GatewayRun:
    """One run of the command, and what it left: its log, Envoy's access log, what it said."""

    def __init__(self, repository: Path, operator: Path, folder: Path) -> None:
        """Start it; ``wait`` has to see whether it answers.

        Raises:
            InputError: the operator's file says what it must not.
        """
        self.operator, self._file = read(operator), operator
        self.access_log, self._said = folder / "access.jsonl", folder / "said.txt"
        ports = free_ports()
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    *(str(Path(sys.executable).with_name("reverse-sigmoid")), "serve"),
                    *(str(repository.resolve()), "--gateway", str(operator.resolve())),
                    *("--http-port", str(ports.http), "--grpc-port", str(ports.grpc)),
                    *("--metrics-port", str(ports.metrics)),
                    *("--access-log", str(self.access_log), "--log", str(folder / "triton.log")),
                ],
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    @property
    def url(self) -> str:
        """HOST:PORT of the gateway."""
        return f"{self.operator.listen.host}:{self.operator.listen.port}"

    @property
    def said(self) -> list[str]:
        """What the command has told the operator, by line."""
        return self._said.read_text(errors="replace").splitlines()

    def wait(self, model: str, access: Access) -> target.Target:
        """Return the model as clients see it, once it can be asked.

        Raises:
            InputError: the command has ended, or does not answer in time.
        """
        deadline = time.monotonic() + STARTUP_S
        while True:
            try:
                return target.find(self.url, self.url, model, access)
            except EndpointError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise InputError(f"serve does not answer: {error}; {self.said}") from None
                time.sleep(1)

    def servers(self) -> dict[str, list[int]]:
        """Return the process ids of Triton and Envoy now."""
        found: dict[str, list[int]] = {name: [] for name in SERVERS}
        for one in psutil.Process(self.process.pid).children(recursive=True):
            try:
                found.get(one.name(), []).append(one.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def unlimited(self, count: int) -> list[Client]:
        """Return the first so many of the operator's clients that have no budget.

        Raises:
            InputError: there are fewer.
        """
        found = [one for one in self.operator.clients if not one.budget]
        if len(found) < count:
            raise InputError(f"{self._file}: clients: expected {count} without a budget")
        return found[:count]


def drawn(found: target.Target, seed: int) -> target.Target:
    """Return the target with floats in [0, 1) to be asked about, drawn from a seed."""
    rng = np.random.default_rng(seed)
    inputs = (
        replace(one, values=rng.random(one.values.shape).astype(one.values.dtype))
        if one.datatype.startswith("FP")
        else one
        for one in found.inputs
    )
    return replace(found, inputs=tuple(inputs))


@contextmanager
def run(repository: Path, operator: Path) -> Iterator[GatewayRun]:
    """Yield the run, and end it."""
    with tempfile.TemporaryDirectory(prefix="reverse-sigmoid-benchmark-") as folder:
        running = GatewayRun(repository, operator, Path(folder))
        try:
            yield running
        finally:
            running.process.terminate()
            running.process.wait()


class VictimSession:
    """The classifier itself, in this process, to compare answers with."""

    def __init__(self, path: Path) -> None:
        """Load it.

        Raises:
            InputError: there is no such file.
        """
        import onnxruntime

        if not path.is_file():
            raise InputError(f"{path}: expected the victim's ONNX file; say --victim FILE")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (self._input, *_) = self._session.get_inputs()

    @classmethod
    def of(cls, asked: argparse.Namespace) -> "VictimSession":
        """Return the one that a benchmark was given, or that of an ensemble."""
        inner = f"{asked.model}_classifier"
        return cls(asked.victim or asked.repository / inner / "1" / "model.onnx")

    def secrets(self, model: str, rows: NDArray[Any]) -> Secrets:
        """Return what nobody may hear of a protected model that is asked about these rows."""
        names = (f"{model}_classifier", f"{model}_reverse_sigmoid", "victim_scores")
        return Secrets(names, raw(self(rows)))

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return its scores, raw."""
        scores: NDArray[Any] = self._session.run(None, {self._input.name: rows})[0]
        return scores

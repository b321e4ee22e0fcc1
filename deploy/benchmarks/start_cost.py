"""How long a command takes to begin: ``--help``, ``check``, ``protect``, and ``serve`` to ready."""

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from deploy.triton.server import TritonServer, free_ports
from load_tests.timing.interleaved import turns
from postprocess.errors import InputError

BARE, SERVE = "Triton alone", "serve"
#: What ``serve`` waits for, in this order.
STAGES = ("Python, until Triton's first line", "Triton, until it listens", "answers seen protected")

_STAMPED = re.compile(r"^[IWE](\d{4} [\d:.]+) (.*)", re.M)

#: The command line, as the installed script runs it.
_COMMAND = [sys.executable, "-c", "from deploy.entry import main; main()"]


def start(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return seconds of wall and CPU time of each command, by turns, and the stages of ``serve``.

    Args:
        asked: ``repository`` with a protected ``model``, ``rounds``, ``seed``.

    Raises:
        InputError: the model's victim has no model.onnx, which ``protect`` is to take.
    """
    victims = sorted(asked.repository.glob(f"{asked.model}_classifier/*/model.onnx"))
    if not victims:
        raise InputError(
            f"{asked.repository}/{asked.model}_classifier: expected VERSION/model.onnx"
        )
    found: dict[str, list[dict[str, Any]]] = {}
    names = ("--help", "check", "protect", BARE, SERVE)
    for turn, name in turns(names, asked.rounds + 1, np.random.default_rng(asked.seed)):
        print(f"round {turn} of {asked.rounds}: {name}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            measured = _one(name, asked.repository, victims[-1], Path(folder))
        if turn:  # the first fills the caches of the disk
            found.setdefault(name, []).append(measured)
    return [{"command": name, "rounds": found[name]} for name in names]


def _one(name: str, repository: Path, victim: Path, folder: Path) -> dict[str, Any]:
    if name == SERVE:
        return _serve(repository, folder)
    before, begun = os.times(), time.perf_counter()
    if name == BARE:
        server = TritonServer(repository, ports=free_ports(), log=folder / "triton.log")
        with server:
            return {"seconds": time.perf_counter() - begun}
    arguments = {
        "--help": ["--help"],
        "check": ["check", str(repository)],
        "protect": ["protect", str(victim), "--repository", str(folder / "models")],
    }[name]
    subprocess.run([*_COMMAND, *arguments], stdout=subprocess.DEVNULL, check=True)
    seconds, after = time.perf_counter() - begun, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return {"seconds": seconds, "cpu_seconds": cpu}


def _serve(repository: Path, folder: Path) -> dict[str, Any]:
    """Return when ``serve`` says that it is ready, and what it did until then."""
    ports, log = free_ports(), folder / "triton.log"
    options = [f"--{name}-port={port}" for name, port in vars(ports).items()]
    begun = time.time()
    with subprocess.Popen(
        [*_COMMAND, "serve", str(repository), *options, f"--log={log}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as serving:
        try:
            if not any(line.startswith("Triton") for line in serving.stdout or ()):
                raise InputError(f"serve {repository}: ended before it was ready")
            ready = time.time()
        finally:
            serving.terminate()
    times = list(_times(log.read_text(), begun))
    marks = [begun, times[0][0], next(at for at, line in times if "grpc_server" in line), ready]
    stages = [until - since for since, until in itertools.pairwise(marks)]
    return {"seconds": ready - begun, "stages": dict(zip(STAGES, stages, strict=True))}


def _times(log: str, about: float) -> Iterator[tuple[float, str]]:
    """Yield when each line of Triton's log was written, in UTC and without a year, and the line."""
    year = time.gmtime(about).tm_year
    for stamp, rest in _STAMPED.findall(log):
        moment = datetime.strptime(f"{year}{stamp}+0000", "%Y%m%d %H:%M:%S.%f%z")
        yield moment.timestamp(), rest

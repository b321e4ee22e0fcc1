"""A plan that runs in a process of its own, so that its training holds up nobody here.

In Locust all users share one thread. A network trained between two rounds of an attack would
stop them all, and in a second thread it would still take turns with them at the interpreter.

    python -m load_tests.users.plan_process FOLDER

runs the plan of FOLDER's ``attack.json``. Queries go out on stdout and answers come in on stdin:
NumPy's .npz, each after its length as 8 bytes, little-endian. No message is the end.
"""

import io
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from exporters.quiet_import import import_quietly
from load_tests.data.rows import features
from load_tests.stealing import attack_record
from load_tests.stealing.collect import Plan, drive
from load_tests.stealing.transfer_set import Queries, TransferSet
from postprocess.errors import ReverseSigmoidError

#: The process leaves the processors to the load that is being measured; an adversary would
#: train elsewhere.
NICENESS = 10


class PlanError(ReverseSigmoidError):
    """The process failed; it has said why on stderr."""


def plan_elsewhere(folder: Path) -> Plan:
    """Return the plan of a folder's ``attack.json``, run in a process of its own.

    Under gevent, waiting for that process lets others run. It ends with the plan.

    Raises:
        PlanError: in the midst of it, the process failed.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "load_tests.users.plan_process", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us alone
    ) as process:
        assert process.stdin is not None  # noqa: S101, for mypy
        assert process.stdout is not None  # noqa: S101
        try:
            while message := _receive(process.stdout):
                answers = yield Queries(message["rows"], message.get("pool_index"))
                _send(process.stdin, {"rows": answers.features, "scores": answers.scores})
            if process.wait():
                raise PlanError(f"{folder}: the attack's process failed")
        except BrokenPipeError:
            raise PlanError(f"{folder}: the attack's process is gone") from None
        finally:
            process.kill()


def _send(pipe: IO[bytes], arrays: Mapping[str, NDArray[Any]]) -> None:
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    pipe.write(struct.pack("<Q", packed.tell()) + packed.getvalue())
    pipe.flush()


def _receive(pipe: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Return the next message, an empty one where the other side is gone."""
    head = pipe.read(8)
    body = pipe.read(struct.unpack("<Q", head)[0]) if len(head) == 8 else b""
    if not body:
        return {}
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return dict(arrays)


def main(folder: Path) -> None:
    """Run the plan of a folder's ``attack.json``; returns nothing."""
    os.nice(NICENESS)
    answers, queries = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no query
    try:
        plan = attack_record.read(folder).plan()
        import_quietly("keras", "tensorflow")

        def ask(asked: Queries) -> TransferSet:
            index = {} if asked.pool_index is None else {"pool_index": asked.pool_index}
            _send(queries, {"rows": features(asked.rows), **index})
            if not (answer := _receive(answers)):
                raise BrokenPipeError
            return TransferSet(answer["rows"], answer["scores"])

        drive(plan, ask)
    except BrokenPipeError:  # nobody wants to know any more
        pass
    except ReverseSigmoidError as error:
        sys.exit(f"{folder}: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

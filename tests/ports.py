"""Ports for the servers of tests: each worker has its own, and the kernel gives them to no client.

What the kernel says is free may be another worker's, or a client's, before a server listens there.
"""

import contextlib
import itertools
import os
import random

from deploy.processes.listening import refuse_taken
from deploy.triton.server import Ports
from postprocess.errors import InputError

_EACH = 1000
_FIRST = 10_000 + _EACH * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 20)
_turns = itertools.count(random.randrange(_EACH))  # noqa: S311


def free_port():
    """Return a port that nothing listens on just now."""
    while True:
        port = _FIRST + next(_turns) % _EACH
        with contextlib.suppress(InputError):
            refuse_taken("", "127.0.0.1", port)
            return port


def free_ports():
    """Return three ports for a Triton."""
    return Ports(free_port(), free_port(), free_port())


def free_addresses(count):
    """Return addresses of loopback that nothing listens on just now."""
    return [f"127.0.0.1:{free_port()}" for _ in range(count)]

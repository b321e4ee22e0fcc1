"""The processes of a server's models, looked for in full only where one of them is gone."""

import time
from collections.abc import Iterable
from itertools import chain

from deploy.triton.server import TritonServer

#: How long what was found is believed while every process lives: a reload adds some first.
BELIEVED_S = 30.0


class Stubs:
    """Model name to the processes that run it in the Python backend."""

    def __init__(self, server: TritonServer) -> None:
        """Say whose."""
        self._server = server
        self._found: dict[str, list[int]] = {}
        self._looked = -BELIEVED_S

    def now(self, *, fresh: bool = False, of: Iterable[str] | None = None) -> dict[str, list[int]]:
        """Return the living ones; ``fresh`` finds those of a reload that has just begun too.

        Args:
            fresh: look for all of them anew.
            of: the models whose processes have to be living; by default all.
        """
        old = time.monotonic() - self._looked > BELIEVED_S
        wanted = (self._found.get(model, []) for model in (self._found if of is None else of))
        if fresh or old or not all(map(_lives, chain.from_iterable(wanted))):
            self._looked = time.monotonic()
            self._found = self._server.stubs()
        return self._found


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return bool(file.read(1))  # a zombie's is empty
    except OSError:
        return False

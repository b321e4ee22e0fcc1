"""Ways to bring a dead model back, the cheapest first, and their bound."""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from deploy.supervision.questions import ProbeError
from deploy.triton.server import ModelError, ServerError, TritonServer
from exporters.repository import versions
from postprocess.errors import InputError

#: Restarts are counted over this time.
WINDOW_S = 600
#: How long a reload may take until Triton is restarted instead, beside the poll interval.
RELOAD_S = 8.0
#: Longest wait before a restart: an attacker who crashes Triton again and again gets no more.
LONGEST_PAUSE_S = 10


def reload(server: TritonServer, dead: dict[str, ProbeError], client: Any) -> tuple[bool, str]:
    """Have Triton load dead models again.

    Returns:
        whether it was told to, and one line that says how, or why that takes a restart.
    """
    from tritonclient.utils import InferenceServerException

    names = ", ".join(dead)
    for model, how in dead.items():
        if how.silent:  # lets go of the requests that wait for it
            for pid in server.stubs().get(model, []):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    whole = f"all of Triton is restarted for {names}"
    if server.control_mode == "none":
        return False, f"{whole}: in --model-control-mode none it loads no model anew"
    for model in dead:  # in both other modes it loads only what has changed
        refused = _touch(server, model)
        if refused:
            return False, f"{whole}: {refused}; a repository that serve may write to saves that"
    touched = f"touched the files of {names}"
    if server.control_mode == "poll":
        return True, f"{touched}, for Triton to load it again"
    try:
        for model in dead:
            client.load_model(model, client_timeout=RELOAD_S)
    except InferenceServerException as error:
        return False, f"{whole}: it does not load again: {error.message()}"
    return True, f"{touched} and loaded it again"


def _touch(server: TritonServer, model: str) -> str:
    """Make the model's own file look new, config.pbtxt would not do; return why it cannot be."""
    folder = server.repository / model
    files = [
        path
        for version in versions.folders(folder)
        for path in sorted(version.glob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    try:
        for path in files:
            os.utime(path)
    except OSError as error:
        return f"{path} cannot be touched, for Triton to see a change: {error.strerror}"
    return "" if files else f"{folder} holds no file that could be touched"


class Restarts:
    """Restarts of Triton, ever slower; given up only where they do not help."""

    def __init__(self, server: TritonServer, say: Callable[[str], None], *, most: int) -> None:
        """Say what to restart, how to report it, and how many may be in vain, one by one."""
        self._server, self._say, self._most = server, say, most
        self._times: deque[float] = deque()
        self._in_vain: list[float] = []
        self.count = 0
        #: When Triton was last started again, by the monotonic clock.
        self.started_at = float("-inf")

    def restart(self, why: str, *, in_vain: bool = False) -> None:
        """Restart Triton until it runs; a model that did not load is only reported.

        Args:
            why: what is wrong.
            in_vain: whether that was so ever since the last restart. A Triton that ran and died
                may have been killed by a request: it comes back as often as that happens.

        Raises:
            ServerError: so many restarts within ``WINDOW_S`` were in vain.
        """
        if not in_vain:
            self._in_vain = []
        while True:
            now = time.monotonic()
            self._in_vain = [one for one in self._in_vain if now - one <= WINDOW_S]
            while self._times and now - self._times[0] > WINDOW_S:
                self._times.popleft()
            failed = len(self._in_vain)
            if failed >= self._most:
                raise ServerError(
                    f"giving up after {failed} restarts of Triton within "
                    f"{WINDOW_S // 60} minutes: {why}"
                )
            # Nothing is served meanwhile, above all nothing unprotected.
            self._server.stop(kill_after_s=0)
            pause_s = min(2 ** len(self._times) - 1, LONGEST_PAUSE_S)
            later = f" in {pause_s} s" if pause_s else ""
            self._say(f"restarting Triton, {failed + 1} of at most {self._most} that do not help"
                      f"{later}")  # fmt: skip
            time.sleep(pause_s)
            self._times.append(time.monotonic())
            self._in_vain.append(time.monotonic())
            self.count += 1
            try:
                self._server.start()
            except ModelError as error:
                self._say(f"Triton runs, but {error}")
            except (ServerError, InputError) as error:
                why = str(error)
                self._say(f"Triton did not start: {why}")
                continue
            self.started_at = time.monotonic()
            return

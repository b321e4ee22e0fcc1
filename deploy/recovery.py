"""Ways to bring a dead model back, the cheapest first, and their bound."""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from deploy.questions import ProbeError
from deploy.triton_server import ModelError, ServerError, TritonServer
from postprocess.errors import InputError

#: Restarts are counted over this time.
WINDOW_S = 600
#: How long a reload may take until Triton is restarted instead, beside the poll interval.
RELOAD_S = 8.0


def reload(server: TritonServer, dead: dict[str, ProbeError], client: Any) -> str | None:
    """Have Triton load dead models again; return how, None where it takes a restart."""
    from tritonclient.utils import InferenceServerException

    names = ", ".join(dead)
    for model, how in dead.items():
        if how.silent:  # lets go of the requests that wait for it
            for pid in server.stubs().get(model, []):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    # In both modes Triton loads only what has changed.
    if server.control_mode == "none" or not all([_touch(server, model) for model in dead]):
        return None
    if server.control_mode == "poll":
        return f"touched the files of {names}, for Triton to load it again"
    try:
        for model in dead:
            client.load_model(model, client_timeout=RELOAD_S)
    except InferenceServerException:
        return None
    return f"touched the files of {names} and loaded it again"


def _touch(server: TritonServer, model: str) -> bool:
    """Make the model's own file look new; config.pbtxt would not do."""
    files = [
        path
        for path in sorted((server.repository / model).glob("[0-9]*/*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    try:
        for path in files:
            os.utime(path)
    except OSError:  # a read-only repository
        return False
    return bool(files)


class Restarts:
    """Restarts of Triton, ever slower and not for ever."""

    def __init__(self, server: TritonServer, say: Callable[[str], None], *, most: int) -> None:
        """Say what to restart, how to report it, and how often at most within ``WINDOW_S``."""
        self._server, self._say, self._most = server, say, most
        self._times: deque[float] = deque()
        self.count = 0

    def restart(self, why: str) -> None:
        """Restart Triton until it runs; a model that did not load is only reported.

        Raises:
            ServerError: it was restarted too often.
        """
        while True:
            while self._times and time.monotonic() - self._times[0] > WINDOW_S:
                self._times.popleft()
            recent = len(self._times)
            if recent >= self._most:
                raise ServerError(
                    f"giving up after {recent} restarts of Triton within "
                    f"{WINDOW_S // 60} minutes: {why}"
                )
            # Nothing is served meanwhile, above all nothing unprotected.
            self._server.stop(kill_after_s=0)
            time.sleep(min(2**recent, 30) - 1)
            self._times.append(time.monotonic())
            self.count += 1
            self._say(f"restarting Triton, {recent + 1} of at most {self._most}")
            try:
                self._server.start()
            except ModelError as error:
                self._say(f"Triton runs, but {error}")
            except (ServerError, InputError) as error:
                why = str(error)
                self._say(f"Triton did not start: {why}")
                continue
            return

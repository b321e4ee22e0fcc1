"""The gRPC transport of the load test: a Locust user that asks a model on Triton."""

import atexit
import functools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from locust import User, events

from load_tests.asking.endpoint import Answers, Endpoint, EndpointError
from load_tests.data.rows import Rows
from load_tests.users.options import LoadSettings


class TritonUser(User):
    """A user whose requests appear in Locust's statistics as gRPC, by model and by kind."""

    abstract = True
    kind: str  #: of user, for the statistics: "normal", "thief sample"
    _endpoint: Endpoint | None = None

    @property
    def settings(self) -> LoadSettings:
        """What the command line or the web page says."""
        return LoadSettings.of(self.environment.parsed_options)

    def ask(self, rows: Rows) -> Answers:
        """Return the model's scores, shape (n, K), and tell Locust how long that took.

        A user that is stopped meanwhile gets its answer first: Triton 2.51 can crash over
        requests that their clients break off.

        Args:
            rows: of one request.

        Raises:
            EndpointError: the request failed. It stands among Locust's failures.
            InputError: the model is none that takes such rows and gives scores.
        """
        with ThreadPoolExecutor(1) as thread:  # a greenlet; leaving the block waits for it
            return thread.submit(self._ask, rows).result()

    def _ask(self, rows: Rows) -> Answers:
        settings = self.settings
        failure: EndpointError | None = None
        length, start = 0, time.perf_counter()
        try:
            if self._endpoint is None:
                _init_grpc()
                self._endpoint = Endpoint(
                    self.host or "",
                    settings.model,
                    output=settings.output,
                    access=settings.access,
                )
                start = time.perf_counter()
            scores = self._endpoint(rows)
            length = scores.nbytes
            return scores
        except EndpointError as error:
            # A copy without traceback: Locust keeps it, and with a traceback the connection too.
            failure = EndpointError(str(error), error.status)
            raise
        finally:
            self.environment.events.request.fire(
                request_type="grpc",
                name=f"{settings.model} {self.kind}",
                response_time=(time.perf_counter() - start) * 1000,
                response_length=length,
                exception=failure,
                context=self.context(),
            )

    def on_stop(self) -> None:
        """Close the connection."""
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None


@functools.cache
def _init_grpc() -> None:
    """Let gRPC wait in gevent's way; without it, one request holds up all users.

    Before the first connection and no earlier: Locust's --processes forks.
    """
    from grpc.experimental import gevent

    gevent.init_gevent()


def _leave(exit_code: int, **_: Any) -> None:
    """Note Locust's exit code: from now on nothing is left but to exit."""
    _codes.append(exit_code)


@atexit.register
def _exit_at_once() -> None:
    """Exit before Python takes itself apart.

    A connection that is only then let go waits for a thread of gRPC's that is gone, for ever.
    Registered before Locust's own handlers, so they have run.
    """
    if _codes and _init_grpc.cache_info().currsize:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_codes[-1])


_codes: list[int] = []
events.quit.add_listener(_leave)

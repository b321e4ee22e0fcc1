"""Signals that wait until what was paid for is written down."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred_signals() -> Iterator[threading.Event]:
    """Yield an event that a signal sets, so that the block comes to an end on its own.

    Python's handlers raise wherever the main thread stands, between the arrival of an answer and
    its row in a file too. Within the block they are called at its end instead; a second signal
    is not deferred, for users who do not want to wait. In other threads, where no handler ever
    runs, nothing changes.

    Raises:
        KeyboardInterrupt: a signal came, and its handler raised nothing.
    """
    stop = threading.Event()
    came: list[int] = []

    def defer(number: int, frame: FrameType | None) -> None:
        came.append(number)
        stop.set()
        if len(came) > 1:
            handlers[number](number, frame)

    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {
            number: handler for number in _ENDING if callable(handler := signal.getsignal(number))
        }
    for number in handlers:
        signal.signal(number, defer)
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            handlers[came[0]](came[0], None)
            raise KeyboardInterrupt

"""Signals that end the command line: made to unwind, and never lost."""

import os
import signal
import sys
import threading
from typing import Any

#: Until a signal that was swallowed comes again.
_AGAIN_S = 0.1


class Terminated(BaseException):
    """SIGTERM or SIGHUP, made to unwind like Ctrl-C so that nothing is left behind."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Have SIGTERM and SIGHUP raise ``Terminated``, and every ending signal take effect.

    A handler raises wherever the main thread stands. Where that is a finalizer or the callback of
    a weak reference, Python prints the exception and goes on; the signal is sent again then.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup wants it ignored
        signal.signal(signal.SIGHUP, _terminate)
    sys.unraisablehook = _send_again


def _terminate(number: int, frame: object) -> None:
    raise Terminated(number)


def _send_again(swallowed: Any) -> None:
    error = swallowed.exc_value
    if not isinstance(error, (KeyboardInterrupt, Terminated)):
        sys.__unraisablehook__(swallowed)
        return
    number = error.number if isinstance(error, Terminated) else signal.SIGINT
    # By another thread, for this one to be out of the callback.
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()

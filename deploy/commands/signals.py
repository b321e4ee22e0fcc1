"""Signals that end the command line: made to unwind, and never lost."""

import signal
import sys
from typing import Any, NoReturn

#: Between two looks at whether what a signal raised is being handled; until it is ``heard``.
_LOOK_S = 0.2


class _Last:
    """What a signal has raised, the last one."""

    raised: BaseException | None = None


class Terminated(BaseException):
    """SIGTERM or SIGHUP, made to unwind like Ctrl-C so that nothing is left behind."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP raise, and take effect whoever swallows what they raise.

    A handler raises wherever the main thread stands. A library there may catch all exceptions
    and go on, and of a finalizer or the callback of a weak reference Python itself does.
    """
    signal.signal(signal.SIGTERM, _end)
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and & want them ignored
            signal.signal(number, _end)
    signal.signal(signal.SIGALRM, _look)
    sys.unraisablehook = _say_unraisable


def heard() -> None:
    """Have a signal that came be no longer looked for: what it was to end is ending."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _Last.raised = None


def raised() -> BaseException | None:
    """Return what a signal has raised that is not ``heard``, None if there was none."""
    return _Last.raised


def _end(number: int, frame: object) -> None:
    _raise(KeyboardInterrupt() if number == signal.SIGINT else Terminated(number))


def _raise(error: BaseException) -> NoReturn:
    _Last.raised = error
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S)
    raise error


def _look(number: int, frame: object) -> None:
    """Raise again what a signal raised, unless it is being handled where the main thread stands."""
    _, handled, _ = sys.exc_info()  # Python 3.10 has no sys.exception
    while handled is not None and handled is not _Last.raised:
        handled = handled.__context__
    if handled is None and _Last.raised is not None:
        _raise(_Last.raised)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S)


def _say_unraisable(swallowed: Any) -> None:
    if swallowed.exc_value is not _Last.raised:
        sys.__unraisablehook__(swallowed)

"""Signals that end the command line: made to unwind, and never lost."""

import signal
import sys
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any

#: Between two looks at whether what a signal raised is being handled; until it is ``heard``.
_LOOK_S = 0.2
#: What signals raised, and what came of it. None of it is freed: objects of a library hang on it
#: that were broken off half made, as TensorFlow's, which may crash as they are taken down.
_kept: list[BaseException] = []


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
    and go on, and of a finalizer or the callback of a weak reference Python itself does. Only while
    a native library is being loaded nothing is raised, until it is.
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


def behind(error: BaseException) -> BaseException:
    """Return what a signal has raised that is not ``heard``, else the error itself.

    Of what is raised within it, a library may make an error of its own.
    """
    if _Last.raised is None:
        return error
    _kept.append(error)
    return _Last.raised


def _end(number: int, frame: FrameType | None) -> None:
    _Last.raised = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
    _kept.append(_Last.raised)
    signal.setitimer(signal.ITIMER_REAL, _LOOK_S, _LOOK_S)
    _raise(frame)


def _look(number: int, frame: FrameType | None) -> None:
    """Raise again what a signal raised, unless it is being handled where the main thread stands."""
    _, handled, _ = sys.exc_info()  # Python 3.10 has no sys.exception
    while handled is not None and handled is not _Last.raised:
        handled = handled.__context__
    if handled is None:
        _raise(frame)


def _raise(frame: FrameType | None) -> None:
    """Raise what a signal is to raise; later, where a library would not survive it."""
    if _Last.raised is not None and not _loads_native(frame):
        raise _Last.raised


def _loads_native(frame: FrameType | None) -> bool:
    """Say whether a native library is being loaded: one that is broken off may crash Python."""
    while frame is not None:
        if frame.f_code.co_name in {"create_module", "exec_module"} and isinstance(
            frame.f_locals.get("self"), ExtensionFileLoader
        ):
            return True
        frame = frame.f_back
    return False


def _say_unraisable(swallowed: Any) -> None:
    if swallowed.exc_value is not _Last.raised:
        sys.__unraisablehook__(swallowed)

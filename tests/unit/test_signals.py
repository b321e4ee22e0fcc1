import signal
import subprocess
import sys

import pytest
from commands import SOON_S, signals_of_a_terminal

SWALLOWING = """
import os, time
from deploy.commands import signals

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0)  # whatever a handler raises here is printed, and lost

signals.install()
Finalized()
try:
    time.sleep(200)
except (KeyboardInterrupt, signals.Terminated) as error:
    signals.heard()
    print(type(error).__name__)
"""
CAUGHT = """
import os, time
from deploy.commands import signals

signals.install()
try:
    try:
        os.kill(os.getpid(), {number})
        time.sleep(200)
    except:
        time.sleep(0.5)
    time.sleep(200)
except (KeyboardInterrupt, signals.Terminated) as error:
    time.sleep(1)  # what ends after a signal is left alone, however long it takes
    signals.heard()
    print(type(error).__name__)
"""
CHANGED = """
import os, sys
from deploy.commands import app
from deploy import entry

class Library:
    def __del__(self, abort=os.abort):  # as Python is taken down, or what was broken off
        abort()

def broken_off():
    half_made = Library()
    os.kill(os.getpid(), {number})

def broken():
    try:
        broken_off()
    except BaseException as error:
        half_made = Library()
        raise ImportError("initialization failed") from error

library = Library()
app.app = lambda **_: broken()
sys.argv = ["reverse-sigmoid"]
entry.main()
"""
LOADING = """
import os, time
from importlib.machinery import ExtensionFileLoader
from deploy.commands import signals

class Loader(ExtensionFileLoader):
    def create_module(self, spec):
        os.kill(os.getpid(), {number})
        for _ in range(10_000_000):  # as Python code that a library calls while it is loaded
            pass
        print("loaded")

signals.install()
try:
    Loader("library", "library.so").create_module(None)
    time.sleep(200)
except (KeyboardInterrupt, signals.Terminated) as error:
    signals.heard()
    print(type(error).__name__)
"""
NOHUP = """
import os, signal
from deploy.commands import signals

signal.signal(signal.SIGHUP, signal.{inherited})
signals.install()
try:
    os.kill(os.getpid(), signal.SIGHUP)
    print("goes on")
except signals.Terminated:
    signals.heard()
    print("ended")
"""


def run(program, *, code=0):
    """Return what a program says that is started as from a terminal, by whatever tests are."""
    with signals_of_a_terminal():
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        out, err = process.communicate(timeout=SOON_S)
    assert process.returncode == code, err
    return out.strip(), err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (signal.SIGINT, "KeyboardInterrupt"),
        (signal.SIGTERM, "Terminated"),
        (signal.SIGHUP, "Terminated"),
    ],
)
@pytest.mark.parametrize("swallowing", [SWALLOWING, CAUGHT])
def test_a_signal_ends_the_command_though_a_finalizer_or_a_library_swallows_it(
    swallowing, number, raised
):
    assert run(swallowing.format(number=int(number))) == (raised, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_once_a_native_library_is_loaded(number):
    said, _ = run(LOADING.format(number=int(number)))
    assert said.splitlines() == [
        "loaded",
        "KeyboardInterrupt" if number == signal.SIGINT else "Terminated",
    ]


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "reverse-sigmoid: interrupted\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_a_signal_ends_the_command_though_a_library_makes_an_error_of_it(number, code, said):
    assert run(CHANGED.format(number=int(number)), code=code) == ("", said)


@pytest.mark.parametrize(("inherited", "said"), [("SIG_IGN", "goes on"), ("SIG_DFL", "ended")])
def test_a_hangup_that_nohup_has_ignored_ends_nothing(inherited, said):
    assert run(NOHUP.format(inherited=inherited)) == (said, "")


def test_other_exceptions_in_a_finalizer_are_still_printed():
    code = SWALLOWING.format(number=0).replace("time.sleep(0)", "1 / 0").replace("200", "0")
    _, err = run(code)
    assert "ZeroDivisionError" in err

import signal
import subprocess
import sys

import pytest

SWALLOWING = """
import os, time
from deploy import signals

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0)  # whatever a handler raises here is printed, and lost

signals.install()
Finalized()
try:
    time.sleep(20)
except (KeyboardInterrupt, signals.Terminated) as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (signal.SIGINT, "KeyboardInterrupt"),
        (signal.SIGTERM, "Terminated"),
        (signal.SIGHUP, "Terminated"),
    ],
)
def test_a_signal_that_comes_while_a_finalizer_runs_ends_the_command(number, raised):
    code = SWALLOWING.format(number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == raised, done.stderr
    assert done.stderr == ""


def test_other_exceptions_in_a_finalizer_are_still_printed():
    code = SWALLOWING.format(number=0).replace("time.sleep(0)", "1 / 0").replace("20", "0")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "ZeroDivisionError" in done.stderr

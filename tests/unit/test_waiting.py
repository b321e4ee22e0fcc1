"""Waiting for a server of ours: asleep, and awake as soon as it ends."""

import os
import resource
import subprocess
import sys
import time

import pytest

from deploy.processes.child import ends_within


@pytest.fixture(params=["pidfd", "old Linux"])
def process(request, monkeypatch):
    if request.param == "old Linux":
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as one:
        yield one
        one.kill()


def refuse(pid):
    raise OSError(38, "Function not implemented")


def test_what_runs_on_is_told_after_the_time(process):
    began = time.monotonic()
    assert not ends_within(process, 0.3)
    assert time.monotonic() - began >= 0.3


def test_what_ends_is_told_at_once_and_again(process):
    process.stdin.close()
    assert ends_within(process, 60)
    assert process.wait() == 1
    assert ends_within(process, 60)
    assert ends_within(process, None)


def test_without_a_time_it_waits_for_the_end(process):
    process.stdin.close()
    assert ends_within(process, None)


def test_it_sleeps_all_the_while():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        ends_within(process, 1.5)
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept
        process.kill()
    assert slept <= 5  # Popen.wait looks every 50 ms, and sleeps in between

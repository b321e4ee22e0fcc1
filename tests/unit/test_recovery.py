"""Restarts of Triton: which are given up, and what is said where a reload cannot be."""

import itertools
from types import SimpleNamespace

import pytest

from deploy.supervision import recovery
from deploy.supervision.questions import ProbeError
from deploy.supervision.recovery import Restarts, reload
from deploy.triton.server import ServerError


class Server:
    """A Triton that starts or does not."""

    def __init__(self, *, starts=True):
        self.starts, self.control_mode = starts, "poll"

    def stop(self, **_):
        pass

    def start(self):
        if not self.starts:
            raise ServerError("it does not start")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only sleeping moves; what was slept."""
    passed, slept = itertools.count(), []
    fake = SimpleNamespace(monotonic=lambda: next(passed) / 1000, sleep=slept.append)
    monkeypatch.setattr(recovery, "time", fake)
    return slept


def test_a_triton_that_runs_and_dies_is_brought_back_for_ever_and_never_waits_long(clock):
    said = []
    restarts = Restarts(Server(), said.append, most=5)
    for _ in range(40):
        restarts.restart("it died")
    assert restarts.count == 40
    assert max(clock) == recovery.LONGEST_PAUSE_S
    assert clock[:4] == [0, 1, 3, 7]
    assert said[0].startswith("restarting Triton, 1 of at most 5")


def test_restarts_that_do_not_help_are_given_up(clock):
    restarts = Restarts(Server(), lambda line: None, most=3)
    restarts.restart("no answer")
    restarts.restart("no answer", in_vain=True)
    restarts.restart("no answer", in_vain=True)
    with pytest.raises(ServerError, match="giving up after 3 restarts of Triton within 10 minutes"):
        restarts.restart("no answer", in_vain=True)


def test_a_start_that_fails_again_and_again_is_given_up(clock):
    restarts = Restarts(Server(starts=False), lambda line: None, most=3)
    with pytest.raises(ServerError, match=r"giving up after 3 restarts .*: it does not start"):
        restarts.restart("it died")


def test_a_repository_that_cannot_be_written_to_is_named_as_the_reason(tmp_path, monkeypatch):
    version = tmp_path / "m_reverse_sigmoid" / "1"
    version.mkdir(parents=True)
    (version / "model.py").touch()

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(recovery.os, "utime", refuse)
    server = Server()
    server.repository = tmp_path
    told, how = reload(server, {"m_reverse_sigmoid": ProbeError("its process is gone")}, None)
    assert not told
    assert how == (
        f"all of Triton is restarted for m_reverse_sigmoid: {version / 'model.py'} cannot be "
        "touched, for Triton to see a change: Read-only file system; a repository that serve may "
        "write to saves that"
    )

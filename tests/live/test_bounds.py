"""The real ``serve --gateway``: what is spent stays spent, and no stranger keeps others out."""

import contextlib
import os
import signal
import socket
import time

import pytest
from gateways import BUDGET, Gated, write_files
from serving import IMAGES

from load_tests.asking.endpoint import Endpoint, EndpointError

SPENT = "the query budget or rate limit of this API key is spent"


def granted(gated, tries, client="alice"):
    """Return how many of so many queries were answered, the others refused as spent."""
    answered, refusals = 0, []
    with Endpoint(gated.files.url, "digits", access=gated.files.access(client)) as endpoint:
        for _ in range(tries):
            try:
                endpoint(IMAGES[:1])
                answered += 1
            except EndpointError as error:
                refusals.append((error.status, str(error)))
    assert all(status == "RESOURCE_EXHAUSTED" and SPENT in said for status, said in refusals)
    return answered


def listens(gated):
    try:
        Endpoint(gated.files.url, "digits", access=gated.files.access("bob"), timeout_s=5).close()
    except EndpointError:
        return False
    return True


@pytest.fixture(scope="module")
def small(exported, tmp_path_factory):
    """A copy of the repository that takes one row in a request, as budgets need it."""
    import shutil

    repository = shutil.copytree(exported, tmp_path_factory.mktemp("small") / "model_repository")
    config = repository / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 256", "max_batch_size: 1"))
    return repository


def test_a_spent_key_stays_spent_through_kills_edits_and_restarts(small, tmp_path):
    files = write_files(tmp_path)
    with Gated(small, files, cwd=tmp_path) as gated:
        assert granted(gated, BUDGET + 1) == BUDGET
        (envoy,) = gated.children("envoy")
        os.kill(envoy, signal.SIGKILL)
        gated.wait_until(lambda: "the gateway listens again" in gated.said)
        assert granted(gated, 3) == 0
        text = files.path.read_text()
        files.path.write_text(text + "limits: {timeout_seconds: 20}\n")
        gated.wait_until(lambda: "what was spent stays spent" in gated.said)
        gated.wait_until(lambda: listens(gated))
        assert granted(gated, 3) == 0
        assert f"budgets  {files.path.with_suffix('.budgets')}" in gated.stdout.read_text()
        assert gated.stop() == 0
    with Gated(small, files, cwd=tmp_path) as gated:
        assert granted(gated, 3) == 0
        assert granted(gated, 3, "bob") == 3
        began = time.monotonic()
        host, port = files.url.split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(1040):  # none of them says a word, let alone TLS
                one = socket.create_connection((host, int(port)), 10, ("127.0.0.2", 0))
                stack.enter_context(one)
            assert granted(gated, 10, "bob") == 10
        assert time.monotonic() - began < 60
        assert gated.stop() == 0

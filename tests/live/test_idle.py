"""What serving costs while nobody asks, and what is noticed all the same."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from commands import processes_naming, wait_for_no_process_naming
from ports import free_ports
from serving import CLASSIFIER, DEFENCE, IMAGES, Serving
from tritonclient.grpc import InferenceServerClient

from load_tests.asking.endpoint import Endpoint

ENSEMBLES, SECONDS = 8, 30
#: Of one core. 2.6 on a slow machine where nothing else runs; less beside much, as wakes are rarer.
MOST_PERCENT = 3.5


def answered(url, model):
    with InferenceServerClient(url) as client:
        (one,) = client.get_inference_statistics(model).model_stats
    return one.inference_stats.success.count


def cpu_s(root):
    """Return the CPU time of a process and all below it, those that have ended among them."""
    parents, ticks = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    family, grown = {root}, 0
    while len(family) != grown:
        grown = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def many(exported, tmp_path):
    """A repository of several ensembles, each with models and a question of its own."""
    for number in range(1, ENSEMBLES):
        for folder in exported.glob("digits*"):
            copy = tmp_path / "many" / folder.name.replace("digits", f"m{number}")
            shutil.copytree(folder, copy)
            for file in (copy / "config.pbtxt", copy / "question.json"):
                if file.exists():
                    file.write_text(file.read_text().replace('"digits', f'"m{number}'))
    shutil.copytree(exported, tmp_path / "many", dirs_exist_ok=True)
    return tmp_path / "many"


def test_eight_ensembles_that_nobody_asks_cost_next_to_nothing(many, tmp_path):
    with Serving(many, free_ports(), cwd=tmp_path) as serving:
        serving.wait_until(lambda: len(serving.status["models"]) == ENSEMBLES)
        # Versions have been looked into, and what was seen after the start is no news any more.
        serving.wait_until(lambda: len(processes_naming("deploy.supervision.versions")) == 0)
        time.sleep(20)
        before = {model: answered(serving.url, model) for model in serving.status["models"]}
        spent, began = cpu_s(serving.process.pid), time.monotonic()
        time.sleep(SECONDS)
        percent = 100 * (cpu_s(serving.process.pid) - spent) / (time.monotonic() - began)
        asked = [answered(serving.url, model) - count for model, count in before.items()]
        assert len(asked) == ENSEMBLES
        assert all(1 <= count <= SECONDS / 10 + 2 for count in asked), asked
        print(f"{ENSEMBLES} ensembles that nobody asks: {percent:.2f} % of a core")
        assert percent <= MOST_PERCENT
        assert serving.stop() == 0
    wait_for_no_process_naming(many)


def test_a_model_that_somebody_asks_is_asked_in_every_round(serve):
    with serve("--probe-seconds", 0.2) as serving, Endpoint(serving.url, "digits") as endpoint:
        ours = 0
        for _ in range(6):
            before = answered(serving.url, "digits")
            for _ in range(10):
                endpoint(IMAGES[:1])
                time.sleep(0.1)
            # Triton may have loaded it again just after the start, and then counts anew.
            ours += max(0, answered(serving.url, "digits") - before - 10)
        # Some 30 rounds where nothing else runs; rarely asked they would be 3 at most.
        assert ours > 8
        assert serving.stop() == 0


@pytest.mark.parametrize(
    ("model", "how"), [(DEFENCE, signal.SIGSTOP), (CLASSIFIER, signal.SIGKILL)]
)
def test_what_fails_while_nobody_asks_is_found_and_brought_back(serve, model, how):
    with serve() as serving:
        serving.settled_stubs(model, settled_s=12)  # quiet by now
        for stub in serving.stubs(model):
            os.kill(stub, how)
        serving.wait_for_recovery()
        serving.wait_until(lambda: serving.answers_with(beta=1.5))
        assert serving.stop() == 0

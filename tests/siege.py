"""A gateway under attack, beside honest clients who ask all the time."""

import contextlib
import json
import os
import time
from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime
import psutil
from gateways import KEYS, Gated, write_files
from serving import IMAGES

from deploy.audit import target
from deploy.audit.door import find
from deploy.hostile import honest
from deploy.hostile.attacker import Attacker
from deploy.hostile.attacks import ATTACKS, KEY, NOBODY, SPENT
from deploy.hostile.heard import Secrets, raw
from deploy.hostile.lying import FORGED
from load_tests.timing.paced import Paced

WORST_MS = 2000
#: Where the machine itself takes seconds: how much longer than just before; and where others use
#: it, such as a second file of tests, how often that bound.
WORST_RATIO, BUSY = 3, 5
#: Of one processor, what others have in all on a machine of our own.
OTHERS = 0.5
#: Envoy's memory: its heap of 512 MiB by default, and its program.
ENVOY_MIB = 600
#: What a client may never read: inner models and the tensor between them.
NAMES = ("digits_classifier", "digits_reverse_sigmoid", "victim_scores")
#: Who asks through the gateway whether it works: no client can be called so.
SUPERVISOR = "(serve)"
#: Another address of this machine, so that what is counted by address is told apart.
STRANGER = "127.0.0.2"


def write_operator(folder, more=""):
    """Write an operator's file with a hostile client, one whose few queries are spent, bob."""
    files = write_files(folder, more=more)
    for name in ("mallory", "spent"):
        path = folder / f"{name}.key"
        path.write_text(f"{name}-0123456789abcdef")
        path.chmod(0o600)
    text = files.path.read_text().replace(
        "clients:\n",
        "clients:\n  mallory: {key_file: mallory.key, queries: unlimited}\n"
        "  spent: {key_file: spent.key, queries: 3, per: day}\n",
    )
    files.path.write_text(text)
    return files


def single_rows(repository):
    """Let a request of the ensemble have one row, so that it is one query."""
    config = repository / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 256", "max_batch_size: 1"))


class Siege(Gated):
    """``reverse-sigmoid serve --gateway`` with doors for honest and hostile clients."""

    def __init__(self, repository, files, *, cwd):
        super().__init__(repository, files, cwd=cwd)
        self.log_read = {}
        self.took_ms = []
        found = target.find(files.url, files.url, "digits", files.access("bob"))
        (image,) = found.inputs
        found = replace(found, inputs=(replace(image, values=IMAGES[:1]),))
        keys = {"bob": KEYS["bob"], KEY: "mallory-0123456789abcdef",
                SPENT: "spent-0123456789abcdef", NOBODY: None}  # fmt: skip
        self.doors = {
            who: find(found, key=key, source=None if who == "bob" else STRANGER)
            for who, key in keys.items()
        }
        self.expected = honest.over_grpc(self.doors["bob"])()
        model = repository / "digits_classifier" / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: IMAGES[:1]})
        self.secrets = Secrets(NAMES, raw(logits))
        assert self.spend()

    def spend(self):
        """Ask with the spent key until it is refused; say whether it is."""
        ask = honest.over_http(self.doors[SPENT])
        for _ in range(4):
            try:
                ask()
            except honest.NotAnsweredError as error:
                return str(error).startswith("HTTP 429")
        return False

    @property
    def processes(self):
        return {name: self.children(name) for name in ("envoy", "tritonserver")}

    def asked_by(self, count=2, rate=16):
        """Return honest clients, half of them over new connections each time."""
        bob, self.took_ms = self.doors["bob"], []
        over = [honest.over_http if number % 2 else honest.over_grpc for number in range(count)]
        clients = [partial(honest.client, bob, one, self.expected) for one in over]
        return Paced([partial(timed, one, self.took_ms) for one in clients], rate=rate)

    def new_lines(self):
        """Return what came into each access log since the last call."""
        time.sleep(1)  # Envoy keeps lines for a moment
        found = {}
        for path in self.access_log.parent.glob("access*.jsonl"):
            with path.open("rb") as file:
                made = os.fstat(file.fileno()).st_ino  # a log that gave way is another file
                file.seek(self.log_read.get(made, 0))
                whole = file.read().rpartition(b"\n")[0]
                self.log_read[made] = self.log_read.get(made, 0) + len(whole)
            found[path.name] = [json.loads(line) for line in whole.splitlines() if line]
        return found

    def calm(self, seconds=2):
        """Return the longest that an honest client waits while nothing happens, in ms."""
        with self.asked_by() as paced:
            time.sleep(seconds)
        return worst_ms(paced)

    def suffer(self, orders, seconds):
        """Return what honest clients saw while attacks were made, and what these heard."""
        envoys, most = list(map(psutil.Process, self.children("envoy"))), 0
        with self.asked_by() as paced:
            with Attacker([(n, self.doors[by]) for n, by in orders], self.secrets, seconds) as them:
                while them.at_it:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        most = max(most, sum(one.memory_info().rss for one in envoys))
                    time.sleep(0.1)
            time.sleep(1)  # what was begun may hurt a moment later
        return paced, them.reports, most / 2**20

    def survive(self, *orders):
        """Let attacks be made; whatever they must not do is asserted. Return their reports."""
        seconds = max(ATTACKS[name].seconds for name, _ in orders)
        before = self.processes
        self.new_lines()
        start, used = time.monotonic(), others_seconds()
        calm = self.calm()
        paced, reports, envoy_mib = self.suffer(orders, seconds)
        others = (others_seconds() - used) / (time.monotonic() - start)
        worst = worst_ms(paced)
        answers, failures = sum(map(len, paced.latencies_ms)), dict(paced.failures)
        print(f"{orders}: honest worst {worst:.0f} ms of {answers}, failed {failures}")
        print(f"longest answer {max(self.took_ms):.0f} ms; before {calm:.0f} ms")
        print(f"Envoy at most {envoy_mib:.0f} MiB; others {others:.2f} processors")
        print(json.dumps(reports, indent=2))
        assert self.process.poll() is None, self.said
        assert self.processes == before, self.said
        assert failures == {}
        assert min(map(len, paced.latencies_ms)) > seconds
        bound = max(WORST_MS, WORST_RATIO * calm)
        if others < OTHERS:
            assert worst < bound
        else:  # clients may not get to ask when they want to
            assert max(self.took_ms) < BUSY * bound
        assert envoy_mib < ENVOY_MIB
        assert self.spend(), "the spent key has queries again"
        assert [one["leaks"] for one in reports] == [{}] * len(reports)
        self.check_logs({by for _, by in orders})
        assert all(one["answers"] for one in reports), "nothing was attacked"
        return reports

    def check_logs(self, attackers):
        """Assert that logs name whom they should and nothing inner, queries of clients apart."""
        logs = self.new_lines()
        lines = [line for log in logs.values() for line in log]
        assert FORGED not in {line["client"] for line in lines}
        assert [line for line in lines if any(name in str(line) for name in NAMES)][:3] == []
        queries = logs[self.access_log.name]
        assert "bob" in {line["client"] for line in queries}
        if KEY not in attackers:  # what nobody pays for does not push the queries out
            known = {"bob", SUPERVISOR} if SPENT in attackers else {"bob", SUPERVISOR, "spent"}
            assert {line["client"] for line in queries} <= known


@contextlib.contextmanager
def timed(client, took_ms):
    """Be that client, and note how long its questions took since they were asked."""
    with client() as ask:

        def asked():
            start = time.monotonic()
            wrong = ask()
            took_ms.append((time.monotonic() - start) * 1000)
            return wrong

        yield asked


def worst_ms(paced):
    """Return the longest that one waited since they wanted to ask."""
    return max(np.max(one, initial=0) for one in paced.latencies_ms)


def others_seconds():
    """Return for how long processors have worked for others, other machines on the same host too.

    The load average tells of a minute ago.
    """
    times = psutil.cpu_times()
    ours = psutil.Process()
    used = [one.cpu_times() for one in (ours, *ours.children(recursive=True))]
    return sum(times[:3]) + times.steal - sum(sum(one[:4]) for one in used)


def every_order():
    """Return every attack with everybody who makes it."""
    return [(name, by) for name, attack in ATTACKS.items() for by in attack.by]

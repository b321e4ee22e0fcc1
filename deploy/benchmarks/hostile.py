"""All attacks in turn and at once, for half an hour, beside honest clients: who notices?

Run as ``python -m deploy.benchmarks.hostile REPOSITORY OPERATOR MODEL --ca ca.pem``. It runs
``reverse-sigmoid serve REPOSITORY --gateway OPERATOR``. Of the operator's clients the first two
without a budget are the honest one, as ``--clients`` connections, and the hostile one; the first
with a budget is spent at once, and attacks too. Its last lines are for a person, what comes
before is JSON; it exits with 1 if anybody else noticed anything.
"""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import psutil

from deploy.audit.door import Door, find
from deploy.benchmarks import arguments
from deploy.benchmarks.gateway_run import GatewayRun, VictimSession, drawn, run
from deploy.hostile import honest
from deploy.hostile.attacker import Attacker
from deploy.hostile.attacks import ATTACKS, KEY, NOBODY, SPENT
from deploy.hostile.heard import merge
from deploy.processes.memory import Memory
from load_tests.asking.endpoint import Access
from load_tests.timing.paced import Paced
from postprocess.errors import InputError

#: Another address of this machine, so that what is counted by address is told apart.
STRANGER = "127.0.0.2"
Orders = list[tuple[str, Door]]


def main() -> None:
    """Attack, and print what came of it."""
    shared = ("repository", "operator", "model", "--ca", "--victim", "--minutes", "--clients")
    parser = arguments.parser("hostile", *shared)
    parser.add_argument("--each", type=float, default=15, help="seconds of an attack in its turn")
    parser.add_argument("--rate", type=float, default=40, help="requests/s of all honest clients")
    asked = parser.parse_args()
    with run(asked.repository, asked.operator) as running:
        report = Siege(asked, running).hold()
    print(json.dumps(report, indent=2))
    for line in lines(report):
        print(line, file=sys.stderr)
    sys.exit(not report["held"])


class Siege:
    """Attacks on one run, and what its honest clients see."""

    def __init__(self, asked: argparse.Namespace, running: GatewayRun) -> None:
        """Wait until it answers, learn the right answer, and spend the budget to be spent.

        Raises:
            InputError: the operator's file has no two clients without a budget.
        """
        self._asked, self._run = asked, running
        bob, mallory = running.unlimited(2)
        found = drawn(running.wait(asked.model, Access(bob.key, asked.ca)), 0)
        find_door = partial(find, found)
        self.honest = find_door(key=bob.key)
        self.doors = {
            KEY: find_door(key=mallory.key, source=STRANGER),
            NOBODY: find_door(key=None, source=STRANGER),
        }
        self._spent = next((one for one in running.operator.clients if one.budget), None)
        if self._spent is not None:
            self.doors[SPENT] = find_door(key=self._spent.key, source=STRANGER)
        self._expected = honest.over_grpc(self.honest)()
        self.secrets = VictimSession.of(asked).secrets(asked.model, found.inputs[0].values)
        self._phases: list[dict[str, Any]] = []
        self._doing = ""

    def hold(self) -> dict[str, Any]:
        """Return what came of attacks in turn, then all at once, over and over."""
        seconds = self._asked.minutes * 60
        servers, over = self._run.servers(), [honest.over_grpc, honest.over_http]
        queries = self._use_up()
        memory = Memory(psutil.Process(self._run.process.pid), seconds)
        watching = threading.Thread(target=memory.watch, args=(lambda: self._doing,))
        clients = [
            partial(honest.client, self.honest, over[number % 2], self._expected)
            for number in range(self._asked.clients)
        ]
        with Paced(clients, rate=self._asked.rate) as paced:
            end = time.monotonic() + seconds
            watching.start()
            for orders in self._turns():
                left = end - time.monotonic()
                if left <= 1:
                    break
                self._attack(orders, min(left, self._asked.each), paced)
            watching.join()
        return self._report(paced, memory, servers, queries)

    def _use_up(self) -> int:
        """Ask with the key to be spent until it is; return how often it was answered."""
        if self._spent is None:
            return 0
        ask = honest.over_http(self.doors[SPENT])
        for answered in range(10**6):
            try:
                ask()
            except honest.NotAnsweredError as error:
                if not str(error).startswith("HTTP 429"):
                    raise
                return answered
        raise InputError(f"{self._asked.operator}: no client with a budget below a million")

    def _turns(self) -> Any:
        everything = [
            (name, self.doors[by])
            for name, attack in ATTACKS.items()
            for by in attack.by
            if by in self.doors
        ]
        while True:
            for one in everything:
                yield [one]
            yield everything
            yield everything

    def _attack(self, orders: Orders, seconds: float, paced: Paced) -> None:
        """Make attacks at once, and remember what honest clients saw meanwhile."""
        names = {door.key: by for by, door in self.doors.items()}
        shown = [f"{name} by {names[door.key]}" for name, door in orders]
        self._doing = f", {shown[0] if len(shown) == 1 else f'{len(shown)} attacks at once'}"
        before = [len(one) for one in paced.latencies_ms]
        failures, servers = Counter(paced.failures), self._run.servers()
        with Attacker(orders, self.secrets, seconds) as attacker:
            attacker.wait()
        seen = [
            ms
            for one, start in zip(paced.latencies_ms, before, strict=True)
            for ms in one[start:]
        ]  # fmt: skip
        self._phases.append(
            {
                "attacks": shown,
                "seconds": seconds,
                "honest": _latencies(seen),
                "honest_failures": dict(paced.failures - failures),
                "same_processes": self._run.servers() == servers,
                **merge(attacker.reports),
            }
        )

    def _report(
        self, paced: Paced, memory: Memory, servers: dict[str, list[int]], queries: int
    ) -> dict[str, Any]:
        over = self._use_up() if self._spent else 0
        renewed = 0.0
        if self._spent is not None and self._spent.budget is not None:
            budget = self._spent.budget
            renewed = 1 + budget.queries * self._asked.minutes * 60 / budget.period_s
        restarts = [
            line for line in self._run.said if "restarting" in line or "starting it again" in line
        ]
        same, leaks = self._run.servers() == servers, merge(self._phases)["leaks"]
        failures, honest_ms = dict(paced.failures), _latencies([*chain(*paced.latencies_ms)])
        log = self._run.access_log
        return {
            "command": arguments.command("hostile"),
            "minutes": self._asked.minutes,
            "held": same and over <= renewed and not (restarts or failures or leaks),
            "same_processes": same,
            "restarts": restarts,
            "honest": honest_ms,
            "honest_failures": failures,
            "leaks": leaks,
            "spent_key": {"answered_before": queries, "answered_after": over, "renewed": renewed},
            "access_log_mib": log.stat().st_size / 2**20 if log.exists() else 0,
            "memory": memory.report(),
            "phases": self._phases,
        }


def _latencies(found_ms: list[float]) -> dict[str, float]:
    """Return how many answers there were, and how long they took, from when they were due."""
    if not found_ms:
        return {"answers": 0}
    percentiles = {f"p{one}_ms": float(np.percentile(found_ms, one)) for one in (50, 99)}
    return {"answers": len(found_ms), **percentiles, "worst_ms": max(found_ms)}


def lines(report: dict[str, Any]) -> list[str]:
    """Return the report in a few lines."""
    seen = report["honest"]
    worst = sorted(
        report["phases"], key=lambda one: one["honest"].get("worst_ms", 1e9), reverse=True
    )
    return [
        f"{report['minutes']:g} minutes, {len(report['phases'])} phases: "
        f"{len(report['restarts'])} restarts, {sum(report['honest_failures'].values())} of "
        f"{seen['answers'] + sum(report['honest_failures'].values())} honest requests failed",
        f"honest clients: p50 {seen.get('p50_ms', 0):.0f} ms, p99 {seen.get('p99_ms', 0):.0f} ms, "
        f"worst {seen.get('worst_ms', 0):.0f} ms, during "
        f"{', '.join(worst[0]['attacks'][:2]) if worst else 'nothing'}",
        *(
            f"{one['process']}: {one['mib_after_warm_up']:.0f} MiB after warm-up, "
            f"{one['mib_at_the_end']:.0f} at the end, {one['mib_at_most']:.0f} at most"
            for one in report["memory"]
        ),
        f"leaks: {report['leaks'] or 'none'}; the spent key had "
        f"{report['spent_key']['answered_after']} answers more",
    ]


if __name__ == "__main__":
    main()

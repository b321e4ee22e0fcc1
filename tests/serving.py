"""A served repository under load, edited and hurt while it answers."""

import json
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import oracle
from commands import SOON_S, Running
from scipy.special import softmax

from exporters.files.atomic_file import write_text
from exporters.training import datasets
from load_tests.asking.endpoint import Endpoint, EndpointError

DEFENCE, CLASSIFIER = "digits_reverse_sigmoid", "digits_classifier"
IMAGES = datasets.load("digits").x_test[:8]
#: Of a client between two queries. Four of them see every few milliseconds of an outage, and leave
#: the processor to what is to be seen.
PAUSE_S = 0.01


def port_options(ports):
    return (
        *("--http-port", ports.http),
        *("--grpc-port", ports.grpc),
        *("--metrics-port", ports.metrics),
    )


class Serving(Running):
    """``reverse-sigmoid serve``, ready, with a status file."""

    def __init__(self, repository, ports, *options, cwd):
        self.repository, self.url = repository, f"127.0.0.1:{ports.grpc}"
        self.http_url = f"http://127.0.0.1:{ports.http}"
        self.metrics_url = f"http://127.0.0.1:{ports.metrics}/metrics"
        self.config = repository / DEFENCE / "config.pbtxt"
        self.status_file = cwd / "status.json"
        options = (*port_options(ports), "--status-file", self.status_file, *options)
        super().__init__("serve", repository, *options, cwd=cwd)
        self.wait_for("Ctrl-C stops")
        with Endpoint(self.url, CLASSIFIER) as victim:
            self.logits = victim(IMAGES)

    @property
    def status(self):
        return json.loads(self.status_file.read_text())

    @property
    def said(self):
        return self.stderr.read_text()

    def edit(self, old, new):
        """Edit the defence's config.pbtxt as the README asks for: whole, then moved."""
        text = self.config.read_text()
        assert old in text
        write_text(self.config, text.replace(old, new))

    def answer(self):
        with Endpoint(self.url, "digits", timeout_s=60) as endpoint:
            return endpoint(IMAGES)

    def metric(self, name):
        """Return a metric of the defence, once a second has passed and a request came by."""
        time.sleep(1.1)
        self.answer()
        lines = read_url(self.metrics_url).splitlines()
        (line,) = [one for one in lines if one.startswith(f'{name}{{model="{DEFENCE}"')]
        return float(line.split()[-1])

    def expected(self, *, beta, logits=None):
        settings = {"beta": beta, "gamma": 0.2, "margin": 0.01, "preserve_top1": True}
        logits = self.logits if logits is None else logits
        return oracle.reverse_sigmoid(*oracle.log_odds(logits), **settings)

    def answers_with(self, *, beta):
        """Say whether it answers now, and as it should."""
        try:
            answer = self.answer()
        except EndpointError:  # gRPC waits a while before it connects to a new server
            return False
        return np.abs(answer - self.expected(beta=beta)).max() <= 1e-5

    def wait_for_recovery(self, number=1):
        self.wait_until(lambda: self.said.count("answers again") >= number)

    def shared_memory(self):
        """Return a pattern of the regions of shared memory that are this server's alone."""
        command = Path(f"/proc/{self.status['triton_pid']}/cmdline").read_text().split("\0")
        (prefix,) = [one.rpartition("=")[2] for one in command if "shm-region-prefix-name=" in one]
        return f"{prefix}*"

    def settled_stubs(self, model, *, settled_s=4):
        """Return them once no reload has exchanged them for a while."""
        stubs, since = self.stubs(model), time.monotonic()
        while time.monotonic() - since < settled_s:
            time.sleep(0.5)
            now = self.stubs(model)
            if now != stubs:
                stubs, since = now, time.monotonic()
        return stubs

    def stubs(self, model):
        """Return the process ids of a model's instances."""
        return stubs_of(self.repository, model)


def stubs_of(repository, model):
    """Return the process ids of the instances of a model of a repository that is served."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts = command.read_bytes().decode().split("\0")
        except OSError:
            continue
        stub = parts[0].endswith("/triton_python_backend_stub")
        if stub and parts[1].startswith(f"{repository / model}/"):
            found.append(int(command.parent.name))
    return found


def read_url(url, *, data=None, timeout=60):
    """Return what a server of this machine answers, as text, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, data=data, timeout=timeout) as response:
        return response.read().decode()


class Load:
    """Clients that query the ensemble all the time; what they got is kept.

    Entered, it returns once each of them has had an answer, so that what is done then is done
    under load.
    """

    def __init__(self, serving, *, clients=4):
        self.serving, self.answers, self.errors = serving, [], []
        self._stop = threading.Event()
        # Connected at once, while all is well.
        endpoints = [Endpoint(serving.url, "digits", timeout_s=60) for _ in range(clients)]
        self._answered = [threading.Event() for _ in endpoints]
        self._threads = [
            threading.Thread(target=self._query, args=pair)
            for pair in zip(endpoints, self._answered, strict=True)
        ]

    def _query(self, endpoint, answered):
        with endpoint:
            while not self._stop.is_set():
                try:
                    self.answers.append(endpoint(IMAGES))
                    answered.set()
                except EndpointError as error:
                    self.errors.append(str(error))
                    time.sleep(0.05)
                time.sleep(PAUSE_S)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        try:
            for answered in self._answered:
                assert answered.wait(SOON_S), self.errors
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def raw_answers(self):
        """Return how many answers held a row of the victim's logits or probabilities."""
        answers = self._all()
        raw = [self.serving.logits, softmax(self.serving.logits, axis=1)]
        return sum(
            int((np.abs(answers - one).max(axis=2) <= 1e-4).any(axis=1).sum()) for one in raw
        )

    def answers_other_than(self, *betas):
        """Return how many answers are none of the protected ones that may be expected."""
        answers = self._all()
        known = [
            np.abs(answers - self.serving.expected(beta=beta)).max(axis=(1, 2)) <= 1e-4
            for beta in betas
        ]
        return int((~np.any(known, axis=0)).sum())

    def _all(self):
        """Return every answer; of none, nothing can be said."""
        assert self.answers, self.errors
        return np.stack(self.answers)

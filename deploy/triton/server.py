"""The Triton of the nvidia-pytriton wheel: the real server, without Docker."""

import compileall
import contextlib
import ipaddress
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from deploy.processes.child import Child, ends_within
from deploy.processes.listening import listens, refuse_taken
from deploy.triton import cancel_guard, server_log, stub_processes, wheel
from deploy.triton.plain_http import PlainHttp
from exporters.files import servable_path
from exporters.repository import versions
from load_tests.asking.endpoint import Access, connect
from postprocess.errors import InputError, ReverseSigmoidError

#: What Triton waits for requests in flight when told to stop.
EXIT_TIMEOUT_S = 5

#: How long a model that is not ready may go without a reason, in Triton's answer and in its log.
REASON_TIMEOUT_S = 10.0

#: What Triton can be told about when to read the repository again, in its own words.
CONTROL_MODES = ("none", "poll", "explicit")

#: All that Triton can restrict.
RESTRICTED_APIS = (
    *("health", "metadata", "inference", "shared-memory", "model-config", "model-repository"),
    *("statistics", "trace", "logging"),
)


class ServerError(ReverseSigmoidError):
    """Triton did not start, did not become ready, or stopped by itself."""


class ModelError(ServerError):
    """Triton runs, but one of its models did not load."""


@dataclass(frozen=True)
class Ports:
    """The three ports that Triton listens on."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


@dataclass(frozen=True)
class ServedModel:
    """One version of a model in the repository, as Triton sees it."""

    name: str
    version: str
    ready: bool
    reason: str  #: why it is not ready, where Triton says
    summary: str  #: one line about what it is


def free_ports() -> Ports:
    """Return three ports that nothing listens on just now."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return Ports(*(one.getsockname()[1] for one in sockets))
    finally:
        for one in sockets:
            one.close()


class TritonServer(Child):
    """A Triton process serving one model repository.

    Cancelled calls do not crash it, provided that ``cancel_guard.find`` finds the guard.
    """

    program, kill_after_s = "Triton", EXIT_TIMEOUT_S + 5

    def __init__(
        self,
        repository: Path,
        *,
        ports: Ports,
        log: Path,
        address: str = "127.0.0.1",
        control_mode: str = "none",
        poll_s: int = 1,
        startup_timeout_s: float = 120,
        secret: str | None = None,
    ) -> None:
        """Say what to serve; nothing is started yet.

        Args:
            repository: a Triton model repository.
            ports: to listen on.
            log: the file that Triton's own log is appended to.
            address: to listen on. Any client that reaches it can call the raw classifier.
            control_mode: one of ``CONTROL_MODES``. In "explicit", any client that reaches the
                address can also load models, with configurations of its own.
            poll_s: how often the repository is looked at in mode "poll".
            startup_timeout_s: how long loading all models may take.
            secret: what every API demands of its callers, except the metrics. Other users
                of the machine can read it from the process list.

        Raises:
            InputError: no such control mode.
        """
        if control_mode not in CONTROL_MODES:
            raise InputError(
                f"--model-control-mode: expected {', '.join(CONTROL_MODES)}, got {control_mode!r}"
            )
        super().__init__(log)
        self.repository, self.ports, self.address = repository, ports, address
        self.control_mode, self.poll_s = control_mode, poll_s
        self.startup_timeout_s = startup_timeout_s
        self._secret = secret
        #: How all names of its shared memory begin, and those of no other server.
        self.shared_memory = f"reverse_sigmoid_{uuid.uuid4().hex}_"

    @property
    def grpc_url(self) -> str:
        """HOST:PORT of the gRPC endpoint."""
        return f"{self.address}:{self.ports.grpc}"

    def connect(self) -> Any:
        """Return tritonclient's gRPC client, with the secret where one is demanded."""
        return connect(self.grpc_url, Access(triton_key=self._secret))

    def plain(self) -> PlainHttp:
        """Return what asks for counts and states, with the secret where one is demanded."""
        headers = {} if self._secret is None else {"triton-key": self._secret}
        return PlainHttp(self.address, self.ports.http, headers)

    def start(self) -> None:
        """Start Triton and wait until every model of the repository is ready.

        Where many Python models load at once, Triton sometimes aborts with a ``lock_exception``
        of its Python backend; it is started a second time then.

        Raises:
            ModelError: a model did not load; Triton runs without it.
            InputError: no such repository, a port in use, a log file that cannot be written.
            ModuleNotFoundError: the nvidia-pytriton wheel is not installed.
            ServerError: a model did not load, or Triton did not become ready in time.
        """
        try:
            self._start()
        except ServerError:
            if self.exit_code != -signal.SIGABRT:
                raise
            self.stop()
            self._start()

    def _start(self) -> None:
        if not self.repository.is_dir():
            raise InputError(f"{self.repository}: no such model repository")
        servable_path.refuse(self.repository, "serve")
        installed = wheel.find()
        self._refuse_addresses()
        if self.control_mode == "poll":  # and would load a model again whose process writes these
            for version in chain.from_iterable(map(versions.folders, self.repository.iterdir())):
                compileall.compile_dir(version, quiet=2)
        home = self._make_home("reverse-sigmoid-")
        servable_path.refuse_temporary(home)
        wheel.lay_out_backends(installed, home / "backends")
        variables = wheel.environment(installed)
        guard = cancel_guard.lay_out(home)
        if guard is not None:
            variables = cancel_guard.preload(guard, variables)
        # Triton's stub puts the working directory first on its import path: keep it empty.
        (home / "empty").mkdir()
        process = self._run(self._command(installed, home / "backends"), home / "empty", variables)
        self._wait_until_ready()
        if guard is not None and not cancel_guard.is_loaded(guard, process.pid):
            raise ServerError(
                f"{cancel_guard.find()}: the dynamic linker did not load this library into Triton, "
                f"which cancelled calls could crash then; see {self.log}"
            )

    def stop(self, *, kill_after_s: float | None = None) -> None:
        """Stop Triton and every process it started, and free the memory that they shared."""
        try:
            super().stop(kill_after_s=kill_after_s)
        finally:
            stub_processes.remove_memory(self.shared_memory)

    def wait(self, timeout_s: float | None = None) -> None:
        """Return after the timeout; without one, never while Triton runs.

        Raises:
            ServerError: Triton has stopped by itself, or does not run.
        """
        if self._process is None:
            raise ServerError("Triton does not run")
        if not ends_within(self._process, timeout_s):
            return
        code = self._process.wait()
        raise ServerError(f"Triton stopped by itself with exit code {code}; see {self.log}")

    def stubs(self) -> dict[str, list[int]]:
        """Return model name to the process ids of its instances in the Python backend.

        Only living ones are found; while a model is being reloaded, the old ones too.
        """
        return stub_processes.find(self.shared_memory, self.repository)

    def models(self) -> list[ServedModel]:
        """Return every model version of the repository, in the order of their names."""
        with self.connect() as client:
            index = client.get_model_repository_index()
            return [
                ServedModel(
                    name=entry.name,
                    version=entry.version,
                    ready=entry.state == "READY",
                    reason=entry.reason,
                    summary=_summary(client.get_model_config(entry.name).config)
                    if entry.state == "READY"
                    else "",
                )
                for entry in index.models
            ]

    def version(self) -> str:
        """Return Triton's version, such as 2.51.0."""
        with self.connect() as client:
            return str(client.get_server_metadata().version)

    def _command(self, installed: Path, backends: Path) -> list[str]:
        return [
            str(installed / "bin" / "tritonserver"),
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={backends}",
            # With true, Triton exits before anybody can ask it which model failed and why.
            "--exit-on-error=false",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            f"--http-address={self.address}",
            f"--http-port={self.ports.http}",
            f"--grpc-address={self.address}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-address={self.address}",
            f"--metrics-port={self.ports.metrics}",
            f"--backend-config=python,shm-region-prefix-name={self.shared_memory}",
            f"--model-control-mode={self.control_mode}",
            *self._restrictions(),
            *{
                "none": [],
                "poll": [f"--repository-poll-secs={self.poll_s}"],
                "explicit": ["--load-model=*"],
            }[self.control_mode],
        ]

    def _restrictions(self) -> list[str]:
        if self._secret is None:
            return []
        restricted = f"{','.join(RESTRICTED_APIS)}:triton-key={self._secret}"
        return [f"--{option}={restricted}" for option in
                ("http-restricted-api", "grpc-restricted-protocol")]  # fmt: skip

    def _refuse_addresses(self) -> None:
        """Refuse what cannot be listened on, before Triton says so in its own way."""
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError:
            raise InputError(f"--address: expected an IPv4 address, got {self.address!r}") from None
        taken: dict[int, str] = {}
        for name, port in vars(self.ports).items():
            option = f"--{name}-port {port}"
            if not 1 <= port <= 65535:
                raise InputError(f"{option}: expected a port from 1 to 65535")
            if port in taken:
                raise InputError(f"{option}: the same as {taken[port]}")
            taken[port] = option
            refuse_taken(option, self.address, port)

    def _wait_until_ready(self) -> None:
        from tritonclient.utils import InferenceServerException

        silent = f"is not live after {self.startup_timeout_s:g} s"
        try:
            if self._comes_up(self._is_live, self.startup_timeout_s):
                self._refuse_models_not_ready()
                return
        except InferenceServerException as error:
            silent = f"does not answer any more: {error.message()}"
            if self._process is not None:
                ends_within(self._process, 1)
        if self.exit_code is None:
            raise ServerError(f"Triton {silent}; see {self.log}")
        reason = server_log.first_error(self.log, self._log_start)
        raise ServerError(f"Triton exited with code {self.exit_code}: {reason}")

    def _is_live(self) -> bool:
        """Say whether it answers and listens at all its ports: that of metrics opens last.

        A client of gRPC, which costs a hundred times as much as a look at a port, is made then.
        """
        from tritonclient.utils import InferenceServerException

        if not all(listens(self.address, port) for port in reversed(vars(self.ports).values())):
            return False
        with contextlib.suppress(InferenceServerException), self.connect() as client:
            return bool(client.is_server_live(client_timeout=5))
        return False

    def _refuse_models_not_ready(self) -> None:
        """Triton is live once it has tried every model: what is not ready now has failed.

        Why is in its answer or in its log, in either of them a moment later than that.
        """
        deadline = time.monotonic() + REASON_TIMEOUT_S
        while True:
            models = self.models()
            if not models:
                raise ServerError(f"{self.repository}: no model there that Triton can read")
            failed = [model for model in models if not model.ready]
            if not failed:
                return
            why = self._why_not_ready(failed)
            if why is None and time.monotonic() > deadline:
                why = f"model {failed[0].name} did not load; see {self.log}"
            if why is not None:
                raise ModelError(why)
            time.sleep(0.05)

    def _why_not_ready(self, failed: list[ServedModel]) -> str | None:
        """Return a model and its reason, None if there is none yet.

        An ensemble fails with its steps: it is named only if none of them has a reason.
        """
        for model in failed:
            if model.reason:
                return f"model {model.name} did not load: {server_log.reason_of(model.reason)}"
        for find in (server_log.refusal, server_log.missing_step):
            for model in failed:
                reason = find(self.log, self._log_start, model.name)
                if reason:
                    return f"model {model.name} did not load: {reason}"
        return None


@contextlib.contextmanager
def on_free_ports(repository: Path) -> Iterator[TritonServer]:
    """Yield a server of a repository; it and its log are gone after the block."""
    with (
        tempfile.TemporaryDirectory() as folder,
        TritonServer(repository, ports=free_ports(), log=Path(folder) / "triton.log") as server,
    ):
        try:
            yield server
        finally:  # nobody asks it any more, and to unload its models takes seconds
            server.stop(kill_after_s=0)


def _summary(config: Any) -> str:
    """Return one line about a model: its steps or its backend, and its parameters."""
    steps = " -> ".join(step.model_name for step in config.ensemble_scheduling.step)
    parameters = [f"{key} {value.string_value}" for key, value in config.parameters.items()]
    return ", ".join([steps or config.backend, *sorted(parameters)])

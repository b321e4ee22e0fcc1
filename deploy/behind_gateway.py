"""A Triton that only the gateway can ask, and the gateway before it."""

import secrets
from pathlib import Path
from typing import Any

from deploy import protected
from deploy.envoy.bootstrap import Upstream
from deploy.gateway import Gateway
from deploy.operator_file import Address, Operator, read
from deploy.triton_server import TritonServer
from postprocess.errors import InputError

LOOPBACK = "127.0.0.1"


class Behind:
    """What an operator's file makes of ``serve``."""

    def __init__(self, path: Path, *, access_log: Path | None = None) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read, or says what it must not.
        """
        self.path, self.operator, self._access_log = path, read(path), access_log
        #: Of this run alone; nobody has to keep it.
        self.secret = secrets.token_hex(32)

    def refuse(self, *, address: str, control_mode: str, supervise: bool) -> None:
        """Return if these options of ``serve`` leave the gateway the only door.

        Raises:
            InputError: one of them does not.
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

    def open(self, server: TritonServer) -> Gateway:
        """Return the gateway to a started Triton, not yet started itself.

        Raises:
            InputError: a public model is not served, not protected, or takes more rows in a
                request than the budgets count.
        """
        with server.connect() as client:
            self._refuse_models(client)
        names = {model.name for model in server.models()}
        upstream = Upstream(
            grpc=Address(server.address, server.ports.grpc),
            http=Address(server.address, server.ports.http),
            hidden=sorted(names - set(self.operator.models)),
        )
        return Gateway(
            self.operator,
            upstream,
            self.secret,
            log=server.log.with_name("gateway.log"),
            access_log=self._access_log,
        )

    def lines(self) -> list[str]:
        """Return what a person is told about the door."""
        operator, scheme = self.operator, "https" if self.operator.tls else "http"
        listen, statistics = operator.listen, operator.statistics
        return [
            f"  gateway  {listen.host}:{listen.port}, gRPC and {scheme}, {_clients(operator)}, "
            f"models {', '.join(operator.models)}",
            f"  metrics  http://{statistics.host}:{statistics.port}/stats/prometheus",
        ]

    def _refuse_models(self, client: Any) -> None:
        found = {one.name for one in protected.find(client)}
        counted = any(one.budget for one in self.operator.clients) or self.operator.rate
        for model in self.operator.models:
            if model not in found:
                raise InputError(
                    f"{self.path}: models: {model} is no protected ensemble of this repository; "
                    f"those are {', '.join(sorted(found)) or 'none'}"
                )
            rows = max(1, client.get_model_config(model).config.max_batch_size)
            if counted and rows > self.operator.queries_per_request:
                raise InputError(
                    f"{self.path}: queries_per_request: a request to {model} may have {rows} "
                    f"rows, and is counted as {self.operator.queries_per_request}; write {rows}, "
                    "or protect the model with --max-client-batch 1"
                )


def _clients(operator: Operator) -> str:
    count = len(operator.clients)
    return f"{count} API key{'s' * (count != 1)}"

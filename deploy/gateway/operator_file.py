"""The operator's file: who may query which models, how often, and where they connect."""

import difflib
import re
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.repository.model_repository import refuse_name
from load_tests.asking.address import Address, address, own_address
from postprocess.errors import InputError

#: Seconds of a period that a budget may be given for.
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
MOST_QUERIES = 10**9
MIB = 2**20
#: A client's: it is part of the names of Envoy's metrics, where a dot ends a part.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_KEY = re.compile(r"[!-~]{16,256}")


#: The client that ``serve`` itself is; no name that an operator's file could hold.
PROBE = "(serve)"


@dataclass(frozen=True)
class Budget:
    """So many queries at once, renewed evenly over a period."""

    queries: int
    period_s: int


@dataclass(frozen=True)
class Client:
    """Somebody with an API key."""

    name: str
    key: str  #: "" of one that is locked out
    budget: Budget | None  #: None where the file says ``unlimited``
    models: tuple[str, ...]  #: that it may ask, and no other
    raw: bool = False  #: they may be models that no defence stands behind


@dataclass(frozen=True)
class Tls:
    """The gateway's own certificate."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Limits:
    """What one request and all connections together may take."""

    request_mib: int = 16
    timeout_seconds: int = 30
    connections: int = 1024
    memory_mib: int = 512  #: of Envoy's heap
    connections_per_source: int = 128  #: of an IPv4 address, or an IPv6 /64
    requests_per_key: int = 64  #: that a client may have under way at once
    mib_per_key: int = memory_mib // 4  #: of bodies that a client may have under way at once


@dataclass(frozen=True)
class Operator:
    """What the operator's file says."""

    listen: Address
    tls: Tls | None
    models: tuple[str, ...]  #: protected ones: that somebody without ``raw`` may ask
    clients: tuple[Client, ...]
    rate: Budget | None
    limits: Limits
    statistics: Address
    ratelimit_service: Address | None
    queries_per_request: int  #: what a request is counted as, the most rows it may have
    files: tuple[Path, ...]  #: every file that was read for it
    budgets_file: Path | None = None  #: where what was spent is kept; None for memory

    @property
    def locked_out(self) -> tuple[str, ...]:
        """The clients whose key was taken away, by its file."""
        return tuple(one.name for one in self.clients if not one.key)

    @property
    def raw_models(self) -> tuple[str, ...]:
        """The models that only clients with ``raw`` may ask."""
        named = dict.fromkeys(model for one in self.clients if one.raw for model in one.models)
        return tuple(model for model in named if model not in self.models)


def read(path: Path, *, before: Collection[Path] = ()) -> Operator:
    """Return what the file says; paths in it are relative to its folder.

    Args:
        path: of the file.
        before: the files that were read for it the last time. A key whose file is none of these
            has to be there; one whose file is gone, or empty, by now was taken away.

    | key | meaning | default |
    | --- | --- | --- |
    | ``listen`` | HOST:PORT for clients | has to be said |
    | ``tls`` | ``certificate`` and ``key``, PEM files; or ``off`` | has to be said |
    | ``models`` | the public names, of every client that has no list of its own | none |
    | ``clients`` | name to ``key_file``, ``queries`` (or ``unlimited``), ``per`` | has to be said |
    | | ``models``, a list of its own; ``raw: true``, it may name unprotected ones | as above |
    | ``rate`` | ``queries`` and ``per``, of every client | none |
    | ``queries_per_request`` | what one request counts as | 1 |
    | ``limits`` | ``request_mib``, ``timeout_seconds``, ``connections`` | 16, 30, 1024 |
    | | ``memory_mib``, of Envoy | 512 |
    | | ``connections_per_source``, ``requests_per_key`` | 128, 64 |
    | | ``mib_per_key``, of bodies under way | a quarter of ``memory_mib`` |
    | ``budgets_file`` | where ``serve`` keeps what was spent | operator.budgets, beside this |
    | ``statistics`` | HOST:PORT for Prometheus | 127.0.0.1:9901 |
    | ``ratelimit_service`` | HOST:PORT of envoyproxy/ratelimit, for several gateways | none |

    Raises:
        InputError: the file or a file that it names cannot be read, or says what it must not.
    """
    import yaml

    try:
        said = yaml.load(path.read_text(), Loader=_strict_loader())  # noqa: S506
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    return _Reader(path, before).operator(said)


def _strict_loader() -> Any:
    """Return YAML's safe loader that refuses a key said twice: the second would win in silence."""
    import yaml

    class Strict(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key!r} is there twice", node.start_mark
                    )
            return super().construct_mapping(node, deep)

    return Strict


class _Reader:
    """Turns what YAML gave into an Operator; every refusal names the file and the key."""

    def __init__(self, path: Path, before: Collection[Path]) -> None:
        self._path, self._before = path, before
        self._files: list[Path] = []

    def operator(self, said: Any) -> Operator:
        fields = self._mapping(
            "the file",
            said,
            required=("listen", "tls", "clients"),
            optional=(
                *("models", "rate", "queries_per_request", "limits", "statistics"),
                *("ratelimit_service", "budgets_file"),
            ),
        )
        tls = self._tls(fields["tls"])
        models = self._models("models", fields["models"]) if "models" in fields else ()
        clients = self._clients(fields["clients"], models)
        service = fields.get("ratelimit_service")
        rate = None if "rate" not in fields else self._budget("rate", fields["rate"])
        cost = self._whole("queries_per_request", fields.get("queries_per_request", 1), 1, 65536)
        for key, budget in (
            ("rate", rate),
            *((f"clients: {client.name}", client.budget) for client in clients),
        ):
            if budget is not None and budget.queries < cost:
                raise self._error(
                    f"{key}: queries",
                    f"at least queries_per_request, {cost}, or no request is ever granted",
                    budget.queries,
                )
        asked = (model for client in clients if not client.raw for model in client.models)
        listen = self._own("listen", fields["listen"])
        statistics = self._own("statistics", fields.get("statistics", "127.0.0.1:9901"))
        if statistics == listen:
            raise self._error("statistics", "another address than that of listen", str(listen))
        return Operator(
            listen=listen,
            tls=tls,
            models=tuple(dict.fromkeys((*models, *asked))),
            clients=clients,
            rate=rate,
            limits=self._limits(fields.get("limits", {})),
            statistics=statistics,
            ratelimit_service=service and self._address("ratelimit_service", service),
            queries_per_request=cost,
            files=tuple(self._files),
            budgets_file=self._budgets_file(fields.get("budgets_file")),
        )

    def _error(self, key: str, expected: str, got: Any) -> InputError:
        shown = repr(got)
        return InputError(
            f"{self._path}: {key}: expected {expected}, got "
            f"{shown if len(shown) <= 60 else shown[:57] + '...'}"
        )

    def _mapping(
        self, key: str, value: Any, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> Mapping[str, Any]:
        known = [*required, *optional]
        if not isinstance(value, dict):
            raise self._error(key, f"a mapping of {', '.join(known)}", value)
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                raise InputError(f"{self._path}: {key}: unknown key {name!r}{hint}")
        for name in required:
            if name not in value:
                raise InputError(f"{self._path}: {key}: {name} is missing")
        return value

    def _whole(self, key: str, value: Any, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._error(key, f"a whole number from {least} to {most}", value)
        return value

    def _name(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise self._error(key, "a name of letters, digits, _ and -", value)
        return value

    def _address(self, key: str, value: Any) -> Address:
        return address(value, f"{self._path}: {key}")

    def _own(self, key: str, value: Any) -> Address:
        return own_address(value, f"{self._path}: {key}")

    def _file(self, key: str, value: Any) -> Path:
        if not isinstance(value, str) or not value:
            raise self._error(key, "the path of a file", value)
        path = self._path.parent / value
        try:
            if not (path.is_dir() or stat.S_ISREG(path.stat().st_mode)):
                raise self._error(key, "the path of a file", value)  # a pipe would be waited for
            path.read_bytes()
        except OSError as error:
            raise InputError(f"{self._path}: {key}: {path}: {error.strerror}") from None
        self._files.append(path.absolute())
        return path.absolute()

    def _tls(self, value: Any) -> Tls | None:
        if value is False or value == "off":  # YAML reads a bare off as false
            return None
        if not isinstance(value, dict):
            raise self._error("tls", "certificate and key, or off", value)
        fields = self._mapping("tls", value, required=("certificate", "key"))
        return Tls(
            self._file("tls: certificate", fields["certificate"]),
            self._file("tls: key", fields["key"]),
        )

    def _models(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise self._error(key, "a list of public model names", value)
        for one in value:
            if not isinstance(one, str):
                raise self._error(key, "a public model name, in quotes if need be", one)
            refuse_name(one, where=f"{self._path}: {key}")
        return tuple(dict.fromkeys(value))

    def _clients(self, value: Any, models: tuple[str, ...]) -> tuple[Client, ...]:
        if not isinstance(value, dict) or not value:
            raise self._error("clients", "a mapping of names to key_file, queries, per", value)
        clients: list[Client] = []
        for name, said in value.items():
            key = f"clients: {self._name('clients', name)}"
            fields = self._mapping(
                key, said, required=("key_file", "queries"), optional=("per", "models", "raw")
            )
            secret = self._secret(f"{key}: key_file", fields["key_file"])
            if secret and any(secret == other.key for other in clients):
                raise InputError(f"{self._path}: {key}: key_file: the key of another client")
            budget = {name: fields[name] for name in ("queries", "per") if name in fields}
            unlimited = budget.get("queries") == "unlimited"
            if unlimited and "per" in budget:
                raise self._error(f"{key}: per", "none with queries: unlimited", budget["per"])
            spends = None if unlimited else self._budget(key, budget)
            clients.append(Client(name, secret, spends, *self._may_ask(key, fields, models)))
        return tuple(clients)

    def _may_ask(
        self, key: str, fields: Mapping[str, Any], models: tuple[str, ...]
    ) -> tuple[tuple[str, ...], bool]:
        """Return what a client may ask, ``models`` without a list, and whether it may be raw."""
        raw = fields.get("raw", False)
        if not isinstance(raw, bool):
            raise self._error(f"{key}: raw", "true or false", raw)
        if "models" in fields:
            return self._models(f"{key}: models", fields["models"]), raw
        if raw:
            raise InputError(
                f"{self._path}: {key}: raw: expected with it a list of models of this client's own"
            )
        if not models:
            raise InputError(
                f"{self._path}: {key}: models is missing: give this client a list, or all clients "
                "without one a list at the top of the file"
            )
        return models, raw

    def _budgets_file(self, value: Any) -> Path:
        if value is None:
            return self._path.with_suffix(".budgets").absolute()
        if not isinstance(value, str) or not value or "\n" in value:
            raise self._error("budgets_file", "the path of a file", value)
        return (self._path.parent / value).absolute()

    def _secret(self, key: str, value: Any) -> str:
        if isinstance(value, str) and self._was_taken_away((self._path.parent / value).absolute()):
            return ""
        path = self._file(key, value)
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise InputError(f"{self._path}: {key}: {path}: readable by everybody; chmod 600")
        secret = path.read_text(errors="replace").strip()
        if not _KEY.fullmatch(secret):
            raise InputError(
                f"{self._path}: {key}: {path}: expected 16 to 256 printable characters without "
                f"spaces, got {len(secret)}"
            )
        return secret

    def _was_taken_away(self, path: Path) -> bool:
        """Say whether a key is no more; its file is looked at again all the same."""
        if path not in self._before or (path.exists() and path.stat().st_size):
            return False
        self._files.append(path)
        return True

    def _budget(self, key: str, value: Any) -> Budget:
        fields = self._mapping(key, value, required=("queries", "per"))
        if fields["per"] not in PERIODS:
            raise self._error(f"{key}: per", " or ".join(PERIODS), fields["per"])
        return Budget(
            self._whole(f"{key}: queries", fields["queries"], 1, MOST_QUERIES),
            PERIODS[fields["per"]],
        )

    def _limits(self, value: Any) -> Limits:
        ranges = {
            "request_mib": (1, 1024),
            "timeout_seconds": (1, 3600),
            "connections": (1, 10**6),
            "memory_mib": (128, 2**20),
            "connections_per_source": (1, 10**6),
            "requests_per_key": (1, 10**6),
            "mib_per_key": (1, 2**20),
        }
        fields = self._mapping("limits", value, required=(), optional=tuple(ranges))
        said = {
            name: self._whole(f"limits: {name}", fields[name], *ranges[name]) for name in fields
        }
        quarter = said.get("memory_mib", Limits.memory_mib) // 4
        limits = Limits(**{"mib_per_key": quarter} | said)
        needed = 128 + 4 * limits.request_mib  # a few of the largest requests at once
        if limits.memory_mib < needed:
            raise self._error(
                "limits: memory_mib",
                f"at least {needed} for requests of {limits.request_mib} MiB",
                limits.memory_mib,
            )
        if limits.mib_per_key < limits.request_mib:
            raise self._error(
                "limits: mib_per_key",
                f"at least request_mib, {limits.request_mib}",
                limits.mib_per_key,
            )
        return limits

"""A protected repository behind the real Envoy, as an operator would run it."""

import os
from dataclasses import dataclass
from pathlib import Path

import trustme
from commands import Running
from ports import free_addresses, free_ports
from serving import port_options

from load_tests.asking.endpoint import Access

KEYS = {"alice": "alice-0123456789abcdef", "bob": "bob-0123456789abcdef", "eve": "eve" * 8}
BUDGET = 100


@dataclass
class Files:
    """The operator's file and what it names."""

    path: Path
    url: str
    statistics: str
    ca: Path

    def access(self, client):
        return Access(KEYS.get(client), self.ca)


def write_files(folder, *, models=("digits",), more="", tls=True):
    """Write an operator's file: alice has a budget, bob none; eve is a stranger."""
    url, statistics = free_addresses(2)
    ca = trustme.CA()
    ours = ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ours.private_key_pem.write_to_path(folder / "server.key")
    ours.cert_chain_pems[0].write_to_path(folder / "server.pem")
    for name in ("alice", "bob"):
        (folder / f"{name}.key").write_text(KEYS[name] + "\n")
        os.chmod(folder / f"{name}.key", 0o600)
    path = folder / "operator.yaml"
    budget = 256 if "queries_per_request: 256" in more else BUDGET
    path.write_text(
        f"listen: {url}\n"
        f"tls: {'{certificate: server.pem, key: server.key}' if tls else 'off'}\n"
        f"models: [{', '.join(models)}]\n"
        "clients:\n"
        f"  alice: {{key_file: alice.key, queries: {budget}, per: day}}\n"
        "  bob: {key_file: bob.key, queries: unlimited}\n"
        f"statistics: {statistics}\n" + more
    )
    return Files(path, url, statistics, folder / "ca.pem" if tls else None)


class Gated(Running):
    """``reverse-sigmoid serve --gateway``, ready."""

    def __init__(self, repository, files, *options, cwd):
        self.repository, self.files, self.ports = repository, files, free_ports()
        self.access_log = cwd / "access.jsonl"
        options = (*port_options(self.ports), "--access-log", self.access_log, *options)
        super().__init__("serve", repository, "--gateway", files.path, *options, cwd=cwd)
        self.wait_for("Ctrl-C stops")

    @property
    def said(self):
        return self.stderr.read_text()

    def children(self, program):
        """Return the process ids of a program that this command has started."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, rest = entry.read_text().rsplit(")", 1)
            except OSError:
                continue
            if name.endswith(f"({program}") and int(rest.split()[1]) == self.process.pid:
                found.append(int(entry.parent.name))
        return found

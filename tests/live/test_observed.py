"""A gateway before an open Triton: its connection limit, and the real Prometheus reading it."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

import pytest
import yaml
from commands import SOON_S
from gateways import write_files
from ports import free_addresses
from serving import IMAGES, read_url

from deploy.gateway.envoy.bootstrap import Upstream
from deploy.gateway.operator_file import Address, read
from deploy.gateway.process import Gateway
from load_tests.asking.endpoint import Endpoint, EndpointError

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"


@pytest.fixture
def gateway(server, tmp_path):
    """At most four connections at once, and no TLS."""
    more = "limits: {connections: 4}\n"
    files = write_files(tmp_path, tls=False, more=more)
    upstream = Upstream(
        Address("127.0.0.1", server.ports.grpc), Address("127.0.0.1", server.ports.http)
    )
    with Gateway(read(files.path), upstream, "no secret", log=tmp_path / "envoy.log"):
        yield files


def answers(files):
    try:
        with Endpoint(files.url, "digits", access=files.access("bob"), timeout_s=10) as endpoint:
            return endpoint(IMAGES[:1]).shape == (1, 10)
    except EndpointError:
        return False


def is_kept(connection):
    """Whether the gateway has left an idle connection open."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def hold_connections(address, count):
    """As many connections as the gateway keeps open: one closed just now may still count."""
    deadline = time.monotonic() + SOON_S
    held = []
    while len(held) < count:
        assert time.monotonic() < deadline, len(held)
        held += [socket.create_connection(address) for _ in range(count - len(held))]
        time.sleep(0.5)
        held = [one for one in held if is_kept(one)]
    return held


def test_connections_beyond_the_limit_are_closed_and_room_is_made_again(gateway):
    assert answers(gateway)
    host, port = gateway.url.split(":")
    held = hold_connections((host, int(port)), 4)
    assert not answers(gateway)
    for one in held:
        one.close()
    deadline = time.monotonic() + SOON_S
    while not answers(gateway):
        assert time.monotonic() < deadline


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_the_real_prometheus_reads_both_and_answers_what_the_alerts_ask(gateway, server, tmp_path):
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "alerts.yaml")]
    targets = {"triton": f"127.0.0.1:{server.ports.metrics}", "gateway": gateway.statistics}
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (address,) = free_addresses(1)
    log = (tmp_path / "prometheus.log").open("wb")
    process = subprocess.Popen(
        [shutil.which("prometheus"), f"--config.file={tmp_path / 'prometheus.yml'}",
         f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}"],
        stdout=log, stderr=log,
    )  # fmt: skip

    def ask(query):
        url = f"http://{address}/api/v1/query?query={urllib.parse.quote(query)}"
        try:
            return json.loads(read_url(url, timeout=5))["data"]["result"]
        except OSError:
            return []

    def wait_for(query):
        deadline = time.monotonic() + SOON_S
        while not (found := ask(query)):
            assert time.monotonic() < deadline, query
            answers(gateway)
            time.sleep(0.5)
        return found

    try:
        up = wait_for('up{job="triton"} + on() up{job="gateway"} == 2')
        assert up
        (bob,) = wait_for('sum(envoy_vhost_vcluster_upstream_rq{envoy_virtual_cluster="bob"}) > 3')
        assert float(bob["value"][1]) > 3
        wait_for('reverse_sigmoid_requests_total{model="digits_reverse_sigmoid"} > 3')
        assert ask('ALERTS{alertname="TargetDown"}') == []
    finally:
        process.terminate()
        process.wait(SOON_S)
        log.close()

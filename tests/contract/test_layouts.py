"""Both layouts take the same words; what the table of exporters/README.md says of them holds."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import call_command
from onnx import TensorProto
from pages import PAGES
from ports import free_ports
from serving import read_url
from victims import linear_file, node

from deploy.triton.server import TritonServer
from load_tests.asking.endpoint import Endpoint, EndpointError

DEPLOY = Path(__file__).parents[2] / "deploy"


def rows(heading):
    """Return what a table says, by the text in its first column: ensemble, fused."""
    _, _, rest = PAGES["exporters/README.md"].partition(f"| {heading} | ensemble | fused |\n")
    table = rest[: rest.index("\n\n")].splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {first: tuple(said) for first, *said in cells}


OPTIONS = rows("asked of `protect`")
SERVED = rows("while it is served")


def classifier(tmp_path):
    """Return a file with two heads."""
    more = [node("Sigmoid", ["scores"], ["more"])]
    outputs = [("more", TensorProto.FLOAT, ("N", 4))]
    return linear_file(tmp_path / "m.onnx", ("Identity", {}), more=more, more_outputs=outputs)


@pytest.mark.parametrize("layout", ["ensemble", "fused"])
@pytest.mark.parametrize("asked", OPTIONS)
def test_a_layout_takes_what_the_table_says_and_refuses_the_rest_with_a_way_out(
    tmp_path, asked, layout
):
    options = shlex.split(asked.strip("`"))
    if "--output" not in options:  # a head that nobody names would leave raw
        options += ["--output", "scores"]
    models = tmp_path / "models"
    done = call_command("protect", classifier(tmp_path), "--repository", models, "--scores",
                        "logits", "--layout", layout, *options, cwd=tmp_path)  # fmt: skip
    said = OPTIONS[asked][layout == "fused"]
    if said == "yes":
        assert done.returncode == 0, done.stderr
        assert (models / "m" / "config.pbtxt").is_file()
        return
    assert said.startswith("refused: ")
    assert done.returncode == 1
    assert not models.exists()
    assert re.search("use --layout ensemble|or --layout ensemble|needs no package", done.stderr)


@pytest.mark.slow
def test_served_models_of_both_layouts_are_as_the_table_says(tmp_path):
    models = tmp_path / "models"
    for layout in ("ensemble", "fused"):
        path = linear_file(tmp_path / f"{layout}.onnx", ("Identity", {}))
        done = call_command("protect", path, "--repository", models, "--scores", "logits",
                            "--layout", layout, cwd=tmp_path)  # fmt: skip
        assert done.returncode == 0, done.stderr
    odd = np.zeros((2, 6), np.float32)
    odd[1] = np.nan
    with TritonServer(models, ports=free_ports(), log=tmp_path / "triton.log") as server:
        found = {}
        for layout in ("ensemble", "fused"):
            with Endpoint(server.grpc_url, layout) as endpoint:
                good = endpoint(odd[:1])
                assert abs(good.sum() - 1) <= 1e-6
                if SERVED["a row that is not finite"][layout == "fused"] == "an error":
                    with pytest.raises(EndpointError, match="row 1 of the request cannot be"):
                        endpoint(odd)
                    found[layout] = "an error"
                else:
                    answer = endpoint(odd)
                    assert np.abs(answer[0] - good[0]).max() <= 1e-6
                    found[layout] = f"{answer[1].max():g} in all its entries"
                    assert (answer[1] == answer[1, 0]).all()
        metrics = read_url(f"http://127.0.0.1:{server.ports.metrics}/metrics")
    ours = {layout: "yes" if re.search(rf'^reverse_sigmoid_\w+{{model="{layout}[_"]', metrics,
                                       re.MULTILINE) else "no" for layout in found}  # fmt: skip
    assert {
        "a row that is not finite": (found["ensemble"], found["fused"]),
        "`reverse_sigmoid_*` metrics": (ours["ensemble"], ours["fused"]),
        "`nv_inference_*` metrics under the public name": ("yes", "yes"),
    } == SERVED
    # What alerts and dashboard read of a model exists of either layout, under its public name.
    read = (DEPLOY / "prometheus" / "alerts.yaml").read_text()
    read += json.dumps(json.loads(next((DEPLOY / "grafana").rglob("*.json")).read_text()))
    wanted = set(re.findall(r"\bnv_\w+", read))
    assert {"nv_inference_request_success", "nv_inference_request_failure"} <= wanted
    for name in wanted:
        for layout in found:
            assert re.search(rf'^{name}{{model="{layout}"', metrics, re.MULTILINE), (name, layout)
    assert 'nv_inference_request_failure{model="fused",reason="BACKEND"' in metrics

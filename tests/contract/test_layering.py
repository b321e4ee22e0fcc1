import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ["postprocess", "exporters", "load_tests", "deploy"]
#: What the defence may import: it runs in Triton's container, where only NumPy is installed.
POSTPROCESS_NEEDS = {"numpy", "triton_python_backend_utils"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer):
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in (ROOT / layer).rglob("*.py"):
        assert not above & set(imports(path)), path


def test_the_defence_imports_numpy_and_nothing_else():
    for path in (ROOT / "postprocess").glob("*.py"):
        foreign = set(imports(path)) - set(sys.stdlib_module_names) - {"postprocess"}
        assert foreign <= POSTPROCESS_NEEDS, path

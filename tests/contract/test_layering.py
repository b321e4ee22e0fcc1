import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Each imports those before it alone.
PACKAGES = ["postprocess", "exporters", "load_tests", "deploy"]
#: What the defence may import: it runs in Triton's container, where only NumPy is installed.
POSTPROCESS_NEEDS = {"numpy", "triton_python_backend_utils"}
#: Room to the rooms of its package that it may import. Modules of the package itself may be
#: imported by all, and import none, but for those that have a line of their own.
ROOMS = {
    "load_tests": {
        "stealing": set(),
        "timing": set(),
        "runs": {"stealing", "timing"},
        "users": {"stealing", "timing"},
        "locustfile": {"stealing", "timing", "users"},
        "tune": {"stealing", "timing", "runs"},
        "paper": {"stealing", "timing", "runs"},
    },
    "deploy": {
        "processes": set(),
        "repository": set(),
        "triton": {"processes", "repository"},
        "supervision": {"processes", "repository", "triton"},
        "gateway": {"processes", "repository", "triton"},
        "audit": set(),
        "hostile": {"audit"},
        "benchmarks": {
            *("processes", "repository", "triton", "supervision", "gateway", "audit", "hostile"),
        },
        "commands": {
            *("processes", "repository", "triton", "supervision", "gateway", "audit", "hostile"),
            "benchmarks",
        },
        "entry": {"commands"},
    },
}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path):
    """Yield the dotted names of all that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top(name):
    return name.split(".")[0]


def room(path, package):
    """Return the room of a module: its folder in the package, or itself."""
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package):
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for path in modules(package):
        assert not above & {top(name) for name in imports(path)}, path


def test_the_defence_imports_numpy_and_nothing_else():
    for path in modules("postprocess"):
        used = {top(name) for name in imports(path)}
        foreign = used - set(sys.stdlib_module_names) - {"postprocess"}
        assert foreign <= POSTPROCESS_NEEDS, path


@pytest.mark.parametrize("package", ROOMS)
def test_every_folder_is_a_room_with_rules(package):
    folders = {room(path, package) for path in modules(package) if path.parent != ROOT / package}
    assert folders <= set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_are_entered_by_their_doors(package):
    rules = ROOMS[package]
    wrong = []
    for path in modules(package):
        here = room(path, package)
        for name in imports(path):
            if top(name) != package or name.count(".") < 1:
                continue
            there = name.split(".")[1]
            if there in rules and there != here and there not in rules.get(here, set()):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong

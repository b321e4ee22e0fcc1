import ast
import re
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_OF_A_MODULE, LINES_OF_A_FUNCTION = 400, 60
#: Each imports those before it alone.
PACKAGES = ["postprocess", "exporters", "load_tests", "deploy"]
#: What the defence may import: it runs in Triton's container, where only NumPy is installed.
POSTPROCESS_NEEDS = {"numpy", "triton_python_backend_utils"}
#: Room to the rooms of its package that it may import. Modules of the package itself may be
#: imported by all, and import none, but for those that have a line of their own.
ROOMS = {
    "exporters": {
        "files": set(),
        "graph": set(),
        "reading": {"graph"},
        "fusing": {"graph"},
        "repository": {"files", "graph"},
        "training": {"files", "graph"},
        "question": {"graph", "reading"},
        "verify": {"graph", "reading", "fusing", "repository"},
        "protect": {"files", "graph", "reading", "fusing", "repository", "question", "verify"},
        "pipeline": {"files", "graph", "repository", "training", "question"},
    },
    "load_tests": {
        "data": set(),
        "asking": {"data"},
        "reporting": set(),
        "stealing": {"data", "asking", "reporting"},
        "timing": {"data", "asking", "reporting"},
        "calibrate": {"reporting"},
        "runs": {"data", "asking", "reporting", "stealing", "timing", "calibrate"},
        "users": {"data", "asking", "stealing", "timing"},
        "locustfile": {"asking", "stealing", "timing", "users"},
        "frontier": {"reporting", "stealing", "runs", "calibrate"},
        "tune": {"data", "reporting", "stealing", "timing", "runs", "frontier"},
        "paper": {"reporting", "stealing", "timing", "runs", "calibrate"},
    },
    "deploy": {
        "processes": set(),
        "repository": set(),
        "triton": {"processes", "repository"},
        "existing": {"processes", "repository", "triton"},
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
            "existing",
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


#: Triton's own names, which it looks for.
TRITONS = {"TritonPythonModel"}


def public_names(path):
    """Yield the classes and type aliases that a module defines for others."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_one_name_means_one_thing():
    places = defaultdict(list)
    for package in PACKAGES:
        for path in modules(package):
            for name in public_names(path):
                if name not in TRITONS and name[0] != "_":
                    places[name].append(str(path.relative_to(ROOT)))
    assert not {name: where for name, where in places.items() if len(where) > 1}


def rooms_and_houses():
    """Return the folder of each package, that of all its modules included."""
    return [path.parent for package in PACKAGES for path in modules(package)
            if path.name == "__init__.py"]  # fmt: skip


@pytest.mark.parametrize("folder", rooms_and_houses(), ids=lambda one: str(one.relative_to(ROOT)))
def test_a_package_names_every_module_of_its_folder(folder):
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    named = set(re.findall(r"``([\w/]+)(?:\.py)?``", said))
    there = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert there <= named, f"not named: {', '.join(sorted(there - named))}"


def test_no_module_is_long():
    for package in PACKAGES:
        for path in modules(package):
            assert len(path.read_text().splitlines()) <= LINES_OF_A_MODULE, path


def test_no_function_is_long():
    long = []
    for package in PACKAGES:
        for path in modules(package):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = node.end_lineno - node.lineno + 1
                    if lines > LINES_OF_A_FUNCTION:
                        long.append(f"{path.relative_to(ROOT)}: {node.name}: {lines}")
    assert not long


def imported_at_once(path):
    """Yield the dotted names of what a module imports when it is imported itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def test_no_imports_go_in_a_circle():
    def dotted(path):
        return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    known = {dotted(path): path for package in PACKAGES for path in modules(package)}
    needs = {
        name: known.keys() & set(imported_at_once(path)) - {name} for name, path in known.items()
    }
    TopologicalSorter(needs).prepare()

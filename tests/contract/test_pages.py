"""What the pages name exists: links, commands with their options, modules, files, numbers."""

import re
import subprocess
import sys
from importlib.util import find_spec
from xml.etree import ElementTree

import numpy as np
import pytest
from pages import (
    PAGES,
    README,
    ROOT,
    SHELL,
    WRITTEN,
    blocks,
    command_names,
    options_of,
    ours,
    spans,
    understood,
)

from exporters.repository.model_repository import SHIPPED
from postprocess.postprocessor import Postprocessor

LINES_OF_THE_README = 200
#: Its parts, in their order; before them stand one sentence, a picture, a table and a plot.
PARTS = [
    *("What it does not stop", "Quick start", "Protect your own model", "Serve safely"),
    *("Which answers for whom", "What it costs", "Attack it yourself", "Commands"),
    *("Layout and tests", "References"),
]
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
#: Of pytest's options those that a page names.
OF_PYTEST = {"--dist"}
WAY = ROOT / "deploy" / "images" / "way.svg"


def without_old_names(name):
    """Return a page; of the changelog's table of moved names the new ones alone."""
    return re.sub(r"^\| `[^|]*` \|", "|", PAGES[name], flags=re.MULTILINE)


def anchors(text):
    """Return the anchors that GitHub gives the headings of a page."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


def module_exists(name):
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_the_readme_is_an_index_of_at_most_200_lines():
    assert len(README.splitlines()) <= LINES_OF_THE_README
    assert re.findall(r"^## (.*)$", README, re.MULTILINE) == PARTS
    before = README.partition("\n## ")[0]
    assert before.index("way.svg") < before.index("**stolen") < before.index(".svg)\n\n<sub>Each")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    for link in LINK.findall(PAGES[name]):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / place).resolve() if place else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_the_readme_leads_to_every_other_page():
    linked = {link.partition("#")[0] for link in LINK.findall(README)}
    assert set(WRITTEN) - {"README.md"} <= linked


@pytest.mark.parametrize("name", WRITTEN)
def test_no_block_escapes_and_the_command_line_takes_all_that_is_shown(name):
    fences = re.findall(r"^ *```(.*)$", PAGES[name], re.MULTILINE)
    assert fences[1::2] == [""] * (len(fences) // 2)
    assert set(fences[::2]) <= {"bash", "sh", "text", "python", "yaml"}
    for words in ours(PAGES[name]):
        assert understood(words), words


def test_every_command_has_its_line_in_the_readme_and_no_other_has():
    table = README.partition("## Commands\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| .+ \| \[.*\]\(.*\) \|$", table, re.MULTILINE)
    assert sorted(rows) == sorted(command_names())


@pytest.fixture(scope="module")
def of_locust():
    """The options of Locust, its own and those that the locustfile adds."""
    # In a process of its own, because an import of Locust changes sockets and threads.
    show = """if True:
        from locust.argument_parser import get_parser
        from load_tests.users.options import add_options
        add_options(parser := get_parser())
        parser.print_help()"""
    shown = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z-]+", shown.stdout))


@pytest.mark.parametrize("name", WRITTEN)
def test_every_option_in_the_running_text_is_one_of_its_command(name, of_locust):
    known = set(command_names())
    in_sources = {
        option
        for path in (*ROOT.glob("deploy/benchmarks/*.py"), *ROOT.glob("load_tests/timing/*.py"))
        for option in re.findall(r'"(--[a-z-]+)"', path.read_text())
    }
    anywhere = of_locust.union(OF_PYTEST, in_sources, *map(options_of, known))
    for span in spans(without_old_names(name)):
        words = span.removeprefix("reverse-sigmoid ").split()
        assert words[0] in known or not span.startswith("reverse-sigmoid "), span
        options = set(re.findall(r"(?<!\S)--[a-z-]+", "" if words[0] == "git" else span))
        assert options <= (options_of(words[0]) if words[0] in known else anywhere), span


def test_locust_takes_the_options_that_are_shown(of_locust):
    (shown,) = [each for each in blocks(SHELL) if each.startswith("locust ")]
    assert set(re.findall(r"(?<!\S)--[a-z-]+", shown)) <= of_locust


def test_every_python_m_is_a_module_with_the_options_beside_it():
    found = set()
    for name in WRITTEN:
        text = without_old_names(name)
        for shown in (*spans(text), *"".join(blocks(SHELL, text)).splitlines()):
            for module, rest in re.findall(r"\bpython -m ([\w.]+)(.*)", shown):
                found.add(module)
                if module.split(".")[0] in ("postprocess", "exporters", "load_tests", "deploy"):
                    assert module_exists(module), shown
                    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
                    for option in re.findall(r"(?<= )--[a-z-]+", rest):
                        assert f'"{option}"' in source, shown
                else:
                    assert find_spec(module), shown
    assert {"postprocess.ready", "deploy.benchmarks.soak"} <= found


@pytest.mark.parametrize("name", WRITTEN)
def test_every_module_and_file_of_ours_that_is_named_exists(name):
    packages = "postprocess|exporters|load_tests|deploy|tests"
    for span in spans(without_old_names(name)):
        for dotted in re.findall(rf"(?<![\w./-])(?:{packages})(?:\.\w+)+", span):
            parts = dotted.split(".")
            assert module_exists(dotted) or module_exists(".".join(parts[:-1])), dotted
        for path in re.findall(rf"(?<![\w./$-])(?:{packages})/[\w./-]+", span):
            assert "NAME" in path or (ROOT / path).exists(), path


def test_every_registry_that_is_named_is_one():
    registries = re.findall(r"`([A-Z]+)`\s+of\s+`([\w/]+\.py)`", "\n".join(PAGES.values()))
    assert len(registries) >= 7
    for name, path in registries:
        assert re.search(rf"^{name}\b.* = ", (ROOT / path).read_text(), re.MULTILINE), (name, path)


def test_the_hardened_modes_are_those_of_the_runs():
    page, results = PAGES["postprocess/README.md"], PAGES["load_tests/paper/RESULTS.md"]
    head = "| mode | P agreement |"
    shown = page[page.index(head) :].partition("\n\n")[0]
    tables = [head + rest.partition("\n\n")[0] for rest in results.split(head)[1:]]
    assert shown in tables


def test_what_the_readme_says_in_short_its_folders_say_at_length():
    attacks = README.partition("## Attack it yourself")[2].partition("\n## ")[0]
    rows = re.findall(r"(\| 0\.\d+ \| 0\.\d+ \| 0\.\d+ \|)$", attacks, re.MULTILINE)
    assert len(rows) == 4
    assert all(row in PAGES["load_tests/README.md"] for row in rows)
    costs = README.partition("## What it costs")[2].partition("\n## ")[0]
    for way in ("fused", "ensemble", "labels only"):
        (short,) = re.findall(rf"^\| {way}.*?((?:\| [\d.]+ )+)\|$", costs, re.MULTILINE)
        long = re.findall(rf"^\| \| {way} \| ([\d.]+),", PAGES["deploy/README.md"], re.MULTILINE)
        assert [f"{float(each):.2f}" for each in long] == re.findall(r"[\d.]+", short)


def test_the_picture_shows_an_answer_as_it_is_served_and_brings_its_own_background():
    text = WAY.read_text()
    root = ElementTree.fromstring(text)  # noqa: S314
    said = " ".join(root.find("{*}desc").text.split())
    raw, served = [
        [float(number) for number in numbers.split(", ")]
        for numbers in re.findall(r"0\.\d\d(?:, 0\.\d\d)+", said)
    ]
    answer = Postprocessor(SHIPPED)(np.log(np.array([raw], np.float32)))
    assert answer.round(2).tolist()[0] == pytest.approx(served)
    for number in (*raw, *served):
        assert f">{number:.2f}</text>" in text
    assert "prefers-color-scheme: dark" in text
    page = root.find("{*}rect")
    assert page.get("class") == "page"
    assert float(page.get("width")) >= float(root.get("width")) - 2

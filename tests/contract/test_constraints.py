"""The set of versions that README installs can be installed on every Python that is supported."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ABOUT = metadata.metadata("triton-reverse-sigmoid")
CONSTRAINTS = Path(__file__).parents[2] / "deploy" / "constraints.txt"
PINS = [
    Requirement(line)
    for line in CONSTRAINTS.read_text().splitlines()
    if line and not line.startswith("#")
]
PYTHONS = [
    found[1]
    for one in ABOUT.get_all("Classifier", [])
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", one))
]


def pins(python):
    """Return the pins for one Python by the name of their package."""
    return [
        (canonicalize_name(pin.name), pin)
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate({"python_version": python})
    ]


def test_the_pythons_that_are_named_are_those_that_pip_takes():
    taken = SpecifierSet(ABOUT["Requires-Python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in taken] == PYTHONS


@pytest.mark.parametrize("python", PYTHONS)
def test_no_package_is_pinned_twice(python):
    names = [name for name, _ in pins(python)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_installed_by_a_pin_takes_every_python_that_the_pin_is_for(python):
    installed = {canonicalize_name(one.name): one for one in metadata.distributions()}
    pinned = [
        (str(pin), installed[name].metadata.get("Requires-Python") or "")
        for name, pin in pins(python)
        if name in installed and installed[name].version in pin.specifier
    ]
    assert len(pinned) > 20
    assert [pin for pin, taken in pinned if f"{python}.0" not in SpecifierSet(taken)] == []

"""The versions of a model in a repository, and which of them Triton serves."""

import re
from pathlib import Path
from typing import Any

#: What is said of a folder that ``misread`` finds.
MISREAD = (
    "Triton takes it for the version that its name begins with, and fails as there is no folder of "
    "that; call it something that begins with a letter, or remove it"
)

_VERSION = re.compile(r"0(?![0-9])|[1-9][0-9]*")


def folders(model: Path) -> list[Path]:
    """Return a model's version folders, oldest first; none where it was just removed.

    Triton passes over those with leading zeros, and those in other digits than ASCII's.
    """
    found = [one for one in _inside(model) if _VERSION.fullmatch(one.name)]
    return sorted(found, key=lambda folder: int(folder.name))


def misread(model: Path, config: Any) -> Path | None:
    """Return a folder that is no version, and that Triton takes for one it serves; mostly None.

    It goes by how a name begins: with ``2_old`` it looks for the files of version 2, in ``2``.

    Args:
        model: its folder.
        config: its ``ModelConfig``.
    """
    begun = {
        int(found[0]): one
        for one in _inside(model)
        if (found := _VERSION.match(one.name)) and not one.name.isdecimal()
    }
    numbers = {int(one.name) for one in folders(model)}
    for number in _by_policy(sorted(numbers | begun.keys()), config):
        if number not in numbers:
            return begun[number]
    return None


def _inside(model: Path) -> list[Path]:
    try:
        return [one for one in model.iterdir() if one.is_dir()]
    except OSError:
        return []


def served(model: Path, config: Any, pinned: int = -1) -> list[Path]:
    """Return those that Triton serves, oldest first.

    Args:
        model: its folder.
        config: its ``ModelConfig``.
        pinned: the only one that a step of an ensemble asks for; 0 or less: as the policy says.
    """
    found = {int(one.name): one for one in folders(model)}
    if pinned > 0:
        return [found[pinned]] if pinned in found else []
    return [found[number] for number in _by_policy([*found], config)]


def _by_policy(numbers: list[int], config: Any) -> list[int]:
    """Return which of some versions, in ascending order, a config's policy has served."""
    policy = config.version_policy
    which = policy.WhichOneof("policy_choice")
    if which == "all":
        return numbers
    if which == "specific":
        return [number for number in numbers if number in policy.specific.versions]
    return numbers[-max(1, policy.latest.num_versions) :]


def graph(version: Path, config: Any) -> Path:
    """Return where a version's ONNX file is expected."""
    return version / (config.default_model_filename or "model.onnx")

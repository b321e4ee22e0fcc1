"""The versions of a model in a repository, and which of them Triton serves."""

from pathlib import Path
from typing import Any


def folders(model: Path) -> list[Path]:
    """Return a model's version folders, oldest first; none where it was just removed."""
    try:
        found = [one for one in model.iterdir() if one.is_dir() and one.name.isdecimal()]
    except OSError:
        return []
    return sorted(found, key=lambda folder: int(folder.name))


def served(model: Path, config: Any, pinned: int = -1) -> list[Path]:
    """Return those that Triton serves, oldest first.

    Args:
        model: its folder.
        config: its ``ModelConfig``.
        pinned: the only one that a step of an ensemble asks for; 0 or less: as the policy says.
    """
    found, policy = folders(model), config.version_policy
    which = policy.WhichOneof("policy_choice")
    if pinned > 0:
        return [one for one in found if int(one.name) == pinned]
    if which == "all":
        return found
    if which == "specific":
        return [one for one in found if int(one.name) in policy.specific.versions]
    return found[-max(1, policy.latest.num_versions) :]


def graph(version: Path, config: Any) -> Path:
    """Return where a version's ONNX file is expected."""
    return version / (config.default_model_filename or "model.onnx")

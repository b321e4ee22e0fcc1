"""Which models of a repository are public, and which of them are protected, by their files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.repository import model_config, protected
from exporters.repository import record, versions
from exporters.repository.model_repository import classifier_name, defence_name
from postprocess.errors import InputError


@dataclass(frozen=True)
class Listing:
    """The public models of a repository; what stands behind one of them is not among them."""

    protected: list[Path]
    unprotected: list[Path]
    undoable: list[Path]  #: those that were protected in place, if only half way


def is_repository(folder: Path) -> bool:
    """Say whether a folder holds models and is none."""
    return folder.is_dir() and not _is_model(folder) and any(_models(folder))


def look(repository: Path) -> Listing:
    """Return the public models of a repository, in the order of their names.

    A model whose config.pbtxt cannot be read is among the unprotected ones: whoever takes it says
    why. A defence that cannot be read, or whose parameters are refused, is a defence.
    """
    configs: dict[str, Any] = {}
    defences = set()
    for folder in _models(repository):
        name, path = folder.name, folder / "config.pbtxt"
        try:
            config = model_config.read(path)
            defence = model_config.may_be_defence(config)
        except InputError:
            config, defence = model_config.parse("", path), name.endswith(defence_name(""))
        config.name = name
        configs[name] = config
        defences |= {name} if defence else set()
    steps = {name: {*model_config.step_names(one)} for name, one in configs.items()}
    public = {one.name for one in protected.among(configs)}
    public |= {name for name, ran in steps.items() if ran & defences}
    behind = defences.union(*steps.values())
    undoable = sorted(set(configs).intersection(record.holders(repository)))
    # Half way, the classifier is no step of anything yet.
    behind |= set(map(classifier_name, undoable))
    rest = set(configs) - public - behind

    def folders(names: Iterable[str]) -> list[Path]:
        return [repository / name for name in sorted(names)]

    return Listing(folders(public), folders(rest), folders(undoable))


def _models(repository: Path) -> Iterator[Path]:
    for folder in sorted(repository.iterdir()):
        if folder.is_dir() and folder.name[0] != "." and _is_model(folder):
            yield folder


def _is_model(folder: Path) -> bool:
    return (folder / "config.pbtxt").exists() or bool(versions.folders(folder))

"""A second public model over the same classifier: other answers, by a defence of its own.

The classifier and its weights are there once, and serve both.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from deploy.existing import config_text, placing_in
from deploy.repository import answers, model_config
from exporters.protect import folder_beside
from exporters.repository import record
from exporters.repository.model_repository import classifier_name, refuse_name
from postprocess.errors import InputError

_KEPT_OUT = shutil.ignore_patterns(record.HOLDER, "__pycache__")


def name_of(name: str, kind: str) -> str:
    """Return what the second model with such answers is called."""
    return f"{name}_{kind}"


def refuse(folder: Path, kind: str, *, force: bool = False) -> None:
    """Refuse a second model that could not be called so, or that exists.

    Args:
        folder: of the first, which need not be there yet.
        kind: of its answers.
        force: what exists is to be replaced.

    Raises:
        InputError: the reason.
    """
    second = folder.with_name(name_of(folder.name, kind))
    refuse_name(second.name, where=f"--also {kind}")
    for path in (second, *second.parent.glob(f"{second.name}_*reverse_sigmoid")):
        if path.exists() and not force:
            raise InputError(f"{path} exists; give --force to replace it, or remove it")


def add(
    folder: Path, kind: str, change: Callable[[Path], object], *, force: bool = False
) -> list[str]:
    """Write the second model beside the first and return its models' names, its own first.

    A server that polls the repository finds the defences first, then the ensemble.

    Args:
        folder: of the first, an ensemble with a defence for each output of scores.
        kind: of its answers.
        change: has the defence in a folder answer so.
        force: replace a second model that exists.

    Raises:
        InputError: the first is no such ensemble, or the second would replace something.
    """
    refuse(folder, kind, force=force)
    repository, public = folder.parent, name_of(folder.name, kind)
    if not model_config.read(folder / "config.pbtxt").ensemble_scheduling.step:
        raise InputError(
            f"{folder}: --also {kind}: expected an ensemble; a fused model holds its weights, and "
            "a second one would hold them again"
        )
    names = {
        one.name: public + one.name.removeprefix(folder.name) for one in answers.defences(folder)
    }
    with folder_beside(repository) as work:
        staged = Path(work)
        for old, new in {**names, folder.name: public}.items():
            shutil.copytree(repository / old, staged / new, ignore=_KEPT_OUT)
            config = staged / new / "config.pbtxt"
            try:
                text = config_text.renamed(config.read_text(encoding="utf-8"), new)
                if new == public:
                    text = config_text.with_steps_renamed(text, names)
            except InputError as error:
                raise InputError(f"{repository / old / config.name}: {error}") from None
            text = text.replace(f'the ensemble "{folder.name}"', f'the ensemble "{public}"')
            config.write_text(text, encoding="utf-8")
            if new != public:
                change(staged / new)
        gone = staged / "replaced"
        gone.mkdir()
        for defence in names.values():  # one at its load would stop Triton's poller for good
            if (repository / defence).exists():
                time.sleep(placing_in.settles_in_s(repository / defence))
        placing_in.take_away(repository, [public, *names.values()], gone)
        for new in names.values():
            shutil.move(staged / new, repository / new)
        time.sleep(placing_in.SCAN_S)
        shutil.move(staged / public, repository / public)
    return [public, *names.values()]


def written(folder: Path, defences: Collection[str]) -> list[str]:
    """Return the models that ``add`` has written beside one, ensembles before their defences.

    Args:
        folder: of the first, as it was or protected.
        defences: its own.
    """
    classifier = classifier_name(folder.name)
    shared = {classifier} if folder.with_name(classifier).exists() else _steps(folder, defences)
    found: list[str] = []
    for kind in answers.KINDS:
        second = folder.with_name(name_of(folder.name, kind))
        with contextlib.suppress(InputError):
            own = [one.name for one in answers.defences(second)]
            if _steps(second, own) == shared:
                found += [second.name, *own]
    return found


def _steps(folder: Path, without: Collection[str]) -> set[str]:
    config = model_config.read(folder / "config.pbtxt")
    return {*model_config.step_names(config)} - {*without}

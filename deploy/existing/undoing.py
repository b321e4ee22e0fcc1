"""A model that was protected in place, as it was before, byte for byte."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.existing import placing_in, record, second, staging
from deploy.existing.record import Record
from deploy.repository import model_config
from exporters.graph.onnx_run import one_line
from exporters.repository.model_repository import classifier_name
from load_tests.asking.endpoint import connect
from postprocess.errors import InputError

#: How long a server may take to serve the original again.
SERVED_S = 120.0


@dataclass(frozen=True)
class Undone:
    """What stands again, and what went."""

    folder: Path
    removed: list[str]
    kept: list[str]  #: files that came since, which stayed


def undo(
    folder: Path, *, url: str = "", force: bool = False, poll_s: float = placing_in.POLL_S
) -> Undone:
    """Give a model back as it was, in whatever state protecting it has ended.

    Args:
        folder: of the public model.
        url: HOST:PORT of the Triton that polls the repository: once it serves the original, what
            stood behind goes.
        force: give up what was edited since in the config.pbtxt of the model.
        poll_s: without a server to ask, how long one may take to serve the original.

    Raises:
        InputError: there is nothing to undo, or something has changed since.
    """
    done, failed = undo_each([folder], url=url, force=force, poll_s=poll_s)
    for error in failed.values():
        raise error
    return done[0]


def undo_each(
    folders: Sequence[Path],
    *,
    url: str = "",
    force: bool = False,
    poll_s: float = placing_in.POLL_S,
    tell: Callable[[str], object] = lambda said: None,
) -> tuple[list[Undone], dict[Path, InputError]]:
    """Give models back as they were, which is waited for once, and return what stands, what fails.

    Args:
        folders: of the public models.
        url: as of ``undo``, and so are ``force`` and ``poll_s``.
        tell: gets a line that says what is waited for.
    """
    restored: list[Restored] = []
    failed: dict[Path, InputError] = {}
    done = []
    for folder in folders:
        try:
            restored.append(_give_back(folder, force=force))
        except InputError as error:
            failed[folder] = error
    names = ", ".join(one.folder.name for one in restored)
    if restored and not url:
        tell(
            f"{names}: back in place. Waiting {poll_s:g} s, in which a server that polls the "
            "repository takes it up, before what stood behind goes; with --url only as long as "
            "that server needs"
        )
        time.sleep(poll_s)
    for one in restored:
        try:
            if url:
                tell(f"{one.folder.name}: back in place. Waiting until {url} serves it")
                _wait_for_original(one, url)
            with placing_in.beside(one.folder.parent) as work:
                placing_in.take_away(one.folder.parent, one.steps, work)
            done.append(Undone(one.folder, one.steps, one.kept))
        except InputError as error:
            failed[one.folder] = error
    return done, failed


@dataclass(frozen=True)
class Restored:
    """A model that stands as it was, and what stands behind it still."""

    folder: Path
    steps: list[str]  #: the defence last
    kept: list[str]


def _give_back(folder: Path, *, force: bool) -> Restored:
    """Put the original in its place, if it does not stand there."""
    kept = record.read(folder)
    repository, classifier = folder.parent, classifier_name(folder.name)
    behind = [classifier] if kept.holder == classifier else []
    steps = [*second.written(folder, kept.defences), *behind, *kept.defences]
    if folder.is_dir() and record.config_of(folder) == kept.config:
        return Restored(folder, steps, [])
    _refuse_another(folder, kept.defences[-1])
    with placing_in.beside(repository) as work:
        more = _restore(folder, kept, work / folder.name, force=force)
        placing_in.touch(work / folder.name)
        try:
            if folder.exists():
                placing_in.exchange(work / folder.name, folder)
            else:
                os.rename(work / folder.name, folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be moved: {error.strerror}") from None
    return Restored(folder, steps, more)


def _refuse_another(folder: Path, defence: str) -> None:
    """Refuse a model that is neither the protected nor the original one."""
    if not folder.exists():
        return
    config = model_config.read(folder / "config.pbtxt")
    if defence not in [step.model_name for step in config.ensemble_scheduling.step]:
        raise InputError(
            f"{folder / 'config.pbtxt'}: neither the protected model nor the original: it was "
            f"edited since; the original is in {folder.parent / defence / record.HOLDER}"
        )


def _restore(folder: Path, kept: Record, target: Path, *, force: bool) -> list[str]:
    """Make the original stand in a folder, and return the files that came since."""
    holder = folder.parent / kept.holder
    there, folders = record.contents(holder)
    gone = sorted(set(kept.files) - set(there))
    if gone:
        raise InputError(f"{holder / gone[0]}: gone since it was protected; put it back first")
    config = holder / "config.pbtxt"
    if record.digest(config) != kept.written["config.pbtxt"] and not force:
        raise InputError(
            f"{config}: edited since it was protected, which would be lost; give --force, and edit "
            "the original again"
        )
    more = [
        one
        for one in there
        if one not in kept.files and one not in kept.written and "__pycache__" not in one
    ]
    needed = {str(parent) for one in more for parent in Path(one).parents}
    target.mkdir()
    for one in folders:
        if one in kept.folders or one in needed:
            (target / one).mkdir()
            staging.copy_mode(holder / one, target / one)
    for one in (*kept.files, *more):
        if one != "config.pbtxt":
            staging.link(holder / one, target / one)
    if kept.config is not None:
        # No link: it will be touched, and what a server sees change in the defence it loads again.
        original = folder.parent / kept.defences[-1] / record.HOLDER / "config.pbtxt"
        shutil.copy2(original, target / "config.pbtxt")
    staging.copy_mode(holder, target)
    return more


def _wait_for_original(one: Restored, url: str) -> None:
    """Return once a server serves the original, and is not at the load of what stands behind."""
    from tritonclient.utils import InferenceServerException

    reason, start, taken_up_s = "", time.monotonic(), 0.0
    with connect(url) as client:
        while time.monotonic() < start + SERVED_S:
            try:
                reason = not_yet(client, one, within_s=placing_in.POLL_S + taken_up_s)
                if reason == _PROTECTED:
                    taken_up_s = time.monotonic() - start
                if not reason:
                    time.sleep(placing_in.SCAN_S)  # requests to the old one end
                    return
            except (InferenceServerException, OSError) as error:
                reason = one_line(error)
            time.sleep(0.2)
    raise InputError(
        f"--url {url}: {reason}, after {SERVED_S:g} s; the original stands in the repository "
        "again. Once it is served, --undo takes away what stood behind the protected one"
    )


#: What is said as long as a server has not taken the original up.
_PROTECTED = "it still serves the protected model"


def not_yet(client: Any, one: Restored, within_s: float = placing_in.POLL_S) -> str:
    """Return why what stands behind a model cannot be taken away yet, "" where it can be.

    Args:
        client: of the server.
        one: the model.
        within_s: see ``placing_in.settles_in_s``; longer where the server was seen to be slow.
    """
    name, defence = one.folder.name, one.steps[-1]
    config = client.get_model_config(name, client_timeout=5).config
    steps = [step.model_name for step in config.ensemble_scheduling.step]
    if defence in steps or not client.is_model_ready(name, client_timeout=5):
        return _PROTECTED
    index = client.get_model_repository_index(client_timeout=5).models
    for step in one.steps:
        folder = one.folder.parent / step
        states = {entry.state for entry in index if entry.name == step}
        # What changed a moment ago it may be about to load, and what it has not seen at all.
        about_to = placing_in.settles_in_s(folder, within_s) > 0 or "" in states
        if folder.is_dir() and (about_to or "LOADING" in states):
            return f"it may be loading {step}"
    return ""

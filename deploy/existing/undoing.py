"""A model that was protected in place, as it was before, byte for byte."""

import filecmp
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.existing import placing_in, second, staging
from deploy.repository import model_config
from exporters.graph.onnx_run import one_line
from exporters.repository import record
from exporters.repository.model_repository import classifier_name
from exporters.repository.record import Record
from load_tests.asking.endpoint import connect
from postprocess.errors import InputError
from postprocess.question import FILE

#: Where there is no such folder.
_MAKE_SO = "make it so, and call --undo again"
#: How long a server may take to serve the original again.
SERVED_S = 120.0


@dataclass(frozen=True)
class Undone:
    """A model that stands as it was."""

    folder: Path
    removed: list[str]  #: the models that go for it, once no server needs them; the defence last
    kept: list[str]  #: files that came since, which stayed
    changed: list[str]  #: files that were written since, which are as they are now


def undo_each(
    folders: Sequence[Path],
    *,
    url: str = "",
    force: bool = False,
    poll_s: float = placing_in.POLL_S,
    tell: Callable[[str], object] = lambda said: None,
) -> tuple[list[Undone], dict[Path, InputError]]:
    """Give models back as they were, in whatever state protecting them has ended.

    Args:
        folders: of the public models.
        url: HOST:PORT of the Triton that polls the repository: once it serves the original, what
            stood behind goes.
        force: give up what was edited since in the config.pbtxt of a model.
        poll_s: without a server to ask, how long after the change one may still look there.
        tell: gets a line that says what is waited for.

    Returns:
        those that stand again, and of the others why: there is nothing to undo, or something has
        changed since.
    """
    restored: list[Undone] = []
    failed: dict[Path, InputError] = {}
    done = []
    for folder in folders:
        try:
            restored.append(_give_back(folder, force=force))
        except InputError as error:
            failed[folder] = error
    if not url:
        _wait_unseen(restored, poll_s, tell)
    for one in restored:
        try:
            if url:
                tell(f"{one.folder.name}: back in place. Waiting until {url} serves it")
                _wait_for_original(one, url)
            with placing_in.beside(one.folder.parent, _MAKE_SO) as work:
                placing_in.take_away(one.folder.parent, one.removed, work)
            done.append(one)
        except InputError as error:
            failed[one.folder] = error
    return done, failed


def _wait_unseen(restored: list[Undone], poll_s: float, tell: Callable[[str], object]) -> None:
    """Wait until a server that polls, which nobody here can see, has taken the originals up.

    What changed long ago, as when an earlier call was interrupted here, is not waited for.
    """
    changed = [
        folder
        for one in restored
        for folder in (one.folder, *(one.folder.with_name(name) for name in one.removed))
        if folder.exists()
    ]
    seconds = max((placing_in.settles_in_s(folder, poll_s) for folder in changed), default=0.0)
    if seconds > 0:
        tell(
            f"{', '.join(one.folder.name for one in restored)}: back in place. A server that polls "
            f"the repository may take {seconds:.0f} s to see it, and until then needs the models "
            "behind the protected one, which go after that. With --url HOST:PORT of that server "
            "it is asked instead; Ctrl-C loses nothing, the same command goes on"
        )
        time.sleep(seconds)


def _give_back(folder: Path, *, force: bool) -> Undone:
    """Put the original in its place, if it does not stand there."""
    kept = record.read(folder)
    repository, classifier = folder.parent, classifier_name(folder.name)
    behind = [classifier] if kept.holder == classifier else []
    steps = [*second.written(folder, kept.defences), *behind, *kept.defences]
    if folder.is_dir() and record.config_of(folder) == kept.config:
        return Undone(folder, steps, [], [])
    _refuse_another(folder, kept.defences[-1])
    with placing_in.beside(repository, _MAKE_SO) as work:
        more = _restore(folder, kept, work / folder.name, force=force)
        changed = [file for file, was in kept.stamps.items() if file != "config.pbtxt"
                   and record.stamp(work / folder.name / file) != was]  # fmt: skip
        placing_in.touch(work / folder.name)
        try:
            if folder.exists():
                placing_in.exchange(work / folder.name, folder)
            else:
                os.rename(work / folder.name, folder)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be moved: {error.strerror}; the protected model stands as it "
                "was: mend that, and call --undo again"
            ) from None
    return Undone(folder, steps, more, changed)


def _refuse_another(folder: Path, defence: str) -> None:
    """Refuse a model that is neither the protected nor the original one."""
    if not folder.exists():
        return
    config = model_config.read(folder / "config.pbtxt")
    if defence not in model_config.step_names(config):
        raise InputError(
            f"{folder / 'config.pbtxt'}: neither the protected model nor the original: it was "
            f"edited since; the original is in {folder.parent / defence / record.HOLDER}: copy it "
            "back, and call --undo again"
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
    beside = _came_beside(folder, kept)
    needed = {str(parent) for one in (*more, *beside) for parent in Path(one).parents}
    target.mkdir()
    for one in sorted({*folders, *needed} - {"."}):
        if one in kept.folders or one in needed:
            (target / one).mkdir()
            staging.copy_mode(holder / one if one in folders else folder / one, target / one)
    for one in (*kept.files, *more):
        if one != "config.pbtxt":
            staging.link(holder / one, target / one)
    for one in beside:
        staging.link(folder / one, target / one)
    os.utime(holder)  # a server that polls loads it again for the links
    if kept.config is not None:
        # No link: it will be touched, and what a server sees change in the defence it loads again.
        original = folder.parent / kept.defences[-1] / record.HOLDER / "config.pbtxt"
        shutil.copy2(original, target / "config.pbtxt")
    staging.copy_mode(holder, target)
    return [*more, *beside]


def _came_beside(folder: Path, kept: Record) -> list[str]:
    """Return the files that somebody has put into the public folder of a protected model.

    Raises:
        InputError: the model has another file of that name.
    """
    if kept.holder == folder.name or not folder.is_dir():
        return []
    came = []
    for one in record.contents(folder)[0]:
        ours = one in ("config.pbtxt", FILE) or Path(one).name == ".gitkeep"
        if ours or "__pycache__" in one:
            continue
        behind = folder.parent / kept.holder / one
        if not behind.exists():
            came.append(one)
        elif not filecmp.cmp(folder / one, behind, shallow=False):
            raise InputError(
                f"{folder / one}: came or was edited since the model was protected, and is not "
                f"{behind}; move one of them away, and call --undo again"
            )
    return came


def _wait_for_original(one: Undone, url: str) -> None:
    """Return once a server serves the original, and is not at the load of what stands behind."""
    from tritonclient.utils import InferenceServerException

    reason, start, slow_s = "", time.monotonic(), 0.0
    with connect(url) as client:
        while time.monotonic() < start + SERVED_S:
            try:
                reason = not_yet(client, one, within_s=placing_in.POLL_S + slow_s)
                if reason == _PROTECTED or reason.startswith(_LOADING):  # it scans after that
                    slow_s = time.monotonic() - start
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


#: What is said as long as a server has not taken the original up, and while it is seen to load
#: what stands behind for the first time. It is not seen to load a model again.
_PROTECTED = "it still serves the protected model"
_LOADING = "it is loading "


def not_yet(client: Any, one: Undone, within_s: float = placing_in.POLL_S) -> str:
    """Return why what stands behind a model cannot be taken away yet, "" where it can be.

    Args:
        client: of the server.
        one: the model.
        within_s: see ``placing_in.settles_in_s``; longer where the server was seen to be slow.
    """
    name, defence = one.folder.name, one.removed[-1]
    config = client.get_model_config(name, client_timeout=5).config
    steps = model_config.step_names(config)
    if defence in steps or not client.is_model_ready(name, client_timeout=5):
        return _PROTECTED
    index = client.get_model_repository_index(client_timeout=5).models
    there = [step for step in one.removed if (one.folder.parent / step).is_dir()]
    states = {step: {entry.state for entry in index if entry.name == step} for step in there}
    for step in there:
        if "LOADING" in states[step]:
            return f"{_LOADING}{step}"
    for step in there:
        # What changed a moment ago it may be about to load, and what it has not seen at all.
        folder = one.folder.parent / step
        if placing_in.settles_in_s(folder, within_s) > 0 or "" in states[step]:
            return f"it may be loading {step}"
    return ""

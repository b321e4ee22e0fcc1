"""Edits of config.pbtxt files while they are served: which took effect, which were refused.

A refused edit leaves the last good version serving, and Triton calls that READY; only its log
tells. So each edited file is read here as the defence will read it, and what it says is
compared with the parameters that Triton reports. A fused model's parameters stand in its graph,
which Triton reports nothing of: they are read anew once the model's processes are others.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.repository import protected
from deploy.repository.model_config import fused_output, in_words, is_defence, read, strings
from deploy.supervision.stubs import Stubs
from deploy.supervision.versions import Files, version_files
from deploy.triton import server_log
from deploy.triton.plain_http import PlainHttp
from deploy.triton.server import TritonServer
from exporters.fusing.fused import read_strings
from exporters.graph import onnx_graph
from exporters.repository import versions
from postprocess.errors import InputError
from postprocess.parameters import Parameters

Stamp = tuple[tuple[int, int, int], ...]

#: How many looks an edited file is followed for, a second or so each; after how many it is late
#: to be in force; and for how many a file has to be gone to be missed.
_LOOKS, _LATE, _MISSED = 60, 30, 2
#: How long, in seconds, what Triton said it serves is believed: less where a load request may
#: change it, and never longer than this share of the time since anything changed, as a load that
#: it started may take as long as that on a busy machine.
_BELIEVED_S, _BELIEVED_ELSE_S, _BELIEVED_SHARE = {"explicit": 15.0}, 60.0, 0.25

_TAKES_EFFECT = {
    "none": "when serve is started again",
    "explicit": "with POST /v2/repository/models/{model}/load",
}


@dataclass
class _File:
    """A config.pbtxt, and the graph of a fused model, as they were last seen."""

    stamp: Stamp
    looks_left: int = 0
    log_start: int = 0
    looks_gone: int = 0
    had_code: bool = False  #: a model.py, in any version
    problem: str | None = None
    #: What was wrong with it when it was read here: Triton may log that much later.
    known: set[str] = field(default_factory=set)


class Edits:
    """The config.pbtxt files of a repository and the defences' parameters in force."""

    def __init__(self, server: TritonServer, stubs: Stubs) -> None:
        """Take the server; the first look takes what is on disk for what Triton has loaded."""
        self._server, self._stubs = server, stubs
        self._files: dict[str, _File] = {}
        #: Every ready model's configuration, as Triton told it last.
        self.configs: dict[str, Any] = {}
        self._seen: object = None
        self._on_disk: tuple[dict[str, Stamp], dict[str, Files]] = {}, {}
        self._changed_at = self._asked_at = 0.0
        #: Defence to its parameters: those that Triton reports, a fused model's from its graph.
        self.in_force: dict[str, dict[str, str]] = {}
        #: Fused model to the processes that run it, and the parameters of its graph.
        self._loaded: dict[str, tuple[set[int], dict[str, str]]] = {}

    def problem(self, model: str) -> str | None:
        """Return why the model's config.pbtxt on disk was refused, None if it was not."""
        file = self._files.get(model)
        return None if file is None else file.problem

    def refused_on_disk(self, model: str) -> str | None:
        """Read the model's config.pbtxt, or a fused graph, now and return what is wrong with it."""
        path = self._path(model)
        try:
            said, file = _said_by(path)
            if model in self.in_force or file != path:
                Parameters.from_strings(said, where=str(file))
        except InputError as error:
            return str(error)
        return None

    def read_in_force(self, client: Any, model: str) -> dict[str, str]:
        """Return the parameters of a defence or fused model now, none of other models."""
        from tritonclient.utils import InferenceServerException

        try:
            config = client.get_model_config(model, client_timeout=5).config
        except InferenceServerException:
            return self.in_force.get(model, {})
        return self._said_in(config, model)

    def _said_in(self, config: Any, model: str) -> dict[str, str]:
        if fused_output(config) is not None:
            return self._fused_in_force(model)
        return strings(config) if is_defence(config) else {}

    def _fused_in_force(self, model: str) -> dict[str, str]:
        before, kept = self._loaded.get(model, (set[int](), {}))
        processes = set(self._stubs.now(fresh=True).get(model, []))
        if kept and (before & processes or not processes):
            return kept
        try:
            kept, _ = _said_by(self._path(model))
        except InputError:  # exchanged since it was loaded
            return kept
        self._loaded[model] = processes, kept
        return kept

    def look(self, client: Any, plain: PlainHttp) -> list[str]:
        """Return one line for each thing that happened since the last look.

        Raises:
            InferenceServerException: Triton did not answer.
        """
        self._on_disk = self._files_now()
        stamps, _ = self._on_disk
        lines = []
        if self._changed(plain):
            self.configs = protected.read_configs(client)
            self._asked_at = time.monotonic()
            lines = self._changes_in_force()
        for model in [one for one in self._files if one not in stamps]:
            if not self._path(model).parent.is_dir():  # as somebody meant it
                del self._files[model]
        for model in {**stamps, **self._files}:
            stamp = stamps.get(model, ())
            file = self._files.setdefault(model, _File(stamp))
            if missed := self._missed(model, file):
                lines.append(f"{model}: {missed}")
            if file.problem and file.looks_gone == 0 and not self._differs(model):
                file.problem = None
            if not stamp:
                continue
            if stamp != file.stamp:  # judged once it has stopped changing
                file.stamp, file.looks_left = stamp, _LOOKS
                file.log_start = server_log.size(self._server.log)
                continue
            line = self._judge(model, file)
            if line:
                lines.append(f"{model}: {line}")
        return lines

    def hung(self) -> str:
        """Return why Triton cannot take up what was edited, "" where nothing is known of that."""
        followed = [
            model for model, file in self._files.items()
            if file.looks_left and self._differs(model)
        ]  # fmt: skip
        missing = any(file.looks_gone for file in self._files.values())
        if not followed or missing or self._server.control_mode != "poll":
            return ""
        if not server_log.hangs(self._server.log):
            return ""
        return (
            f"{followed[0]}: edited, and Triton hangs at the load of a model.py that was not there "
            "for a moment: it would take up nothing any more"
        )

    @property
    def unsettled(self) -> bool:
        """Whether a file has changed since the last look, or Triton may be at what has."""
        return not self._believed() or self._files_now() != self._on_disk

    def _changed(self, plain: PlainHttp) -> bool:
        """Say whether Triton may serve other configurations than it told last."""
        seen = plain.repository_index(client_timeout=5), self._on_disk, self._stubs.now()
        if seen != self._seen:
            self._seen, self._changed_at = seen, time.monotonic()
        return not self._believed()

    def _believed(self) -> bool:
        """Say whether what Triton told last is still taken for what it serves."""
        most_s = _BELIEVED_S.get(self._server.control_mode, _BELIEVED_ELSE_S)
        now = time.monotonic()
        believed_s = min(most_s, _BELIEVED_SHARE * (now - self._changed_at))
        return now - self._asked_at < believed_s

    def _files_now(self) -> tuple[dict[str, Stamp], dict[str, Files]]:
        """Return what changes with any file that Triton may load anew."""
        return self._stamps(), version_files(self._server.repository)

    def _missed(self, model: str, file: _File) -> str | None:
        """Return what is to be said about a file without which a model cannot be loaded again."""
        path, (stamps, every) = self._path(model), self._on_disk
        gone = None if model in stamps else path
        has_code = any(name.endswith("/model.py") for name, *_ in every.get(model, ()))
        if not gone and file.had_code and not has_code:
            gone = path.with_name("1") / "model.py"
        file.had_code |= has_code
        file.looks_gone = file.looks_gone + 1 if gone else 0
        if not gone or file.looks_gone != _MISSED:
            return None
        file.problem = f"{gone}: gone; Triton could not load the model again; put it back"
        return f"FILE GONE: {file.problem}"

    def _judge(self, model: str, file: _File) -> str | None:
        """Return what is to be said about a file that has not changed since the last look."""
        if not file.looks_left:
            return None
        fresh = file.looks_left == _LOOKS
        file.looks_left -= 1
        if fresh:
            file.problem = self.refused_on_disk(model)
            # Triton logs whole paths, whatever was given here.
            given, whole = (str(one) for one in (self._path(model), self._path(model).absolute()))
            if file.problem:
                file.known |= {file.problem, file.problem.replace(given, whole)}
        if file.problem is None and self._differs(model):
            # The file reads well, and yet Triton may refuse what it says.
            refusal = server_log.refusal(self._server.log, file.log_start, model)
            file.problem = None if refusal in file.known else refusal
        if file.problem is not None:
            file.looks_left = 0
            serving = in_words(self.in_force.get(model, {}))
            kept = f"; still serving {serving}" if serving else ""
            return f"EDIT REFUSED: {file.problem}{kept}"
        late = file.looks_left == _LOOKS - _LATE and self._server.control_mode == "poll"
        if late and model in self.in_force and self._differs(model):
            file.looks_left = 0
            file.problem = (
                f"{self._path(model)}: reads well, and is not in force after {_LATE} looks: Triton "
                f"is still at a load, or at none any more; {self._server.log} says what it does"
            )
            return f"NOT IN FORCE: {file.problem}"
        takes_effect = _TAKES_EFFECT.get(self._server.control_mode)
        if fresh and takes_effect and self._differs(model):
            what = "its graph" if model in self._loaded else "config.pbtxt"
            return f"{what} was edited; takes effect {takes_effect}".format(model=model)
        return None

    def _differs(self, model: str) -> bool:
        """Say whether a defence's file says other parameters than those in force."""
        if model not in self.in_force:
            return True
        try:
            said, _ = _said_by(self._path(model))
        except InputError:
            return True
        return said != self.in_force[model]

    def _changes_in_force(self) -> list[str]:
        lines = []
        for model, config in self.configs.items():
            before = self.in_force.get(model)
            now = self._said_in(config, model)
            if not now:
                continue
            self.in_force[model] = now
            if before is not None and now != before:
                aside = ", which is not what its file says" if self._differs(model) else ""
                lines.append(f"{model}: new parameters in force{aside}: {in_words(now)}")
        return lines

    def _path(self, model: str) -> Path:
        return self._server.repository / model / "config.pbtxt"

    def _stamps(self) -> dict[str, Stamp]:
        """Return each model's stamp; strings, as paths take three times as long in every round."""
        repository = str(self._server.repository)
        with suppress(OSError):  # it is gone
            found = {model: _stamp(f"{repository}/{model}", fused=model in self._loaded)
                     for model in sorted(os.listdir(repository))}  # fmt: skip
            return {model: stamp for model, stamp in found.items() if stamp}
        return {}


def _stamp(folder: str, *, fused: bool) -> Stamp:
    """Return what changes with a config.pbtxt, and with the graphs of a fused model."""
    graphs = sorted(map(str, Path(folder).glob("[0-9]*/*.onnx"))) if fused else []
    found: list[tuple[int, int, int]] = []
    for one in (f"{folder}/config.pbtxt", *graphs):
        try:
            status = os.stat(one)
        except OSError:
            if not found:  # no model
                return ()
            continue
        found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _said_by(path: Path) -> tuple[dict[str, str], Path]:
    """Return the parameters that a config.pbtxt says, or a fused model's graph, and which file.

    Raises:
        InputError: the file cannot be read, or the graph has no defence.
    """
    config = read(path)
    if fused_output(config) is None:
        return strings(config), path
    found = versions.served(path.parent, config)
    if not found:
        raise InputError(f"{path.parent}: expected a version with a model.onnx")
    graph = versions.graph(found[-1], config)
    return read_strings(onnx_graph.load(graph), where=str(graph)), graph

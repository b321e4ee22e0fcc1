"""Other parameters for the defence of a model in a repository, written in place.

Files are replaced whole, so that a polling Triton loads either the old defence or the new one,
and goes on serving the old one until the new one is ready.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.repository import model_config
from deploy.repository.config_edit import set_parameters
from exporters.files.atomic_file import atomic_file, write_text
from exporters.fusing import fused
from exporters.graph import onnx_graph
from exporters.repository import versions
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import Parameters


@dataclass(frozen=True)
class Retuning:
    """What a change of parameters makes of one file; nothing is written yet."""

    file: Path
    before: Mapping[str, object]  #: name to value; what was refused, as text
    after: Parameters
    content: str | bytes  #: the whole new file
    diff: str  #: of a config.pbtxt, "" for a graph

    def changes(self) -> dict[str, tuple[object, object]]:
        """Return the parameters that differ: name to old and new value."""
        pairs = {name: (self.before[name], value) for name, value in asdict(self.after).items()}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def __str__(self) -> str:
        """Return the file and what changes in it, ``beta 1.5 -> 0.9, gamma 0.2 -> 0.1``."""
        pairs = [f"{name} {old} -> {new}" for name, (old, new) in self.changes().items()]
        return f"{self.file}: {', '.join(pairs) or 'as it was'}"

    def write(self) -> None:
        """Put the new file in the old one's place, at once."""
        if isinstance(self.content, str):
            write_text(self.file, self.content)
            return
        with atomic_file(self.file) as part:
            part.write_bytes(self.content)


def plan(
    folder: Path,
    changes: Mapping[str, str | None],
    output: str = "",
    table: Calibration | None = None,
) -> list[Retuning]:
    """Return what these changes make of the files that hold the defences' parameters.

    Args:
        folder: of a model: an ensemble with a defence among its steps, a defence, or a fused
            model, of which every version is changed.
        changes: key to new value as config.pbtxt holds it, None to take the parameter out.
        output: the one whose defence is changed; of several, all are without it.
        table: of calibrated answers, for a fused model; without one it keeps its own.

    Raises:
        InputError: no such model or output, no defence in it, or parameters that the defence
            refuses.
    """
    path = folder / "config.pbtxt"
    config = model_config.of_model(folder)
    fused_output = model_config.fused_output(config)
    if fused_output is not None:
        refuse_other_output(path, output, [fused_output])
        graphs = [versions.graph(one, config) for one in versions.folders(folder)]
        files = [file for file in graphs if file.is_file()]
        if not files:
            raise InputError(f"{folder}: expected a version with a model.onnx")
        return [_plan_graph(file, changes, table) for file in files]
    if config.ensemble_scheduling.step:
        return [_plan_text(one, changes) for one in defences_of(folder, output)]
    if not model_config.may_be_defence(config):
        raise InputError(f"{path}: expected a defence, a fused model or an ensemble with a defence")
    refuse_other_output(path, output, [tensor.name for tensor in config.output])
    return [_plan_text(path, changes)]


def defences_of(folder: Path, output: str = "") -> list[Path]:
    """Return the config.pbtxt of each defence of an ensemble, in the order of its steps.

    Raises:
        InputError: no defence among its steps, or none that makes the output.
    """
    found = _by_output(folder)
    refuse_other_output(folder / "config.pbtxt", output, found)
    return [found[output]] if output else list(dict.fromkeys(found.values()))


def outputs_of(folder: Path) -> list[str]:
    """Return the outputs of a model that a defence makes, [""] for an only one.

    Raises:
        InputError: it is no protected model.
    """
    fused_output = model_config.fused_output(model_config.read(folder / "config.pbtxt"))
    found = list(_by_output(folder)) if fused_output is None else [fused_output]
    return found if len(found) > 1 else [""]


def _by_output(folder: Path) -> dict[str, Path]:
    """Return the config.pbtxt of each defence of an ensemble, by the tensor that it makes."""
    where = folder / "config.pbtxt"
    found: dict[str, Path] = {}
    steps = list(model_config.read(where).ensemble_scheduling.step)
    for one in steps:
        path = folder.parent / one.model_name / "config.pbtxt"
        if not path.is_file():
            continue
        step = model_config.read(path)
        if model_config.may_be_defence(step):
            found |= dict.fromkeys(one.output_map.values(), path)
    if not found:
        names = ", ".join(one.model_name for one in steps) or "none"
        raise InputError(
            f"{where}: expected a protected model, got no defence among its steps: {names}"
        )
    return found


def refuse_other_output(where: Path, output: str, made: Collection[str]) -> None:
    """Refuse an output that no defence makes; "" is none in particular.

    Raises:
        InputError: it is not among ``made``.
    """
    if output and output not in made:
        raise InputError(
            f"{where}: --output {output}: no defence makes it; expected {' or '.join(made)}"
        )


def _plan_text(path: Path, changes: Mapping[str, str | None]) -> Retuning:
    strings = model_config.strings(model_config.read(path))
    after = Parameters.from_strings(_changed(strings, changes), where=str(path))
    as_it_is = path.read_bytes().decode("utf-8")
    old = as_it_is.replace("\r\n", "\n")
    new = set_parameters(old, changes)
    read = model_config.strings(model_config.parse(new, path))
    keys = model_config.parameter_keys(new)
    if len(keys) > len(set(keys)) or Parameters.from_strings(read, where=str(path)) != after:
        raise InputError(
            f"{path}: its parameters are written in a form that cannot be edited in place; "
            "write each as parameters { key: ... value: { string_value: ... } }"
        )
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), str(path), str(path), n=1
    )
    text = new.replace("\n", "\r\n") if "\r\n" in as_it_is else new
    return Retuning(path, _before(strings, after, changes), after, text, "".join(lines))


def _plan_graph(
    file: Path, changes: Mapping[str, str | None], table: Calibration | None
) -> Retuning:
    model = onnx_graph.load(file)
    strings = fused.read_strings(model, where=str(file))
    after = Parameters.from_strings(_changed(strings, changes), where=str(file))
    try:
        fused.retune(model, after, table)
    except InputError as refusal:
        raise InputError(f"{file}: {refusal}") from None
    return Retuning(file, _before(strings, after, changes), after, model.SerializeToString(), "")


def _before(
    strings: Mapping[str, str], after: Parameters, changes: Mapping[str, str | None]
) -> dict[str, object]:
    """Return the old parameters; of refused ones, those that are mended as they stand there."""
    try:
        return asdict(Parameters.from_strings(strings, where=""))
    except InputError:
        return asdict(after) | {key: strings.get(key) for key in changes}


def _changed(strings: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**strings, **changes}
    return {key: value for key, value in merged.items() if value is not None}

"""What a protected model answers: deceptive probabilities, calibrated levels, or labels alone.

Labels alone are calibrated answers of one level that is sure of itself: nothing but the label tells
two of them apart.
"""

from collections.abc import Mapping
from pathlib import Path

from deploy.repository import fused_check, model_config, retuning
from deploy.repository.retuning import Retuning
from exporters.files.atomic_file import write_text
from exporters.repository import versions
from postprocess import calibration, defence_config
from postprocess.calibration import Calibration
from postprocess.errors import InputError
from postprocess.parameters import HARDENED

#: Kind to what a client gets.
KINDS = {
    "deceptive": "misleading probabilities",
    "calibrated": "the label and a level of confidence to believe",
    "labels": "the label alone",
}
#: beta, gamma and margin stay for the way back.
DECEPTIVE: Mapping[str, str | None] = {"defense": "reverse_sigmoid", "calibration": None}


def by_table(table: Calibration) -> dict[str, str | None]:
    """Return the changes of parameters by which a defence answers as a table says."""
    changes: dict[str, str | None] = dict.fromkeys(HARDENED)
    return changes | {"defense": "calibrated", "calibration": table.file_name}


def place(planned: list[Retuning], table: Calibration) -> None:
    """Write a table beside each defence, before the config by which a polling Triton reads both."""
    for one in planned:
        if one.file.name == "config.pbtxt":
            named = {table.file_name, one.before["calibration"]}
            for old in one.file.parent.glob("calibration-*.json"):
                if old.name not in named:  # of what is served, the last may still be read
                    old.unlink()
            write_text(one.file.parent / table.file_name, table.text())


def put(folder: Path, kind: str, table: Calibration | None = None) -> list[Retuning]:
    """Have a model answer so, in every output that a defence makes, and return what changed.

    Args:
        folder: of a model: an ensemble with a defence among its steps, a defence, or a fused model.
        kind: of ``KINDS``.
        table: of calibrated answers.

    Raises:
        InputError: the model or its parameters do not allow it; nothing is written then.
    """
    planned = []
    for where in defences(folder):
        one = _labels(where) if kind == "labels" else table
        changes = DECEPTIVE if one is None else by_table(one)
        planned.append((retuning.plan(where, changes, table=one), one))
    for changed, one in planned:
        if one is not None:
            place(changed, one)
        for file in changed:
            file.write()
    return [file for changed, _ in planned for file in changed]


def defences(folder: Path) -> list[Path]:
    """Return the folders that hold a model's defences; of a fused model or a defence, its own."""
    if not model_config.read(folder / "config.pbtxt").ensemble_scheduling.step:
        return [folder]
    return [config.parent for config in retuning.defences_of(folder)]


def _labels(folder: Path) -> Calibration:
    """Return the table of labels alone for a defence, or for a fused model."""
    path = folder / "config.pbtxt"
    config = model_config.read(path)
    marked = model_config.fused_output(config)
    if marked is None:
        read = defence_config.read(model_config.as_dict(config), directory=folder)
    else:
        graphs = [versions.graph(one, config) for one in versions.folders(folder)]
        read = fused_check.read(folder, config, marked, graphs)
    if read.classes < 1:
        raise InputError(
            f"{path}: labels alone: expected a fixed number of classes in dims, got {read.classes}"
        )
    single = read.parameters.multi_label or read.classes == 1
    return calibration.labels_alone(read.classes, single=single)

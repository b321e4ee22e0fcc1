"""A model repository, looked at before anybody serves it.

Every config.pbtxt is parsed by the grammar that Triton parses it by, and a defence's is then
read by the very code that runs at its load. What would stop the load or let raw scores out is
an error; what loads and defends badly is a warning.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.repository import ensemble_check, fused_check, model_config, version_check
from deploy.repository.finding import Finding, error, warning
from exporters.files import servable_path
from exporters.graph import external_data
from exporters.repository import versions
from postprocess import defence_config, kernel, lint
from postprocess.defence_config import DefenceConfig
from postprocess.errors import InputError

#: How the model.py of a defence is known from other Python models.
DEFENCE_MARK = "postprocess.triton_model"


@dataclass(frozen=True)
class Checked:
    """What a check found out."""

    findings: list[Finding]
    defences: dict[str, DefenceConfig]  #: those that would load, by model name
    models: int

    @property
    def errors(self) -> list[Finding]:
        """Return what has to be mended before the repository is served."""
        return [finding for finding in self.findings if finding.level == "error"]

    def as_json(self) -> dict[str, Any]:
        """Return the findings, and the parameters of each defence that would load."""
        parameters = {name: asdict(read.parameters) for name, read in self.defences.items()}
        return {
            "models": self.models,
            "findings": [asdict(finding) for finding in self.findings],
            "defences": {
                name: {key: value for key, value in each.items() if value is not None}
                for name, each in parameters.items()
            },
        }


def check(repository: Path) -> Checked:
    """Return what is wrong with a model repository, and what is weak about its defences.

    Args:
        repository: a folder of models, or one model of such, which is looked at with all that it
            runs.

    Raises:
        InputError: there is no such folder.
    """
    if (repository / "config.pbtxt").exists():
        return _of_one(repository.absolute())
    findings = _check_path(repository)
    folders = sorted(path for path in repository.iterdir() if path.is_dir())
    if not any((folder / "config.pbtxt").exists() for folder in folders):
        message = f"{repository}: no model there: expected folders with a config.pbtxt each"
        return Checked([*findings, error("no-models", "", message)], {}, 0)
    configs: dict[str, Any] = {}
    for folder in folders:
        try:
            configs[folder.name] = model_config.read(folder / "config.pbtxt")
        except InputError as refusal:
            findings.append(error("config", folder.name, str(refusal)))
    defending = {name for name in configs if _defends(repository / name, configs[name])}
    defences = {}
    for name, config in configs.items():
        findings += _check_model(repository / name, config)
        if name in defending:
            try:
                defences[name] = _read_defence(repository / name, config)
            except InputError as refusal:
                findings.append(error("defence", name, str(refusal)))
            else:
                findings += _check_settings(repository / name, defences[name])
                findings += _check_kernel(repository / name, config, defences[name])
    for name, config in configs.items():
        marked = model_config.fused_output(config)
        if marked is not None:
            folder = repository / name
            try:
                defences[name] = fused_check.read(folder, config, marked, _files(folder, config))
            except InputError as refusal:
                findings.append(error("fused", name, str(refusal)))
            else:
                findings += fused_check.raw_outputs(folder, config, marked)
                findings += _check_settings(folder, defences[name])
    findings += ensemble_check.check_steps(repository, configs)
    findings += ensemble_check.check_ways_round(repository, configs, defending)
    findings += _check_tables(repository, configs, defences)
    findings += _check_caches(repository, configs, defences)
    findings += [
        finding
        for finding in version_check.look(repository, configs)
        if finding.code != "version-no-defence"  # said above, for all versions at once
    ]
    return Checked(findings, defences, len(folders))


def _of_one(folder: Path) -> Checked:
    """Return what concerns a model, of all that is found in its repository."""
    checked, names = check(folder.parent), [folder.name]
    for name in names:  # grows meanwhile
        with suppress(InputError):
            config = model_config.read(folder.parent / name / "config.pbtxt")
            names += [step for step in model_config.step_names(config) if step not in names]
    return Checked(
        [one for one in checked.findings if one.model in ("", *names)],
        {name: one for name, one in checked.defences.items() if name in names},
        len(names),
    )


def _check_path(repository: Path) -> list[Finding]:
    if not repository.is_dir():
        if repository.exists():
            raise InputError(f"{repository}: expected a folder of models")
        if any(repository.parent.glob("*/config.pbtxt")):
            model_config.of_model(repository)  # says which models there are
        raise InputError(f"{repository}: no such model repository")
    try:
        servable_path.refuse(repository)
    except InputError as refusal:
        return [error("path", "", str(refusal))]
    return []


def _check_model(folder: Path, config: Any) -> list[Finding]:
    """Look at what every model needs: its name, a version, its file, each parameter once."""
    path, name = folder / "config.pbtxt", folder.name
    found = []
    if config.name not in ("", name):
        found.append(
            error("name", name, f"{path}: name: expected the folder's, {name}, got {config.name}")
        )
    keys = model_config.parameter_keys(path.read_text(encoding="utf-8"))
    for key, count in Counter(keys).items():
        if count > 1:
            message = f"{path}: parameter {key}: expected once, got {count} times"
            found.append(error("duplicate-parameter", name, message))
    if not versions.folders(folder):
        message = f"{folder}: expected a version folder such as {folder / '1'}"
        found.append(error("no-version", name, message))
    misread = versions.misread(folder, config)
    if misread is not None:
        message = f"{misread}: {versions.MISREAD}"
        found.append(error("misread-version", name, message))
    for file in _files(folder, config):
        if not file.is_file():
            found.append(error("no-file", name, f"{file}: no such file"))
    if config.ensemble_scheduling.step:
        steps = " or ".join(model_config.step_names(config))
        found += [
            warning("not-served", name, f"{file}: no file of an ensemble is served; a new version "
                    f"is one of its steps': {steps}")
            for version in versions.folders(folder)
            for file in sorted(version.iterdir()) if file.name[0] != "."
        ]  # fmt: skip
    # By its config alone it is one to serve and the gateway.
    defends = _defends(folder, config) or model_config.is_defence(config)
    return found + (_check_code(folder, config) if defends else [])


def _files(folder: Path, config: Any) -> list[Path]:
    """Return where the file of each version is expected; none for backends of other files."""
    name = {"python": "model.py", "onnxruntime": "model.onnx"}.get(model_config.backend_of(config))
    if name is None:
        return []
    return [
        version / (config.default_model_filename or name) for version in versions.folders(folder)
    ]


def _defends(folder: Path, config: Any) -> bool:
    """Say whether a model's code is the defence's, whatever its config says."""
    return config.backend == "python" and any(
        file.is_file() and DEFENCE_MARK in file.read_text(errors="replace")
        for file in _files(folder, config)
    )


def _check_code(folder: Path, config: Any) -> list[Finding]:
    """Look for a version of a defence whose code is another's."""
    return [
        error("no-defence", folder.name, f"{file}: expected the defence's code, got another's")
        for file in _files(folder, config)
        if file.is_file() and DEFENCE_MARK not in file.read_text(errors="replace")
    ]


def _read_defence(folder: Path, config: Any) -> DefenceConfig:
    """Read a defence as its load would."""
    values = model_config.as_dict(config)
    if not config.input and not config.output:  # completed at the load
        values["input"] = [{"name": defence_config.INPUT_NAME, **defence_config.ANY_SCORES}]
        values["output"] = [{"name": defence_config.OUTPUT_NAME, **defence_config.ANY_SCORES}]
        values.setdefault("max_batch_size", defence_config.MAX_BATCH_SIZE)
    return defence_config.read(values, directory=folder)


def _check_tables(
    repository: Path, configs: dict[str, Any], defences: dict[str, DefenceConfig]
) -> list[Finding]:
    """Look for classifiers that changed since their calibrated answers were made."""
    found = []
    for fed in version_check.fed_outputs(configs):
        read = defences.get(fed.defence)
        if read is None or read.table is None or not read.table.victim:
            continue
        for file in _files(repository / fed.model, configs[fed.model]):
            if _is_another(file, read.table.victim):
                message = (
                    f"{file}: another classifier than the one that {fed.defence}'s calibrated "
                    "answers were made of; make them anew with reverse-sigmoid calibrate"
                )
                found.append(warning("calibration-victim", fed.defence, message))
    return found


def _check_caches(
    repository: Path, configs: dict[str, Any], defences: dict[str, DefenceConfig]
) -> list[Finding]:
    """Look for answers that Triton keeps: they were made by the defence of then."""
    return [
        warning(
            "response-cache", name,
            f"{repository / name / 'config.pbtxt'}: response_cache: answers of before may outlive "
            "other parameters, or another table, of the defence; leave it out, or start Triton "
            "again after each change",
        )
        for name, config in configs.items()
        if config.response_cache.enable
        and not defences.keys().isdisjoint([name, *model_config.step_names(config)])
    ]  # fmt: skip


def _is_another(file: Path, digest: str) -> bool:
    """Say whether a classifier is not the one of that digest; of one that cannot be read, no."""
    with suppress(InputError):
        return external_data.digest(file) != digest
    return False


def _check_kernel(folder: Path, config: Any, defence: DefenceConfig) -> list[Finding]:
    """Look whether the compiled kernel is where the defence runs, were that here."""
    if not kernel.in_reach(defence.parameters):
        return []
    copies = [file.parent / "postprocess" for file in _files(folder, config)]
    without = [copy for copy in copies if copy.is_dir() and not any(kernel.files(copy))]
    if not without and (any(map(Path.is_dir, copies)) or kernel.open_library() is not None):
        return []
    where = without[0] if without else folder
    return [warning("no-kernel", folder.name, f"{where}: {kernel.MISSING}")]


def _check_settings(folder: Path, defence: DefenceConfig) -> list[Finding]:
    found = lint.warnings(
        defence.parameters,
        classes=defence.classes if defence.classes > 0 else None,
        resolution=float(np.finfo(defence.data_type).eps),
    )
    where = folder / "config.pbtxt"
    return [warning(each.code, folder.name, f"{where}: {each.message}") for each in found]

"""``reverse-sigmoid protect REPOSITORY/NAME``: what it takes of the options, and what it says."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deploy.commands import protect_answers, protect_told
from deploy.commands.console import err_console, say
from deploy.commands.many import Told, expanded, fail
from postprocess.errors import InputError

if TYPE_CHECKING:
    from deploy.commands.protect import ProtectCommand
    from deploy.existing.protecting import ProtectedInPlace

#: Options that are of files alone, and why.
_OF_FILES = {
    "name": "a model that stands in a repository keeps its name",
    "max_batch_size": "it is as the model's config.pbtxt says",
}


def protect(command: "ProtectCommand", path: Path) -> Told:
    """Protect a model of a repository, and return what is told of it.

    Raises:
        InputError: an option does not apply, or it cannot be done.
    """
    from deploy.existing import protecting

    for option, why in _OF_FILES.items():
        if getattr(command, option):
            raise InputError(f"--{option.replace('_', '-')}: {why}")
    if command.layout != "ensemble":
        raise InputError(
            f"--layout {command.layout}: the model's files stay as they are, so its defence is a "
            "model of its own; give its .onnx file for a fused one"
        )
    if command.force:
        raise InputError("--force: with a folder, nothing that exists is replaced; see --undo")
    asked, defence = command.understood()
    public = path.absolute() if command.repository is None else command.repository / path.name
    there = bool(command.answers or command.also) and _is_protected(public)
    protect_answers.refuse(command, public, anew=not there)
    told = Told({"model": str(path), "models": [path.name]}, [f"{path}, protected already"], [])
    with err_console.status(f"asking and protecting {path}"):
        if not there:
            done = protecting.protect(
                path.absolute(), defence, asked, url=command.url, out=command.repository
            )
            lines = _lines(done, in_place=command.repository is None)
            told = Told(_as_dict(done), lines, done.warnings)
        return protect_answers.make(command, public, told)


def _is_protected(folder: Path) -> bool:
    from deploy.repository import model_config, protected

    found = protected.among(model_config.read_all(folder.parent))
    return folder.name in {one.name for one in found}


def undo(command: "ProtectCommand") -> None:
    """Give models back as they were, and say so.

    Raises:
        InputError: an option does not apply, or the only model cannot be given back.
    """
    from deploy.existing import undoing

    others = ("answers", "also", "query_set", "name", "scores", "output", "sample", "repository",
              "self_contained", "max_batch_size", "max_client_batch", "class_axis",
              "multi_label")  # fmt: skip
    for option in others:
        if getattr(command, option) not in (None, "", False, []):
            raise InputError(f"--{option.replace('_', '-')}: not with --undo")
    none = "nothing to undo: no model there was protected in place"
    paths = expanded(command.models, lambda found: found.undoable, none)
    for path in paths:
        if path.suffix == ".onnx" and not path.is_dir():
            raise InputError("--undo: goes with a folder REPOSITORY/NAME, not with a file")
    with err_console.status("giving back"):
        done, failed = undoing.undo_each(
            [path.absolute() for path in paths],
            url=command.url,
            force=command.force,
            tell=lambda text: say(text, console=err_console),
        )
    if len(command.models) == len(paths) == 1 and failed:
        raise next(iter(failed.values()))
    why = {path: fail(path, error) for path, error in failed.items()}
    if command.as_json:
        told: list[dict[str, Any]] = [
            {
                "model": str(one.folder),
                "removed": one.removed,
                "kept": one.kept,
                "changed": one.changed,
            }
            for one in done
        ]
        told += [{"model": str(path), "error": error} for path, error in why.items()]
        print(json.dumps(told[0] if paths == command.models and len(told) == 1 else told))
    else:
        for one in done:
            say(f"{one.folder} is as it was; {' and '.join(one.removed)} removed")
            for file in one.kept:
                say(f"  kept       {file}, which came since")
            for file in one.changed:
                say(f"  changed    {file}, written since, stays as it is now")
    if failed:
        raise typer.Exit(1)


def _as_dict(done: "ProtectedInPlace") -> dict[str, Any]:
    """Return everything that was found and written, ready for JSON."""
    found = done.found
    heads = [
        {
            "output": head.value.name,
            "scores": head.scores.kind,
            "multi_label": head.scores.multi_label,
            "classes": head.classes,
            "class_axis": head.class_axis,
            "how": how,
            "beta": parameters.beta,
            "gamma": parameters.gamma,
            "margin": parameters.margin,
            "verified_rows": rows,
        }
        for head, how, parameters, rows in zip(
            found.heads, found.how, done.parameters, done.verified, strict=True
        )
    ]
    return {
        "model": str(done.model.folder),
        "repository": str(done.repository),
        "models": list(done.staged.models),
        **(heads[0] if len(heads) == 1 else {"heads": heads}),
        "labels": found.labels,
        "dropped": found.dropped,
        "max_batch_size": done.staged.signature.max_batch_size,
        "warnings": done.warnings,
        "next": f"reverse-sigmoid serve {done.repository}",
    }


def _lines(done: "ProtectedInPlace", *, in_place: bool) -> list[str]:
    """Return the summary, line by line."""
    said = _as_dict(done)
    heads = said.get("heads", [said])
    named = [(f"{one['output']}: " if len(heads) > 1 else "", one) for one in heads]
    _, *behind = said["models"]
    where = "in place" if in_place else f"in {said['repository']}"
    polled = "A server that polls the repository has it in seconds; any other needs a restart."
    undone = f"Undo: reverse-sigmoid protect {said['model']} --undo"
    return [
        f"{said['model']}, protected {where}",
        f"  behind it  {' and '.join(behind)}",
        *(f"  scores     {_scores(one)}" for one in heads),
        *(f"  known      {name}{one['how']}" for name, one in named),
        *(f"  label      {name}, passed through" for name in said["labels"]),
        *(f"  defence    {name}{protect_told.numbers(one)}" for name, one in named),
        *(f"  {_verified(name, one['verified_rows'])}" for name, one in named),
        *([polled, undone] if in_place else []),
        f"Next: {said['next']}",
    ]


def _scores(head: dict[str, Any]) -> str:
    axis = "" if head["class_axis"] == -1 else f", classes on axis {head['class_axis']}"
    many = ", each a yes or no of its own" if head["multi_label"] else ""
    return f"{head['output']}: {head['scores']}{many}{axis}"


def _verified(name: str, rows: int) -> str:
    if not rows:
        return f"not verified: {name}the protected model was not run"
    return f"verified   {name}{rows} rows, run on the embedded Triton"

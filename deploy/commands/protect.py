"""``reverse-sigmoid protect``: a classifier that exists, protected: a file, or a served model."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands import options
from deploy.commands.console import err_console, say
from postprocess.errors import InputError
from postprocess.parameters import CHOICES, Parameters

if TYPE_CHECKING:
    from exporters.classifier import ProtectOptions
    from exporters.onnx_signature import OnnxTensor
    from exporters.protect import ProtectedFile


@dataclass(frozen=True, kw_only=True)
class ProtectCommand:
    """Protect an ONNX classifier, or a model of any backend in a Triton repository."""

    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A classifier: an .onnx file, which is only read, or a folder REPOSITORY/NAME, "
            "protected in place.",
        ),
    ]
    repository: Annotated[
        Path | None,
        typer.Option(
            help="Model repository to write to; of a folder, instead of in place.",
            show_default=False,
        ),
    ] = None
    name: Annotated[
        str, typer.Option(help="Public model name.", show_default="the file's stem")
    ] = ""
    beta: options.Beta = options.BETA
    gamma: options.Gamma = options.GAMMA
    margin: options.Margin = options.MARGIN
    scores: Annotated[
        str,
        typer.Option(help="What the output holds: logits or probabilities.", show_default="found"),
    ] = ""
    multi_label: Annotated[
        bool | None,
        typer.Option(
            "--multi-label/--no-multi-label",
            help="Each score is a yes or no of its own.",
            show_default="found",
        ),
    ] = None
    class_axis: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Axis of the scores that holds the classes, 0 the batch.",
            show_default="the last, where that is clear",
        ),
    ] = None
    output: Annotated[
        list[str] | None,
        typer.Option(
            help="The output that holds the scores; several, each said, get a defence each.",
            show_default="found",
        ),
    ] = None
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=0, help="Most rows of a request, 0 for no batching.", show_default="256"),
    ] = None
    max_client_batch: options.MaxClientBatch = None
    sample: Annotated[
        Path | None,
        typer.Option(help="An .npz file of real rows, by input name.", show_default="random input"),
    ] = None
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Copy the package postprocess along.")
    ] = False
    layout: Annotated[
        str,
        typer.Option(help="ensemble: three models, all modes of the defence; fused: one, fastest."),
    ] = "ensemble"
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Give a model that was protected in place back as it was."),
    ] = False
    url: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="A Triton (gRPC) that serves the folder's model: asked what the embedded one "
            "cannot serve, and waited for by --undo.",
        ),
    ] = ""
    force: options.Force = False
    as_json: options.AsJson = False

    def run(self) -> None:
        if self.model.suffix != ".onnx" and (self.model.is_dir() or self.undo):
            from deploy.commands import protect_existing

            protect_existing.run(self)
            return
        self._protect_file()

    def understood(self) -> "tuple[ProtectOptions, Parameters]":
        """Return what a person says of the model, and of its defence.

        Raises:
            InputError: a value is none of its option's.
        """
        from exporters.classifier import ProtectOptions

        if self.scores not in ("", *CHOICES["scores"]):
            raise InputError(f"--scores: expected logits or probabilities, got {self.scores!r}")
        asked = options.settings(ProtectOptions, self, output=tuple(self.output or ()))
        return asked, options.parameters(self.beta, self.gamma, self.margin)

    def _protect_file(self) -> None:
        from exporters.protect import protect

        for given, option in ((self.undo, "--undo"), (self.url, "--url")):
            if given:
                raise InputError(f"{option}: of a folder REPOSITORY/NAME, not of a file")
        if self.repository is None:
            raise InputError(
                "Missing option '--repository': without it, expected a folder REPOSITORY/NAME, got "
                f"{self.model}"
            )
        repository = self.repository
        asked, defence = self.understood()
        with err_console.status(f"reading and verifying {self.model}"):
            before = self._settings_there(repository) if self.force else {}
            done = protect(self.model, repository, defence, asked)
        for warning in done.classifier.warnings:
            say(f"warning: {warning}", console=err_console)
        lost = _replaced(before, done)
        if lost:
            say(
                f"warning: {done.repository / done.name}: --force replaced its parameters: {lost}; "
                "retune sets them again",
                console=err_console,
            )
        if self.as_json:
            print(json.dumps(_as_dict(done)))
            return
        for line in _lines(done):
            say(line)

    def _settings_there(self, repository: Path) -> dict[str, Any]:
        """Return the parameters of the model that stands in the place of the new one."""
        from deploy.repository.retuning import plan

        with suppress(InputError, OSError):
            return dict(plan(repository / (self.name or self.model.stem), {})[0].before)
        return {}


def _replaced(before: dict[str, Any], done: "ProtectedFile") -> str:
    """Return which parameters an operator had set and are others now, ``beta 0.9 -> 1.5``."""
    after, found = vars(done.heads[0].parameters), ("scores", "multi_label", "class_axis")
    return ", ".join(
        f"{name} {old} -> {after[name]}"
        for name, old in before.items()
        if name not in found and old != after[name]
    )


def _as_dict(done: "ProtectedFile") -> dict[str, Any]:
    """Return everything that was found and written, ready for JSON.

    Shapes are the ones that clients see, -1 where a size is free.
    """
    signature = done.classifier.signature

    def tensor(one: "OnnxTensor") -> dict[str, Any]:
        shape = one.shape(batched=signature.batched)
        return {"name": one.name, "data_type": one.data_type, "shape": shape}

    heads = [
        {
            "output": tensor(scores),
            "scores": head.scores.kind,
            "cut": head.scores.cut.op if head.scores.cut else None,
            "multi_label": head.scores.multi_label,
            "classes": head.classes,
            "class_axis": head.class_axis,
            "beta": head.parameters.beta,
            "gamma": head.parameters.gamma,
            "margin": head.parameters.margin,
            "verified_rows": head.verified.rows,
            "refused_rows": head.verified.refused,
            "cut_difference": head.verified.cut_difference,
        }
        for scores, head in zip(signature.scores, done.heads, strict=True)
    ]
    return {
        "onnx": str(done.classifier.path),
        "repository": str(done.repository),
        "layout": done.classifier.asked.layout,
        "models": list(done.models),
        "inputs": [tensor(one) for one in signature.inputs],
        **(heads[0] if len(heads) == 1 else {"heads": heads}),
        "labels": [tensor(one) for one in signature.labels],
        "dropped": done.classifier.dropped,
        "max_batch_size": signature.max_batch_size,
        "max_client_batch": done.classifier.asked.max_client_batch or signature.max_batch_size,
        "files": [str(path) for path in done.files],
        "warnings": done.classifier.warnings,
        "next": f"reverse-sigmoid serve {done.repository}",
    }


def _lines(done: "ProtectedFile") -> list[str]:
    """Return the summary, line by line."""
    said = _as_dict(done)
    heads = said.get("heads", [said])
    batch = (
        f"up to {said['max_client_batch']} rows; Triton merges requests"
        if said["max_batch_size"]
        else "none; Triton runs requests one at a time"
    )
    labels = [f"  label      {_tensor(one)}, passed through" for one in said["labels"]]
    fused = "; the defence is in its graph" if said["layout"] == "fused" else ""
    named = [(f"{one['output']['name']}: " if len(heads) > 1 else "", one) for one in heads]
    return [
        f"{said['onnx']}, protected as {said['models'][0]} in {said['repository']}",
        *(f"  input      {_tensor(one)}" for one in said["inputs"]),
        *(f"  output     {_tensor(one['output'])}: {_classes(one)}" for one in heads),
        *labels,
        *(f"  victim     {name}{_holds(one)}{fused}" for name, one in named),
        f"  batch      {batch}",
        *(f"  defence    {name}{_numbers(one)}" for name, one in named),
        *(
            f"  verified   {name}{one['verified_rows']} rows against the original graph"
            for name, one in named
        ),
        f"Next: {said['next']}",
    ]


def _holds(head: dict[str, Any]) -> str:
    if head["cut"] is not None:
        return f"logits, cut before the graph's {head['cut']}"
    if head["scores"] == "logits":
        return "logits; clients now get probabilities"
    return "probabilities; the maths is exact from logits only"


def _classes(head: dict[str, Any]) -> str:
    count = head["classes"]
    classes = "as many classes as a request has" if count < 0 else f"{count} classes"
    if count == 1:
        classes = "one score, the yes of a yes or no"
    elif head["multi_label"]:
        classes = f"{count if count > 0 else 'any number of'} labels, each a yes or no of its own"
    return classes if head["class_axis"] == -1 else f"{classes}, on axis {head['class_axis']}"


def _numbers(head: dict[str, Any]) -> str:
    return f"beta {head['beta']:g}, gamma {head['gamma']:g}, margin {head['margin']:g}"


def _tensor(one: dict[str, Any]) -> str:
    shape = ", ".join("?" if size < 0 else str(size) for size in one["shape"])
    return f"{one['name']} {one['data_type'].removeprefix('TYPE_')} [{shape}]"

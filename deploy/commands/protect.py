"""``reverse-sigmoid protect``: a classifier that exists, protected: a file, or a served model."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from deploy.commands import options, protect_told
from deploy.commands.console import err_console, say, show
from exporters.repository.model_repository import classifier_name
from postprocess.errors import InputError
from postprocess.parameters import CHOICES, Parameters

if TYPE_CHECKING:
    from deploy.commands.many import Told
    from deploy.existing.listing import Listing
    from exporters.protect import ProtectedFile
    from exporters.reading.classifier import ProtectOptions


@dataclass(frozen=True, kw_only=True)
class ProtectCommand:
    """Protect ONNX classifiers, or models of any backend in a Triton repository.

    Of several, each is tried: one that fails does not stop the others.
    """

    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Classifiers: .onnx files, which are only read; folders REPOSITORY/NAME, "
            "protected in place; or a REPOSITORY, all of it that is not protected yet.",
        ),
    ]
    repository: Annotated[
        Path | None,
        typer.Option(
            help="Model repository to write to; for a folder, instead of in place.",
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
            help="The output that holds the scores; give it again for each of several heads.",
            show_default="found",
        ),
    ] = None
    max_batch_size: Annotated[
        int | None,
        typer.Option(min=0, help="Most rows in a request, 0 for no batching.", show_default="256"),
    ] = None
    max_client_batch: options.MaxClientBatch = None
    sample: Annotated[
        Path | None,
        typer.Option(help="An .npz file of real rows, by input name.", show_default="random input"),
    ] = None
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Copy the package postprocess too.")
    ] = False
    layout: Annotated[
        str,
        typer.Option(help="ensemble: three models, all modes of the defence; fused: one, fastest."),
    ] = "ensemble"
    answers: Annotated[
        str,
        typer.Option(
            metavar="deceptive|calibrated|labels",
            help="What clients get: misleading probabilities, the label with a level of confidence "
            "to believe, or the label alone.",
            show_default="deceptive, or as it is",
        ),
    ] = ""
    also: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Write NAME_KIND too, with this kind of answers, over the same classifier.",
            show_default="none",
        ),
    ] = ""
    query_set: Annotated[
        str,
        typer.Option(
            metavar="FILE.npz",
            help="Rows that calibrated answers are made of: an array for each input, by its name, "
            "and labels.",
            show_default=False,
        ),
    ] = ""
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Give a model that was protected in place back as it was."),
    ] = False
    url: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="A Triton (gRPC) that serves the folder's model: asked about what the embedded "
            "one cannot serve, and waited for by --undo.",
        ),
    ] = ""
    force: options.Force = False
    as_json: options.AsJson = False

    def run(self) -> None:
        from deploy.commands import many, protect_existing

        if self.undo:
            protect_existing.undo(self)
            return
        already: list[Path] = []

        def unprotected(found: "Listing") -> list[Path]:
            already.extend(found.protected)
            return [*found.protected, *found.unprotected]

        paths = many.expanded(self.models, unprotected, "no model there")
        if paths == self.models and len(paths) == 1:
            self._tell({paths[0]: self._protect(paths[0])})
            return
        paths = [path for path in paths if path not in already]
        self._refuse_for_many(paths)
        done, failed = many.try_each(paths, self._protect)
        self._tell(done, failed, already)

    def _protect(self, path: Path) -> "Told":
        from deploy.commands import protect_existing

        if path.suffix != ".onnx" and path.is_dir():
            return protect_existing.protect(self, path)
        return self._protect_file(path)

    def _refuse_for_many(self, paths: list[Path]) -> None:
        """Refuse what cannot be meant of several models, before the first is written."""
        self.understood()
        if self.name:
            raise InputError("--name: is one model's, and several are given; leave it out")
        written: dict[Path, Path] = {}
        for path in paths:
            place = (self.repository or path.parent) / path.stem
            first = written.setdefault(place, path)
            if first != path:
                raise InputError(
                    f"{first} and {path}: would both be called {path.stem}; protect one by itself "
                    "under another --name"
                )

    def _tell(
        self,
        done: "dict[Path, Told]",
        failed: dict[Path, str] | None = None,
        already: Sequence[Path] = (),
    ) -> None:
        """Print what was done: of one model at length, of several as a table."""
        told = [one.as_dict for one in done.values()]
        for one in done.values():
            which = "" if failed is None else f"{one.as_dict['models'][0]}: "
            for warning in one.warnings:
                say(f"warning: {which}{warning}", console=err_console)
        if failed is None:
            (only,) = done.values()
            lines = [json.dumps(only.as_dict)] if self.as_json else only.lines
            for line in lines:
                say(line)
            return
        if self.as_json:
            errors = [{"model": str(path), "error": why} for path, why in failed.items()]
            print(json.dumps(told + errors))
        else:
            table = Table("model", "served as", "scores", "classes", "rows verified")
            for path, one in done.items():
                table.add_row(str(path), *protect_told.row(one.as_dict))
            for path in already:
                table.add_row(str(path), path.name, "protected already")
            for path in failed:
                table.add_row(str(path), "", "not protected")
            show(table, width=options.WIDTH)
        if failed:
            raise typer.Exit(1)

    def understood(self) -> "tuple[ProtectOptions, Parameters]":
        """Return what a person says of the model, and of its defence.

        Raises:
            InputError: a value is none of its option's.
        """
        from exporters.reading.classifier import ProtectOptions

        if self.scores not in ("", *CHOICES["scores"]):
            raise InputError(f"--scores: expected logits or probabilities, got {self.scores!r}")
        asked = options.settings(ProtectOptions, self, output=tuple(self.output or ()))
        return asked, options.parameters(self.beta, self.gamma, self.margin)

    def _protect_file(self, path: Path) -> "Told":
        from deploy.commands import protect_answers
        from deploy.commands.many import Told
        from exporters.protect import protect

        if self.url:
            raise InputError("--url: goes with a folder REPOSITORY/NAME, not with a file")
        if self.repository is None:
            raise InputError(
                "Missing option '--repository': without it, expected a folder REPOSITORY/NAME, got "
                f"{path}{'' if path.exists() else ', which does not exist'}"
            )
        repository = self.repository
        asked, defence = self.understood()
        public = repository / (self.name or path.stem)
        protect_answers.refuse(self, public)
        with err_console.status(f"reading and verifying {path}"):
            # With other answers, the parameters were asked to be others.
            before = _settings_there(public) if self.force and not self.answers else {}
            kept: list[str] = []
            done = protect(
                path,
                repository,
                defence,
                asked,
                finish=lambda staged: kept.extend(_keep_threads(public, staged)),
            )
            warnings, lost = [*done.classifier.warnings, *kept], _replaced(before, done)
            if lost:
                warnings.append(
                    f"{done.repository / done.name}: --force replaced its parameters: {lost}; "
                    "retune sets them again"
                )
            told = Told(protect_told.as_dict(done), protect_told.lines(done), warnings)
            return protect_answers.make(self, public, told)


def _settings_there(folder: Path) -> dict[str, Any]:
    """Return the parameters of the model that stands in the place of the new one."""
    from deploy.repository.retuning import plan

    with suppress(InputError, OSError):
        return dict(plan(folder, {})[0].before)
    return {}


def _keep_threads(public: Path, staged: Path) -> Iterator[str]:
    """Keep what was said of threads by the classifier that is replaced; yield a line of it."""
    name = classifier_name(public.name)
    config = public.with_name(name) / "config.pbtxt"
    if config.is_file() and (staged / name / "config.pbtxt").is_file():
        from deploy.benchmarks import threads

        if (said := threads.keep(config, staged / name / "config.pbtxt")) is not None:
            yield f"{config}: --force kept what it says of threads: {said}"


def _replaced(before: dict[str, Any], done: "ProtectedFile") -> str:
    """Return which parameters an operator had set and are others now, ``beta 0.9 -> 1.5``."""
    after, found = vars(done.heads[0].parameters), ("scores", "multi_label", "class_axis")
    return ", ".join(
        f"{name} {old} -> {after[name]}"
        for name, old in before.items()
        if name not in found and old != after[name]
    )

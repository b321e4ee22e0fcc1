"""``reverse-sigmoid export``: a classifier of a data set, trained, and protected at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands import asking, options
from deploy.commands.console import err_console, say
from deploy.commands.progress import stages
from exporters.repository import model_repository
from exporters.training import architectures, datasets, query_files
from postprocess.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Train a classifier and write it, protected, to a model repository."""

    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help=f"One of {', '.join(datasets.NAMES)}, or an .npz file."
        ),
    ]
    repository: Annotated[Path, typer.Option(help="Model repository to write to.")] = Path(
        "model_repository"
    )
    name: Annotated[str, typer.Option(help="Public model name.", show_default="the data set")] = ""
    data_dir: asking.DataDir = None
    architecture: Annotated[
        str,
        typer.Option(
            help=f"The victim's network: {', '.join(architectures.ARCHITECTURES)}.",
            show_default="simple for images, mlp for features",
        ),
    ] = ""
    query_sets: Annotated[
        Path | None,
        typer.Option(
            help="Also write here what an adversary asks about: query.npz, the third of the rows "
            "that the victim never saw, and test.npz, for attack --query-set and --test-set."
        ),
    ] = None
    beta: options.Beta = options.BETA
    gamma: options.Gamma = options.GAMMA
    margin: options.Margin = options.MARGIN
    steps: options.Steps = options.STEPS
    seed: options.Seed = 0
    max_client_batch: options.MaxClientBatch = None
    force: Annotated[
        bool, typer.Option("--force", help="Train anew and replace the ONNX file.")
    ] = False

    def run(self) -> None:
        from exporters.pipeline import export_classifier

        defence = options.parameters(self.beta, self.gamma, self.margin)
        public = self.name or datasets.public_name(self.dataset)
        onnx = model_repository.onnx_path(self.repository, public)
        if onnx.exists() and not self.force:
            raise InputError(f"{onnx} exists; give --force to train anew and replace it")
        config = self.repository / model_repository.defence_name(public) / "config.pbtxt"
        if config.exists() and defence != model_repository.SHIPPED:
            raise InputError(f"{config} exists; set beta, gamma and margin in it")
        if self.query_sets is not None:
            query_files.refuse(self.query_sets, force=self.force)
        dataset = datasets.load(self.dataset, self.data_dir)
        architecture = self.architecture or architectures.default(dataset.input_shape)
        exported = export_classifier(
            dataset,
            self.repository,
            defence,
            name=public,
            architecture=architecture,
            steps=self.steps,
            seed=self.seed,
            stage=stages(3),
            max_client_batch=self.max_client_batch,
        )
        for path in exported.kept:
            say(f"kept as it was: {path}", console=err_console)
        say(
            f"{exported.onnx}: accuracy {exported.accuracy:.4f} on the test set, "
            f"Keras and onnxruntime differ by at most {exported.parity:.1e}"
        )
        if self.query_sets is not None:
            query_files.write(self.query_sets, dataset, architecture=architecture, seed=self.seed)
            say(f"{self.query_sets}: {' and '.join(query_files.NAMES)}, what an adversary asks")
        say(f"Next: reverse-sigmoid serve {self.repository}")

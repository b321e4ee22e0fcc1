"""``reverse-sigmoid demo``: the whole way of the data, once: train, export, protect, serve, attack.

What it needs is imported by its steps, so that its help needs none of it.
"""

import itertools
import json
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

import postprocess
from deploy.commands import options
from deploy.commands.console import command_line, out_console, say
from deploy.commands.needs import refuse_missing
from deploy.commands.progress import stages
from exporters.files.atomic_file import write_json, write_text
from exporters.repository import model_repository
from postprocess.errors import InputError

if TYPE_CHECKING:
    from exporters.pipeline import Stage
    from exporters.training.datasets import Dataset, Images, Labels
    from load_tests.asking.endpoint import Answers, Query
    from load_tests.stealing.transfer_set import TransferSet

DIGITS = "digits"
LATENCY_REQUESTS = 1000
#: Marks a folder as made by the demo.
MARK = ".reverse-sigmoid-demo"
CALIBRATED = "calibrated"


@dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """Train, export, protect, serve and attack a classifier, of handwritten digits or of yours."""

    out: Annotated[Path, typer.Option(help="Folder for the repository and the report.")] = Path(
        "demo"
    )
    data: Annotated[
        str, typer.Option(help="What to learn: a data set's name, or an .npz file, see export.")
    ] = DIGITS
    beta: options.Beta = options.BETA
    gamma: options.Gamma = options.GAMMA
    margin: options.Margin = options.MARGIN
    steps: options.Steps = options.STEPS
    seed: options.Seed = 0
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier demo.")] = False
    as_json: options.AsJson = False

    def run(self) -> None:
        from deploy.commands.demo_report import HEAD, caption, table_rows

        refuse_missing("tensorflow", "tf2onnx", "onnxruntime", "sklearn")
        refuse_missing("pytriton", "tritonclient", "scipy", "matplotlib")
        report = self._report()
        if self.as_json:
            print(json.dumps(report))
            return
        table = Table("", *HEAD, title="Reverse Sigmoid, served by Triton")
        for row in table_rows(report):
            table.add_row(*row)
        out_console.print(table)
        say(caption(report))
        _say_next(self.out, report["dataset"])

    def _report(self) -> dict[str, Any]:
        """Return the report, after writing report.json and report.html to ``out``."""
        from deploy.commands.demo_report import to_html
        from exporters.files import servable_path
        from exporters.pipeline import export_classifier
        from exporters.training import architectures, datasets

        start = time.monotonic()
        defence = options.parameters(self.beta, self.gamma, self.margin)
        dataset = datasets.load(self.data)
        name = datasets.public_name(self.data)
        model_repository.refuse_name(name, where="--data")
        repository = self.out / "model_repository"
        servable_path.refuse(repository)
        _claim(self.out, name, force=self.force)
        stage = stages(11)
        architecture = architectures.default(dataset.input_shape)
        export_classifier(
            dataset,
            repository,
            defence,
            name=name,
            architecture=architecture,
            steps=self.steps,
            seed=self.seed,
            stage=stage,
        )
        judged = self._calibrate(dataset, stage)
        pool = datasets.hold_off(dataset, seed=self.seed).adversary_images
        served, victim, taken = self._ask(dataset, pool, judged, stage)
        report: dict[str, Any] = {
            **served,
            "package_version": postprocess.__version__,
            "dataset": name,
            "classes": dataset.classes,
            "seed": self.seed,
            "cpu_count": os.cpu_count(),
            "beta": defence.beta,
            "gamma": defence.gamma,
            "margin": defence.margin,
            "preserve_top1": defence.preserve_top1,
            "query_budget": len(pool),
            "architecture": architecture,
            "substitute_steps": self.steps,
            **self._steal(dataset, architecture, victim, taken, stage),
            "command": command_line(),
        }
        report["seconds"] = time.monotonic() - start
        write_text(self.out / "report.html", to_html(report))
        write_json(self.out / "report.json", report)
        return report

    def _calibrate(self, dataset: "Dataset", stage: "Stage") -> "Labels":
        """Add the model that answers with calibrated levels; return the test rows to judge by.

        The other half of them makes its table.
        """
        import numpy as np

        from deploy.existing import second
        from deploy.repository import answers, victim_graph
        from exporters.training import datasets
        from load_tests.calibrate.fit import fit
        from load_tests.data.drawn import Drawn
        from load_tests.tune import recorded

        public = self.out / "model_repository" / datasets.public_name(self.data)
        order = np.random.default_rng(self.seed).permutation(len(dataset.x_test))
        with stage("calibrate the answers of a second model"):
            classifier, _ = victim_graph.find(public.parent, public.name)
            rows, labels = dataset.x_test[order[::2]], dataset.y_test[order[::2]]
            logits = recorded.asker(classifier, Drawn(pool=rows, test=rows, labels=labels))(rows)
            table = fit(logits, labels)
            second.add(public, CALIBRATED, lambda folder: answers.put(folder, CALIBRATED, table))
        return order[1::2]

    def _ask(
        self, dataset: "Dataset", pool: "Images", judged: "Labels", stage: "Stage"
    ) -> tuple[dict[str, Any], "Answers", "dict[str, TransferSet]"]:
        """Return how the endpoints answer, the victim's scores, and what a thief has of each."""
        import numpy as np

        from deploy.triton.server import TritonServer, free_ports
        from exporters.training import datasets
        from load_tests.asking.endpoint import Endpoint, ask
        from load_tests.reporting import measures
        from load_tests.stealing import probabilities
        from load_tests.stealing.attacks.sample import sample
        from load_tests.stealing.collect import collect

        name = datasets.public_name(self.data)
        with ExitStack() as stack:
            with stage("start Triton"):
                repository, log = self.out / "model_repository", self.out / "triton.log"
                server = stack.enter_context(TritonServer(repository, ports=free_ports(), log=log))
                version = server.version()
            models = {
                "unprotected": model_repository.classifier_name(name),
                "protected": name,
                CALIBRATED: f"{name}_{CALIBRATED}",
            }
            endpoints: dict[str, Query] = {
                which: stack.enter_context(Endpoint(server.grpc_url, model))
                for which, model in models.items()
            }
            with stage("time the endpoints, interleaved"):
                latencies = _latencies(endpoints, dataset.x_test, seed=self.seed)
            # As an unprotected service would answer.
            endpoints["unprotected"] = probabilities.of(endpoints["unprotected"])
            with stage(f"query the endpoints, {len(pool)} rows each"):
                scores = {which: ask(query, dataset.x_test) for which, query in endpoints.items()}
                taken = {}
                for which, query in endpoints.items():
                    rng = np.random.default_rng(self.seed)
                    taken[which] = collect(sample(pool, budget=len(pool), rng=rng), query)
        victim_scores, labels = scores["unprotected"], dataset.y_test
        served = {
            "triton_version": version,
            **_compared(victim_scores, scores["protected"], labels),
            "calibrated_accuracy": measures.accuracy(scores[CALIBRATED], labels),
            "calibrated_agreement": measures.agreement(scores[CALIBRATED], victim_scores),
            "honest": _worth(scores, labels, judged),
            "latency_requests": LATENCY_REQUESTS,
            **latencies,
        }
        return served, victim_scores, taken

    def _steal(
        self,
        dataset: "Dataset",
        architecture: str,
        victim: "Answers",
        taken: "dict[str, TransferSet]",
        stage: "Stage",
    ) -> dict[str, float]:
        """Return how far substitutes of the answers agree with the victim."""
        from exporters.training.train import predict
        from load_tests.reporting import measures
        from load_tests.stealing.substitute import Recipe, train_substitute

        def agreement(title: str, endpoint: str, *, labels_only: bool = False) -> float:
            with stage(f"train a substitute, {title}") as progress:
                recipe = Recipe(
                    steps=self.steps,
                    seed=self.seed + 1,
                    flips=dataset.flips,
                    labels_only=labels_only,
                    architecture=architecture,
                )
                model = train_substitute(taken[endpoint], recipe, progress=progress)
                logits = predict(model, dataset.x_test)
            return measures.agreement(logits, victim)

        return {
            "stolen_agreement_unprotected": agreement("no defence", "unprotected"),
            "stolen_agreement_protected": agreement("Reverse Sigmoid", "protected"),
            "stolen_agreement_labels_only": agreement(
                "Reverse Sigmoid, labels only", "protected", labels_only=True
            ),
            "stolen_agreement_calibrated": agreement("calibrated answers", CALIBRATED),
        }


def _latencies(queries: "dict[str, Query]", images: "Images", *, seed: int) -> dict[str, float]:
    """Return how long each takes for one image at a time, one caller, in a closed loop."""
    import numpy as np

    from load_tests.timing.interleaved import call_seconds

    calls = {
        name: map(query, itertools.cycle(images[:, None])).__next__
        for name, query in queries.items()
    }
    rng, rounds = np.random.default_rng(seed), LATENCY_REQUESTS
    seconds = call_seconds(calls, rounds=rounds, rng=rng, warm_up=rounds // 10)
    return {
        f"latency_p{percentile}_ms_{name}": 1000 * float(np.percentile(values, percentile))
        for name, values in seconds.items()
        for percentile in (50, 99)
    }


def _compared(victim: "Answers", protected: "Answers", labels: "Labels") -> dict[str, float]:
    """Return what clients still get of the victim's answers."""
    from load_tests.reporting import measures

    found = measures.between(protected, victim)
    return {
        "victim_accuracy": measures.accuracy(victim, labels),
        "protected_accuracy": measures.accuracy(protected, labels),
        "protected_agreement": found.pop("agreement"),
        **found,
    }


def _worth(scores: "dict[str, Answers]", labels: "Labels", judged: "Labels") -> dict[str, Any]:
    """Return what each kind of answers is worth to honest clients, of some of the rows."""
    from load_tests.calibrate import honest

    parts = {which: (answers[judged], labels[judged]) for which, answers in scores.items()}
    return {
        "judged_rows": len(judged),
        "answers": {which: honest.worth(*part) for which, part in parts.items()},
        "reliability": {which: honest.reliability(*part) for which, part in parts.items()},
    }


def _say_next(out: Path, name: str) -> None:
    repository = out / "model_repository"
    config = repository / model_repository.defence_name(name) / "config.pbtxt"
    say(f"\nThe report with its plots is {out / 'report.html'}. Next:")
    say(f"  reverse-sigmoid serve {repository}      # serve it yourself")
    say(f"  ${{EDITOR:-vi}} {config}      # tune beta, gamma and margin")
    say("  reverse-sigmoid export mnist --repository models      # a classifier of your own size")


def _claim(out: Path, name: str, *, force: bool) -> None:
    """Make ``out`` a demo's folder, rid of what an earlier demo left in it.

    Only in a folder with our mark is anything removed, and only what a demo writes, so that no
    ``--out`` can cost anybody a file of theirs.
    """
    mark = out / MARK
    if out.exists() and not mark.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: exists and was not made by a demo; choose another")
    if (out / "report.json").exists() and not force:
        raise InputError(f"--out {out}: holds the report of a demo; give --force to replace it")
    try:
        # The last line says what an earlier demo called its models; those of old said nothing.
        earlier = mark.read_text(encoding="utf-8").splitlines()[1:] if mark.exists() else []
        write_text(mark, f"reverse-sigmoid demo may clear this folder\n{name}\n")
        for file in ("report.json", "report.html", "triton.log"):
            (out / file).unlink(missing_ok=True)
        before = (earlier or [DIGITS])[-1]
        model_repository.refuse_name(before, where=str(mark))  # no path leads out of the folder
        second = f"{before}_{CALIBRATED}"
        for relative in (*model_repository.model_names(before), second,
                         model_repository.defence_name(second)):  # fmt: skip
            model = out / "model_repository" / relative
            if model.exists():
                shutil.rmtree(model)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None

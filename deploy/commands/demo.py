"""The whole way of the data, once: train, export, protect, serve, attack, report."""

import json
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import postprocess
from deploy.commands.demo_report import to_html
from deploy.commands.options import command_line
from deploy.commands.progress import Stages
from deploy.triton.server import TritonServer, free_ports
from exporters import datasets, model_repository, servable_path
from exporters.atomic_file import write_text
from exporters.pipeline import export_classifier
from exporters.train import predict
from load_tests import measures
from load_tests.endpoint import Endpoint, ask
from load_tests.stealing import probabilities
from load_tests.stealing.attacks.sample import sample
from load_tests.stealing.collect import collect
from load_tests.stealing.substitute import Recipe, train_substitute
from load_tests.stealing.transfer_set import TransferSet
from load_tests.timing.latency import interleaved_latency_ms
from postprocess.errors import InputError
from postprocess.parameters import Parameters

NAME = "digits"
LATENCY_REQUESTS = 1000
#: Marks a folder as made by the demo.
MARK = ".reverse-sigmoid-demo"


def run(
    out: Path, parameters: Parameters, *, steps: int, seed: int, force: bool, console: Console
) -> dict[str, Any]:
    """Return the report of one demo, after writing report.json and report.html to ``out``.

    Args:
        out: folder of the model repository, Triton's log and the report.
        parameters: of the defence that is served.
        steps: training batches of 64, for the victim and for each substitute.
        seed: of the hold-off, the victim, the attack and the substitutes.
        force: replace the report of an earlier demo.
        console: where progress goes.

    Raises:
        InputError: ``out`` holds a report and ``force`` is not given, or cannot be written.
        ReverseSigmoidError: the export, the server or the endpoint failed.
    """
    start = time.monotonic()
    _claim(out, force=force)
    repository = out / "model_repository"
    servable_path.refuse(repository)
    stages = Stages(console, total=9)
    dataset = datasets.load(NAME)
    held_off = datasets.hold_off(dataset, seed=seed)
    export_classifier(
        dataset, repository, parameters, name=NAME, architecture="simple", steps=steps, seed=seed,
        stage=stages.stage,
    )  # fmt: skip

    with ExitStack() as stack:
        with stages.stage("start Triton"):
            server = stack.enter_context(
                TritonServer(repository, ports=free_ports(), log=out / "triton.log")
            )
            version = server.version()
        classifier = stack.enter_context(
            Endpoint(server.grpc_url, model_repository.classifier_name(NAME))
        )
        protected = stack.enter_context(Endpoint(server.grpc_url, NAME))
        with stages.stage("time both endpoints, interleaved"):
            latencies = interleaved_latency_ms(
                {"unprotected": classifier, "protected": protected},
                dataset.x_test,
                rounds=LATENCY_REQUESTS,
                rng=np.random.default_rng(seed),
            )

        victim = probabilities.of(classifier)  # as an unprotected service would answer
        with stages.stage(f"query both endpoints, {len(held_off.adversary_images)} images"):
            victim_scores = ask(victim, dataset.x_test)
            protected_scores = ask(protected, dataset.x_test)
            transfer_sets = {
                name: collect(
                    sample(
                        held_off.adversary_images,
                        budget=len(held_off.adversary_images),
                        rng=np.random.default_rng(seed),
                    ),
                    query,
                )
                for name, query in (("unprotected", victim), ("protected", protected))
            }

    def stolen(title: str, transfer_set: TransferSet, *, labels_only: bool = False) -> float:
        with stages.stage(f"train a substitute, {title}") as progress:
            recipe = Recipe(
                steps=steps, seed=seed + 1, flips=dataset.flips, labels_only=labels_only
            )
            model = train_substitute(transfer_set, recipe, progress=progress)
            logits = predict(model, dataset.x_test)
        return measures.agreement(logits, victim_scores)

    report: dict[str, Any] = {
        "triton_version": version,
        "package_version": postprocess.__version__,
        "dataset": NAME,
        "classes": dataset.classes,
        "seed": seed,
        "cpu_count": os.cpu_count(),
        "beta": parameters.beta,
        "gamma": parameters.gamma,
        "margin": parameters.margin,
        "preserve_top1": parameters.preserve_top1,
        "victim_accuracy": measures.accuracy(victim_scores, dataset.y_test),
        "protected_accuracy": measures.accuracy(protected_scores, dataset.y_test),
        "protected_agreement": measures.agreement(protected_scores, victim_scores),
        "cosine": measures.cosine(protected_scores, victim_scores),
        "mae": measures.mae(protected_scores, victim_scores),
        "kl_nats_victim_protected": measures.kl_nats(victim_scores, protected_scores),
        "kl_nats_protected_victim": measures.kl_nats(protected_scores, victim_scores),
        "query_budget": len(held_off.adversary_images),
        "substitute_steps": steps,
        "stolen_agreement_unprotected": stolen("no defence", transfer_sets["unprotected"]),
        "stolen_agreement_protected": stolen("Reverse Sigmoid", transfer_sets["protected"]),
        "stolen_agreement_labels_only": stolen(
            "Reverse Sigmoid, labels only", transfer_sets["protected"], labels_only=True
        ),
        "latency_requests": LATENCY_REQUESTS,
        **{
            f"latency_p{percentile}_ms_{name}": float(np.percentile(values, percentile))
            for name, values in latencies.items()
            for percentile in (50, 99)
        },
        "command": command_line(),
    }
    report["seconds"] = time.monotonic() - start
    write_text(out / "report.html", to_html(report))
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _claim(out: Path, *, force: bool) -> None:
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
        write_text(mark, "reverse-sigmoid demo may clear this folder\n")
        for name in ("report.json", "report.html", "triton.log"):
            (out / name).unlink(missing_ok=True)
        for relative in model_repository.model_names(NAME):
            model = out / "model_repository" / relative
            if model.exists():
                shutil.rmtree(model)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None

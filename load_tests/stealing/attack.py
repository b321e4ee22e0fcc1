"""Attacks on a live endpoint, from the command line's words to the report."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import postprocess
from exporters import architectures, datasets
from exporters.atomic_file import write_text
from exporters.pipeline import Stage
from load_tests.endpoint import Access, Endpoint, Query
from load_tests.stealing import probabilities, verdict
from load_tests.stealing.campaign import Campaign, CampaignSettings
from load_tests.stealing.collect import Manner
from load_tests.stealing.report import to_html
from load_tests.stealing.thief import Thief
from load_tests.stealing.transfer_set import TransferSet
from load_tests.stealing.transfer_set_file import TransferSetFile
from postprocess.errors import InputError

#: Parts of the query budget that ``attack all`` judges too.
PARTS = (4, 2)


def run(
    out: Path,
    thieves: list[Thief],
    settings: CampaignSettings,
    *,
    budgets: list[int],
    manner: Manner,
    access: Access,
    timeout_s: float,
    data_dir: Path | None,
    from_transfer_set: Path | None,
    prices: tuple[float, float],
    command: str,
    stages: Callable[[int], Stage],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return the report of a campaign, after writing report.json and report.html to ``out``.

    Args:
        out: folder of the campaign; one that was interrupted is gone on with.
        thieves: who steal.
        settings: what decides the results.
        budgets: to judge beside the whole of ``settings.queries``. Where there are several
            thieves and no budgets, a quarter and a half of it.
        manner: how requests are sent.
        access: what the endpoint asks of its clients.
        timeout_s: of one request.
        data_dir: folder of the data sets.
        from_transfer_set: folder of a transfer set that takes the place of the attack.
        prices: dollars for 1,000 queries, from and to.
        command: what was typed, for the report.
        stages: called once there is work, with the number of its stages.
        say: takes one line for a person.

    Raises:
        InputError: what was asked for cannot be.
        EndpointError: the server refused a request, or failed on it again and again.
    """
    architectures.find(settings.architecture)
    taken: dict[str, TransferSet] = {}
    if from_transfer_set is not None:
        settings = _of_folder(from_transfer_set, settings, thieves[0].attack)
    if not settings.data:
        raise InputError("--data: say which kind of images the model takes")
    dataset = datasets.load(settings.data, data_dir)
    if from_transfer_set is not None:
        pool = datasets.hold_off(dataset, seed=settings.split_seed).adversary_images
        taken[thieves[0].attack] = TransferSetFile(from_transfer_set, pool).read()
        settings = replace(settings, queries=len(taken[thieves[0].attack]))
    if settings.queries < 1:
        raise InputError("--queries: say how many queries an attack may send, at least 1")
    if not budgets and len(thieves) > 1:
        budgets = [settings.queries // part for part in PARTS if settings.queries >= part]
    budgets = sorted({*budgets, settings.queries})
    if budgets[-1] > settings.queries:
        raise InputError(f"--budgets {budgets[-1]}: is more than --queries {settings.queries}")
    with ExitStack() as stack:

        def endpoint(model: str) -> Query:
            opened = Endpoint(settings.url, model, timeout_s=timeout_s, access=access)
            return probabilities.of(stack.enter_context(opened))

        campaign = Campaign(
            out,
            settings,
            dataset=dataset,
            data_dir=data_dir,
            protected=endpoint(settings.model),
            victim=endpoint(settings.victim) if settings.victim else None,
            manner=manner,
            taken=taken,
        )
        campaign.stage = stages(campaign.stages_left(thieves, budgets))
        results = campaign.run(thieves, budgets)
        for name, lost in campaign.lost.items():
            say(f"{name}: {lost} queries were sent and their answers lost")
        report = {
            "settings": asdict(settings),
            "package_version": postprocess.__version__,
            "classes": dataset.classes,
            "test_images": len(dataset.x_test),
            "lost_queries": campaign.lost,
            "protection": campaign.protection(),
            "summary": verdict.summary(results, prices=prices),
            "results": results,
            "command": command,
        }
    write_text(out / "report.html", to_html(report))
    write_text(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _of_folder(folder: Path, settings: CampaignSettings, attack: str) -> CampaignSettings:
    """Return the settings with what the transfer set's own folder says about its images."""
    path = folder / "attack.json"
    try:
        about = json.loads(path.read_text())
        theirs, data, split = about["attack"], about["data"], about["split_seed"]
    except OSError as error:
        raise InputError(f"--from-transfer-set: {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"--from-transfer-set: {path}: expected JSON with attack, data and split_seed"
        ) from None
    if theirs != attack:
        raise InputError(f"--from-transfer-set {folder}: was made by {theirs}, not by {attack}")
    return replace(settings, data=settings.data or data, split_seed=split)

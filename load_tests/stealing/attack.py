"""Attacks on a live endpoint, from the command line's words to the report."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import postprocess
from exporters import architectures, datasets
from exporters.atomic_file import write_json, write_text
from exporters.datasets import Dataset
from exporters.pipeline import Stage
from load_tests.endpoint import Access, Endpoint, Query
from load_tests.stealing import attack_record, probabilities, verdict
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
    """Return the report of all results in ``out``, after writing it there, for machines and people.

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
    settings, dataset, taken = _taken(from_transfer_set, settings, thieves[0].attack, data_dir)
    budgets = _budgets(budgets, settings.queries, several=len(thieves) > 1)
    with ExitStack() as stack:
        endpoint = partial(_query, stack, settings.url, timeout_s=timeout_s, access=access)
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
        for line in campaign.ask_again():
            say(line)
        campaign.stage = stages(campaign.stages_left(thieves, budgets))
        campaign.run(thieves, budgets)
    for name, lost in campaign.lost.items():
        say(f"{name}: {lost} queries were sent and their answers lost")
    return _written(out, _report(campaign, prices) | {"command": command})


def _query(stack: ExitStack, url: str, model: str, *, timeout_s: float, access: Access) -> Query:
    opened = stack.enter_context(Endpoint(url, model, timeout_s=timeout_s, access=access))
    return probabilities.of(opened)


def _taken(
    folder: Path | None, settings: CampaignSettings, attack: str, data_dir: Path | None
) -> tuple[CampaignSettings, Dataset, dict[str, TransferSet]]:
    """Return the settings, their data set, and by its attack the transfer set that is there."""
    if folder is not None:
        settings = _of_folder(folder, settings, attack)
    if not settings.data:
        raise InputError("--data: say which kind of images the model takes")
    dataset = datasets.load(settings.data, data_dir)
    architectures.find(settings.architecture, dataset.input_shape)
    if folder is None:
        return settings, dataset, {}
    pool = datasets.hold_off(dataset, seed=settings.split_seed).adversary_images
    found = TransferSetFile(folder, pool).read()
    return replace(settings, queries=len(found)), dataset, {attack: found}


def _budgets(given: list[int], queries: int, *, several: bool) -> list[int]:
    """Return the budgets to judge, in order; the whole one is the last."""
    if queries < 1:
        raise InputError("--queries: say how many queries an attack may send, at least 1")
    if not given and several:
        given = [queries // part for part in PARTS if queries >= part]
    if max(given, default=0) > queries:
        raise InputError(f"--budgets {max(given)}: is more than --queries {queries}")
    return sorted({*given, queries})


def _report(campaign: Campaign, prices: tuple[float, float]) -> dict[str, Any]:
    results = campaign.results()
    return {
        "settings": asdict(campaign.settings),
        "package_version": postprocess.__version__,
        "classes": campaign.dataset.classes,
        "test_images": len(campaign.dataset.x_test),
        "lost_queries": campaign.lost,
        "protection": campaign.protection(),
        "summary": verdict.summary(results, prices=prices),
        "results": results,
    }


def _written(out: Path, report: dict[str, Any]) -> dict[str, Any]:
    write_text(out / "report.html", to_html(report))
    write_json(out / "report.json", report)
    return report


def _of_folder(folder: Path, settings: CampaignSettings, attack: str) -> CampaignSettings:
    """Return the settings with what the transfer set's own folder says about its images."""
    try:
        record = attack_record.read(folder)
    except InputError as error:
        raise InputError(
            f"--from-transfer-set: {error}; give the folder of one transfer set, such as "
            "OUT/sample. Where an earlier version left it, the attack's own command, given again, "
            "adds the file"
        ) from None
    if record.attack != attack:
        raise InputError(
            f"--from-transfer-set {folder}: was made by {record.attack}, not by {attack}"
        )
    return replace(settings, data=settings.data or record.data, split_seed=record.split_seed)

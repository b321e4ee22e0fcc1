"""Attacks on a live endpoint, from the command line's words to the report."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import postprocess
from exporters.files.atomic_file import write_json, write_text
from exporters.pipeline import Stage
from exporters.training import architectures
from load_tests.asking.endpoint import Access, Endpoint, Query
from load_tests.data.drawn import HELD_OUT_ONE_IN, Drawn, digest, draw_from, refuse_other_rows
from load_tests.stealing import attack_record, probabilities, verdict
from load_tests.stealing.attacks.base import Means
from load_tests.stealing.attacks.registry import ATTACKS
from load_tests.stealing.campaign import Campaign, CampaignSettings
from load_tests.stealing.collect import Manner
from load_tests.stealing.crew import Share
from load_tests.stealing.report import to_html
from load_tests.stealing.thief import Thief
from load_tests.stealing.transfer_set import TransferSet
from load_tests.stealing.transfer_set_file import TransferSetFile
from postprocess.errors import InputError

#: Parts of the query budget that ``attack all`` judges too.
PARTS = (4, 2)
#: How often the protected answers have the victim's top class, but for ties that rounding decides.
SAME_VICTIM = 0.98


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
    share: Share,
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
        access, timeout_s: what the endpoint asks of its clients; of one request.
        data_dir: folder of the data sets.
        from_transfer_set: folder of a transfer set that takes the place of the attack.
        prices: dollars for 1,000 queries, from and to.
        command: what was typed, for the report.
        share: how many train at a time.
        stages: called once there is work, with the number of its stages.
        say: takes one line for a person.

    Raises:
        InputError, EndpointError: what was asked for cannot be, or see ``Campaign.run``.
    """
    settings, drawn, taken = _taken(from_transfer_set, settings, thieves[0].attack, data_dir)
    budgets = _budgets(budgets, settings.queries, several=len(thieves) > 1)
    thieves, left_out = _able(thieves, settings, drawn)
    with ExitStack() as stack:
        endpoint = partial(_query, stack, drawn, settings, timeout_s=timeout_s, access=access)
        campaign = Campaign(
            out,
            settings,
            drawn=drawn,
            data_dir=data_dir,
            protected=endpoint(settings.model),
            victim=endpoint(settings.victim) if settings.victim else None,
            manner=manner,
            taken=taken,
        )
        for line in (*campaign.ask_again(), *_notes(settings, drawn, left_out)):
            say(line)
        campaign.warn, campaign.stage = say, stages(campaign.stages_left(thieves, budgets))
        campaign.run(thieves, budgets, share)
    for line in _reservations(campaign):
        say(line)
    return _written(out, _report(campaign, prices) | {"left_out": left_out, "command": command})


def _query(
    stack: ExitStack,
    drawn: Drawn,
    settings: CampaignSettings,
    model: str,
    *,
    timeout_s: float,
    access: Access,
) -> Query:
    opened = stack.enter_context(
        Endpoint(settings.url, model, output=settings.output, timeout_s=timeout_s, access=access)
    )
    opened.refuse_misfits(drawn, scores_for_each=True)
    return probabilities.of(opened)


def _able(
    thieves: list[Thief], settings: CampaignSettings, drawn: Drawn
) -> tuple[list[Thief], dict[str, str]]:
    """Return those who can ask with such rows, and for each other attack why it cannot.

    Raises:
        InputError: nobody can.
    """
    means = Means(
        pool=drawn.pool,
        budget=settings.queries,
        rng=np.random.default_rng(),
        others=settings.others,
    )
    hindrances = {one.attack: ATTACKS[one.attack].hindrance(means) for one in thieves}
    able = [one for one in thieves if not hindrances[one.attack]]
    if not able:
        raise InputError(f"attack {thieves[0].attack}: it {hindrances[thieves[0].attack]}")
    return able, {name: why for name, why in hindrances.items() if why}


def _notes(settings: CampaignSettings, drawn: Drawn, left_out: dict[str, str]) -> Iterator[str]:
    """Yield what is not as whoever asked might think."""
    for name, why in left_out.items():
        yield f"{name} is left out: it {why}"
    if settings.query_set and not settings.test_set:
        yield (
            f"{settings.query_set}: one row in {HELD_OUT_ONE_IN} is held out to judge by, "
            f"{len(drawn.test)} drawn with --split-seed {settings.split_seed}; --test-set FILE.npz "
            "names others"
        )


def _reservations(campaign: Campaign) -> Iterator[str]:
    """Yield what makes the results less than they seem."""
    model, victim = campaign.settings.model, campaign.settings.victim
    if (agreed := campaign.protection()["agreement"]) < SAME_VICTIM:
        yield (
            f"warning: {model} and {victim} give the same top class for only {agreed:.1%} of the "
            f"test rows: unless its defence changes the top class, {victim} is not the classifier "
            "behind it, and what is judged by it says nothing of this theft"
        )
    for name, lost in campaign.lost.items():
        yield f"{name}: {lost} queries were sent and their answers lost"


def _taken(
    folder: Path | None, settings: CampaignSettings, attack: str, data_dir: Path | None
) -> tuple[CampaignSettings, Drawn, dict[str, TransferSet]]:
    """Return the settings, their rows, and by its attack the transfer set that is there."""
    if settings.architecture:
        architectures.find(settings.architecture)
    if folder is not None:
        settings = _of_folder(folder, settings, attack)
    refuse_other_rows(settings.data, settings.query_set, settings.test_set)
    files = {"query_set": settings.query_set, "test_set": settings.test_set}
    drawn = draw_from(settings.data, data_dir, settings.split_seed, **files)
    architecture = settings.architecture or architectures.default(drawn.shape)
    architectures.find(architecture, drawn.shape)
    settings = replace(settings, architecture=architecture)
    if settings.query_set:
        rows = digest(drawn.pool)
        if settings.rows not in ("", rows):
            raise InputError(
                f"--from-transfer-set {folder}: {settings.query_set} holds other rows than those "
                "that were asked about"
            )
        settings = replace(settings, rows=rows, test_rows=digest(drawn.test))
    if folder is None:
        return settings, drawn, {}
    found = TransferSetFile(folder, drawn.pool).read()
    return replace(settings, queries=len(found)), drawn, {attack: found}


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
        "unknown_table": campaign.unknown_table,
        "package_version": postprocess.__version__,
        "classes": campaign.classes,
        "test_images": len(campaign.drawn.test),
        "lost_queries": campaign.lost,
        "protection": campaign.protection(),
        "summary": verdict.summary(results, prices=prices, classes=campaign.classes),
        "results": results,
    }


def _written(out: Path, report: dict[str, Any]) -> dict[str, Any]:
    write_text(out / "report.html", to_html(report))
    write_json(out / "report.json", report)
    return report


def _of_folder(folder: Path, settings: CampaignSettings, attack: str) -> CampaignSettings:
    """Return the settings with what the transfer set's own folder says about its rows."""
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
    if not (settings.data or settings.query_set):
        settings = replace(
            settings,
            data=record.data,
            query_set=record.query_set,
            test_set=settings.test_set or record.test_set,
        )
    return replace(settings, split_seed=record.split_seed, rows=record.rows)

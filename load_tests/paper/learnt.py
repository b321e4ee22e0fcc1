"""What was learnt, a line each, from whatever has been run."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from load_tests.paper import findings, headings
from load_tests.paper.beyond import Beyond
from load_tests.paper.grids import NAMES
from load_tests.paper.headings import heading, link
from load_tests.paper.measured import mean, said
from load_tests.paper.tables import TITLES
from load_tests.paper.thieves import HONEST, LABELS_ONLY


class _Place(NamedTuple):
    """One data set of one scale."""

    scale: str
    data: str
    of: Beyond

    def told(self, text: str, what: str) -> str:
        """Return numbers as a link to their table."""
        return link(f"{TITLES[self.data]} {text}", heading(self.scale, what, self.data))


def lines(measured: dict[str, Beyond]) -> Iterator[str]:
    """Yield what the runs teach, each with links to its tables; what was not run says nothing."""
    for lesson, (text, places) in _LESSONS.items():
        found = [
            told
            for scale, of in measured.items()
            for data in places(of)
            if (told := lesson(_Place(scale, data, of)))
        ]
        if found:
            yield f"{text}: {'; '.join(found)}."


def _naive(at: _Place) -> str:
    found = findings.held_back(at.of, at.data, at.of.plan.ours(at.data))
    if found is None:
        return ""
    text = f"{found.before:.3f} to {found.after:.3f} at cosine {found.cosine:.2f}"
    return at.told(f"{text} ({said(found.setting)})", headings.TABLE_1)


def _end(at: _Place) -> str:
    found, scale = findings.longer(at.of, at.data), at.of.scale
    if found is None:
        return ""
    text = f"{found.short:.3f} after {scale.steps:,} steps, {found.long:.3f} after "
    text += f"{scale.kept_steps:,}, without a defence {found.plain:.3f}"
    return at.told(text, headings.CONVERGED)


def _others(at: _Place) -> str:
    plan = at.of.plan
    tried = []
    for name, title in NAMES.items():
        if name != "reverse_sigmoid":
            setting = plan.chosen(at.data, name, capped=True)
            found = findings.held_back(at.of, at.data, setting)
            if found is None:
                return ""
            tried.append((found, title))
    best, title = min(tried, key=lambda one: one[0].after)
    text = f"{best.before:.3f} to {best.after:.3f} at cosine {best.cosine:.2f} by {title}"
    return at.told(text, headings.TABLE_1)


def _uncapped(at: _Place) -> str:
    plan = at.of.plan
    runs = plan.repeats(at.data, plan.paper_setting(at.data))
    kept = mean(at.of.values(runs, "protected", "agreement"))
    return _unless(kept, at.told(f"{kept:.3f}", headings.TABLE_1))


def _labels(at: _Place) -> str:
    plan = at.of.plan
    labels = at.of.stolen(plan.hardened(at.data, {}, LABELS_ONLY))
    before = at.of.stolen(plan.repeats(at.data, {}))
    text = f"{labels:.3f}, where probabilities without a defence give {before:.3f}"
    return _unless(labels + before, at.told(text, headings.SUITE))


def _blind(at: _Place) -> str:
    plan = at.of.plan
    mse, layer = (
        at.of.stolen(plan.hardened(at.data, {}, {"loss": loss})) for loss in ("mse", "same_layer")
    )
    text = f"{mse:.3f} and {layer:.3f}"
    return _unless(mse + layer, at.told(text, headings.TABLE_4))


def _few(at: _Place) -> str:
    told = []
    for one in findings.few(at.of, at.data):
        if not math.isnan(one.ours):
            text = f"{one.ours:.3f} against {one.labels:.3f} with {one.queries:,} queries"
            known = "" if math.isnan(one.true) else f", true probabilities {one.true:.3f}"
            told.append(text + known)
    return at.told(", ".join(told), headings.FEW) if told else ""


def _worth(at: _Place) -> str:
    found = findings.worth(at.of, at.data)
    if found is None:
        return ""
    (few, all_), (first, last) = found.steps, found.said
    return at.told(f"{first} after {few:,} steps, {last} after {all_:,}", headings.WORTH)


def _honest(at: _Place) -> str:
    plan = at.of.plan
    kinds = [plan.honest(at.data, answers, {}) for answers in HONEST.values()]
    kinds.append(plan.honest(at.data, "", plan.ours(at.data)))
    ece = [mean(at.of.values(runs, "honest", "ece")) for runs in kinds]
    stolen = [at.of.stolen(runs) for runs in kinds]
    shown = (f"{error:.3f} and {theft:.3f}" for error, theft in zip(ece, stolen, strict=True))
    text = ", ".join(map(" ".join, zip([*HONEST, "Reverse Sigmoid"], shown, strict=True)))
    return _unless(sum(ece) + sum(stolen), at.told(text, headings.HONEST))


def _inverted(at: _Place) -> str:
    plan, setting = at.of.plan, at.of.plan.paper_setting(at.data)
    plain = at.of.stolen(plan.against(at.data, setting, {}))
    mlp = at.of.stolen(plan.against(at.data, setting, {"recover": "mlp"}))
    labels = at.of.stolen(plan.against(at.data, setting, LABELS_ONLY))
    text = f"{mlp:.3f}, naive {plain:.3f}, labels {labels:.3f}"
    return _unless(plain + mlp + labels, at.told(text, headings.TABLE_4))


def _jacobian(at: _Place) -> str:
    plan, scale = at.of.plan, at.of.scale
    jacobian, sample, often = (
        {real: at.of.stolen(runs) for real, runs in by_real.items()}
        for by_real in (plan.attacks("jacobian"), plan.attacks("sample"), plan.as_often())
    )
    found = [
        f"{jacobian[real]:.3f} from {real:,} real images, Sample {sample[real]:.3f} from these and "
        f"{often[real]:.3f} from {real * scale.attack_times:,}"
        for real in scale.attack_samples
        if not math.isnan(jacobian[real] + sample[real] + often[real])
    ]
    told = link(f"{TITLES[at.data]} {', '.join(found)}", heading(at.scale, headings.FACTS))
    return told if found else ""


def _unless(value: float, text: str) -> str:
    return "" if math.isnan(value) else text


def _data(of: Beyond) -> tuple[str, ...]:
    return of.scale.data


_LESSONS: dict[Callable[[_Place], str], tuple[str, Callable[[Beyond], tuple[str, ...]]]] = {
    _naive: ("**The naive thief is held back**, while P names M's class always", _data),
    _end: ("**Who trains to the end gets further**, on the same answers", _data),
    _others: ("**The paper's other defences**, with the cap and chosen alike, stop at most", _data),
    _uncapped: ("**Without the cap**, as the paper has it, P names M's class in", _data),
    _labels: ("**A thief of labels is not stopped**, by any answer that keeps the class", _data),
    _blind: ("**Squared error, and the same layer**, learn little from the answers", _data),
    _inverted: (
        "**An inversion fitted on true pairs**, which no outsider has, undoes much",
        lambda of: of.scale.recovery_on,
    ),
    _few: (
        "**Who matches the logits of all solutions of equation 2** is ahead of the best label "
        "thief where queries are few",
        lambda of: tuple(of.scale.few_on),
    ),
    _worth: (
        "**A probability is worth more labels the longer a thief trains**; of queries, labels need",
        lambda of: of.scale.labels_on,
    ),
    _jacobian: (
        "**Jacobian augmentation**, trained to the end, against Sample",
        lambda of: (of.scale.attacks_on,),
    ),
    _honest: (
        "**Calibrated answers can be believed and give little more than labels** (ECE, and stolen "
        "by the naive thief)",
        lambda of: of.scale.honest_on,
    ),
}

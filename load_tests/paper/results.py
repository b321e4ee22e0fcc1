"""``RESULTS.md``: all that the runs of a folder say, for people."""

from collections.abc import Iterator
from pathlib import Path

from exporters.files.atomic_file import write_text
from load_tests.paper import headings, learnt, statements
from load_tests.paper.beyond import Beyond
from load_tests.paper.facts import Fact, facts
from load_tests.paper.figures import Figures
from load_tests.paper.plan import PARTS, PaperPlan
from load_tests.paper.tables import NETWORKS, TITLES, Tables
from load_tests.reporting.page import markdown

_VERDICTS = {True: "reproduced", False: "**not reproduced**"}
#: The scales, the most telling first.
ORDER = ("full", "cpu", "text", "smoke")


def write(out: Path, kept: dict[str, tuple[PaperPlan, list[str]]]) -> Path:
    """Write the report and its figures into a folder and return its path.

    Args:
        out: the folder.
        kept: for each scale that has been run, at least in part, its plan, and the versions that
            the runs were made with.
    """
    # Runs that a scale asked for once, and does not now, are no reason to show it.
    kept = {name: one for name, one in kept.items()
            if any(map(one[0].known, one[0].needed("all")))}  # fmt: skip
    measured = {name: Beyond(plan) for name, (plan, _) in kept.items()}
    told = {name: [one for one in facts(each) if one.holds is not None]
            for name, each in measured.items()}  # fmt: skip
    lines = [_HEAD, *_first_page(measured, told)]
    for name, (plan, versions) in kept.items():
        lines += _scale(name, plan, versions, told[name], out)
    missing = [name for name in ORDER if name not in kept and name != "smoke"]
    if missing:
        lines.append(f"\nNot run at all: scale {' and '.join(missing)}.\n")
    path = out / "RESULTS.md"
    write_text(path, "".join(lines))
    return path


def _first_page(measured: dict[str, Beyond], told: dict[str, list[Fact]]) -> Iterator[str]:
    lines = list(learnt.lines(measured))
    yield "\n## What was learnt\n\n" if lines else ""
    yield from (f"{number}. {line}\n" for number, line in enumerate(lines, 1))
    rows = statements.rows(measured)
    if rows:
        yield f"\n## {statements.HEADING}\n\n"
        yield markdown(("statement", "page", "here", "measured"), rows)
    unlike = [
        (name, one.paper, one.measured, one.why)
        for name, each in told.items()
        for one in each
        if not one.holds
    ]
    if unlike:
        yield f"\n## {headings.UNLIKE}\n\n"
        yield markdown(("scale", "the paper's statement", "measured", "why"), unlike)


def _scale(
    name: str, plan: PaperPlan, versions: list[str], told: list[Fact], out: Path
) -> Iterator[str]:
    scale = plan.scale
    yield f"\n## Scale {name}\n\n"
    yield f"`reverse-sigmoid paper all --scale {name} --data-dir DIR --out OUT`. How it differs "
    yield f"from the paper: {scale.about}. Made with {'; '.join(versions)}. {_made(plan)}\n"
    for title, table in _tables(name, plan, told):
        if table:
            yield f"\n### {title}\n\n{table}"
    figures = list(Figures(plan).all())
    if figures:
        yield f"\n### {headings.heading(name, headings.FIGURES)}\n"
    for figure, caption, text in figures:
        path = Path(name) / "figures" / f"{figure}.svg"
        write_text(out / path, text)
        yield f"\n{caption}:\n\n![{caption}]({path})\n"


def _made(plan: PaperPlan) -> str:
    """Return how many of the runs are made, and of which parts some are not."""
    parts = {what: {run.name: run for run in plan.needed(what)} for what in PARTS}
    every = {name: run for runs in parts.values() for name, run in runs.items()}
    made = {name for name, run in every.items() if plan.known(run) is not None}
    least = "at least " if plan.undecided() else ""
    lacking = [
        f"{what} ({len(runs) - have} of {len(runs)})"
        for what, runs in parts.items()
        if (have := len(made & set(runs))) < len(runs)
    ]
    said = f"{len(made)} of {least}{len(every)} runs made."
    return f"{said} Not made yet: runs of {', '.join(lacking)}." if lacking else said


def _tables(name: str, plan: PaperPlan, told: list[Fact]) -> Iterator[tuple[str, str]]:
    """Yield the heading of each table, and the table, empty where nothing of it is run."""
    scale, tables, beyond = plan.scale, Tables(plan), Beyond(plan)

    def titled(what: str, data: str = "") -> str:
        return headings.heading(name, what, data)

    advice = beyond.advice()
    yield titled(headings.ADVICE), advice and _ADVICE.format(queries=scale.queries) + advice
    said = [(fact.paper, _VERDICTS[fact.holds is True], fact.measured) for fact in told]
    head = ("statement", "here", "measured")
    yield titled(headings.FACTS), markdown(head, said) if said else ""
    for data in scale.data:
        yield titled(headings.TABLE_1, data), tables.table_1(data)
    for data in scale.data:
        yield titled(headings.TABLE_2, data), tables.table_2(data)
    if scale.architectures:
        on = f"On {TITLES[scale.architectures_on]}. S is {NETWORKS[scale.architecture]}, beta and "
        on += "gamma are those chosen for it as M.\n\n"
        table = tables.table_3()
        yield titled(headings.TABLE_3), table and on + table
    for data in scale.recovery_on:
        yield titled(headings.TABLE_4, data), tables.table_4(data)
    for data in scale.data:
        yield titled(headings.CONVERGED, data), beyond.converged(data)
    for data in scale.labels_on:
        table = beyond.worth(data)
        yield titled(headings.WORTH, data), table and _WORTH + table
    for data in scale.honest_on:
        table = beyond.honest(data)
        yield titled(headings.HONEST, data), table and _HONEST + table
    for data in scale.few_on:
        table = beyond.few(data)
        yield titled(headings.FEW, data), table and _FEW + table + _STAR
    for data in scale.data:
        table = beyond.suite(data)
        yield titled(headings.SUITE, data), table and table + _STAR
        if scale.with_modes(data):
            yield titled(headings.HARDENED, data), beyond.hardened(data)
            yield titled(headings.MARGINS, data), beyond.margins(data)


def scales_in(out: Path) -> list[str]:
    """Return the scales that a folder has runs of, the most telling first."""
    return [name for name in ORDER if any((out / name / "runs").glob("*.json"))]


_STAR = "\nA star: needs the victim's own answers, which no outsider has.\n"
_ADVICE = """\
Reverse Sigmoid with the cap, at the setting of the paper's criterion. All thieves have {queries:,}
queries; stolen is agreement with M. The best adaptive thief is the best of all outsiders who keep
more than labels; it may know beta and gamma.

"""
_WORTH = """\
Agreement of who learns the probabilities of an unprotected victim, against who learns its labels
alone, after so many steps on the same queries; behind the colon, how many times as many queries
labels need to come as far in as many steps.

"""
_HONEST = """\
Answers that tell the truth, beside the deceptive ones: what they are worth to clients (of ECE, AURC
and Brier less is better), and what the naive thief makes of them.

"""
_FEW = """\
Before the setting that the worked example is served with. Who solves equation 2 knows beta and
gamma.

"""
_HEAD = """\
# The paper's tables and figures, run again

Generated by `reverse-sigmoid paper`; no number here is typed. M is the victim, P the protected
victim, S(.) the substitute that a thief trained on its answers; stolen is its agreement with M.
Settings are chosen on a pilot seed, with a victim of its own, of which nothing is told but the
plots of the grids. All else is the mean over other seeds, ± their standard deviation, in figures a
band; a number without ± is of one run, or the same in all. "No cap" is the paper's defence, which
states the accuracy constraint and does not enforce it; "cap" is ours, which does.

Each number comes from files in `<scale>/runs/`, with everything that decides it; `reverse-sigmoid
paper FILE --data-dir DIR --out OUT` makes one again and compares: with the same versions on a
processor of the same kind, equal to the last digit.

The paper names no beta, gamma, grid, rate, seed or repeat, nor from where a drop of 20 points is
counted (here from S(M) to S(P)), and contradicts itself: its Tables 1 and 2 cannot be of one run,
an agreement of .89 on MNIST excludes an accuracy of .99, KL 3.27 nats lies above the bound of
ln 10. Its digits are set beside ours, not chased.
"""

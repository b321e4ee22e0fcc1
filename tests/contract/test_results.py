"""What the pages say of thieves is what the paper's runs say: RESULTS.md and the pages, read."""

import json
import re

import pytest
from pages import PAGES, ROOT


def studies(folder):
    """Return what a committed frontier.json says of each data set."""
    said = json.loads((ROOT / "load_tests/frontier" / folder / "frontier.json").read_text())
    return {study["data"]: study for study in said["studies"]}


FRONTIER, THREE_PILOTS = studies("results"), studies("results/digits3")["digits"]
RESULTS = PAGES["load_tests/paper/RESULTS.md"]


def plain(text):
    """Return a text without line ends, links and emphasis."""
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(words.replace("**", "").replace("*", "").split())


def statements():
    table = RESULTS.partition("## What the READMEs say of thieves\n\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split(" | ")]
            for row in table.splitlines()[2:]]  # fmt: skip


def table_after(page, head):
    """Return the rows of the table with this head, numbers with their spread or without."""
    rows = page[page.index(head) :].partition("\n\n")[0].splitlines()[2:]
    return [re.sub(r" ± [\d.]+", "", row).replace("**", "") for row in rows]


@pytest.mark.parametrize(("words", "page", "verdict", "where"), statements())
def test_a_statement_of_the_pages_is_what_the_runs_say(words, page, verdict, where):
    assert verdict == "holds"
    assert words in plain(PAGES[page.strip("`")])
    assert re.fullmatch(r"\[numbers\]\(#[\w-]+\)", where)


def test_every_comparison_of_thieves_on_the_readme_is_a_row_of_the_results():
    ours = {"README.md": [words for words, page, *_ in statements() if page == "`README.md`"]}
    shown = plain(PAGES["README.md"])
    covered = [at for words in ours["README.md"]
               for at in range(shown.index(words), shown.index(words) + len(words))]  # fmt: skip
    told = re.finditer(r"0\.\d+ against 0\.\d+|stolen 0\.\d+|[\d.]+ times the queries", shown)
    for one in told:
        before = shown[: one.start()].rpartition("|")[2].rpartition(". ")[2]
        assert one.start() in covered or "digits" in before, one[0]


def test_thieves_of_few_queries_are_those_of_the_runs():
    head = "| thief | 50 queries | 100 queries |"
    assert table_after(PAGES["load_tests/README.md"], head) == table_after(RESULTS, head)


def gained(study, queries, title):
    """Return a gain over the best thief of labels, as people write it."""
    (answers,) = (one for one in study["answers"] if one["title"] == title)
    return written(answers["gains"][str(queries)])


def written(one):
    return f"{one['value']:+.3f} ± {one['error']:.3f}"


def test_what_the_readme_says_of_calibrated_answers_is_what_the_frontier_found():
    shown, bar, raw = plain(PAGES["README.md"]), "calibrated, 10 levels", "raw probabilities"
    banking = (
        gained(FRONTIER["banking77"], 385, bar),
        gained(FRONTIER["banking77"], 385, raw).split()[0],
    )
    assert f"gain {banking[0]} on Banking77 with 385 queries ({raw} {banking[1]})" in shown
    digits = [gained(THREE_PILOTS, 50, title) for title in (bar, raw)]
    (told,) = re.findall(r"and (\S+ ± \S+) on digits with 50 \(raw (\S+)\)", shown)
    assert told == (digits[0].lstrip("+"), digits[1].split()[0])
    (as_it_is,) = (
        one["stolen"]["385"]["value"]
        for one in FRONTIER["banking77"]["answers"]
        if one["title"] == "Reverse Sigmoid, learnt as it is"
    )
    steps = FRONTIER["banking77"]["steps"]
    assert f"as shipped, beta 1.5, {as_it_is:.2f} after {steps:,})" in shown


def test_answers_and_their_thieves_are_those_of_the_frontier():
    rows = table_after(PAGES["load_tests/README.md"], "| answers | ECE | AURC | best thief |")
    named = {one["title"]: one for one in FRONTIER["banking77"]["answers"]}
    assert len(rows) == len(named)
    of_the_page = ([cell.strip() for cell in row.strip("|").split("|")][:3] for row in rows)
    for (title, ece, aurc), found in zip(of_the_page, named.values(), strict=True):
        assert title.split(",")[0] in (found["title"].split(",")[0], "the same")
        worth = found["honest"]
        assert (ece, aurc) == (f"{worth['ece']['value']:.3f}", f"{worth['aurc']['value']:.3f}")
    page = PAGES["load_tests/README.md"].partition("| best thief |")[2]
    told = re.findall(r"\| ([+-][\d.]+ ± [\d.]+) \|\n", page)
    assert told[: len(rows) - 1] == [
        gained(FRONTIER["banking77"], 385, title) for title in named if title != "labels alone"
    ]


def test_what_is_said_of_few_queries_on_digits_is_of_the_frontiers_pages():
    shown = plain(PAGES["load_tests/README.md"])
    for study, pairs in (
        (FRONTIER["digits"], ("calibrated, 10 levels", "Reverse Sigmoid", "raw probabilities")),
        (THREE_PILOTS, ("calibrated, 10 levels", "Reverse Sigmoid")),
    ):
        for title in pairs:
            said = [gained(study, 50, title), written(study["controls"]["gains"][title])]
            assert study["controls"]["queries"] == 50
            assert said[1].replace("0.", ".") in shown
            assert said[0].replace("0.", ".").split()[0] in shown


def test_what_a_setting_stops_on_digits_is_said_alike_on_the_readme_and_in_its_file():
    config = (ROOT / "model_repository/digits_reverse_sigmoid/config.pbtxt").read_text()
    rows = re.findall(r"^# +([\d.]+) +0\.2 +([\d.]+) +([\d.]+) +([\d.]+)\b", config, re.MULTILINE)
    by_setting = {(beta, margin): (stolen, cosine) for beta, margin, stolen, cosine in rows}
    shown = plain(PAGES["README.md"])
    for margin, before in (("0.01", "as shipped"), ("0.05", "a larger `margin`")):
        stolen, cosine = by_setting["1.5", margin]
        assert re.search(rf"\| {before}[^|]*\| digits: cosine {cosine}, stolen {stolen} \|", shown)


def test_the_honest_scores_follow_from_the_table_beside_them():
    page = PAGES["load_tests/README.md"]
    rows = {
        cells[0].replace("**", ""): [float(one) for one in cells[1:]]
        for cells in ([cell.strip() for cell in row.strip("|").split("|")]
                      for row in table_after(page, "| agreement of the substitute, by queries |"))
    }  # fmt: skip
    outsiders = {name: numbers for name, numbers in rows.items()
                 if not name.endswith("*") and not name.startswith("unprotected")}  # fmt: skip
    of_labels = [outsiders.pop(name) for name in list(outsiders) if name.startswith("labels")]
    best, labels = (
        [max(column) for column in zip(*each, strict=True)]
        for each in (outsiders.values(), of_labels)
    )
    scores = [round(one - label, 3) for one, label in zip(best, labels, strict=True)]
    number = r"([+-]?\d\.\d+)"
    said = re.search(rf"here {number}, {number}\s+and\s+{number}", page)
    assert [float(one) for one in said.groups()] == pytest.approx(scores, abs=1e-9)


def test_what_was_learnt_stands_first_each_line_with_its_table():
    first = RESULTS.partition("\n## ")[2]
    assert first.startswith("What was learnt\n\n1. ")
    lines = first.partition("\n\n## ")[0].splitlines()[2:]
    assert 6 <= len(lines) <= 12
    assert all("](#" in line for line in lines)


def test_the_results_say_once_for_each_scale_what_is_not_run():
    assert "not run |" not in RESULTS
    for scale in re.split(r"^## Scale ", RESULTS, flags=re.MULTILINE)[1:]:
        made = re.search(r"(\d+) of (?:at least )?(\d+) runs made\.( Not made yet: )?", scale)
        assert (made[1] == made[2]) == (made[3] is None)

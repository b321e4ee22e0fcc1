"""What the pages say of thieves is what the paper's runs say: RESULTS.md and the pages, read."""

import re

import pytest
from pages import PAGES

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

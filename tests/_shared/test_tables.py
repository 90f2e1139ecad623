"""One way to lay out rows of text."""

from __future__ import annotations

from hirelab._shared.tables import table

ROWS = [("name", "n", "share"), ("a", 1, "0.5"), ("longer", 1000, "")]


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(ROWS, "lr").splitlines() == [
        "name       n  share",
        "a          1    0.5",
        "longer  1000",  # no blanks at the end
    ]
    assert table(ROWS).splitlines()[1] == "a       1     0.5"
    assert table([]) == ""


def test_markdown_has_bars_and_a_rule_that_says_which_columns_are_numbers():
    assert table(ROWS, "lr", markdown=True).splitlines() == [
        "| name   |    n | share |",
        "|--------|-----:|------:|",
        "| a      |    1 |   0.5 |",
        "| longer | 1000 |       |",
    ]

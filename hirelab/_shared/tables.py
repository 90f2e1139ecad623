"""Tables: rows of text, aligned for a terminal or for Markdown (the only place that pads), and rows
of values for a spreadsheet or a data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .files import write_atomic


def table(rows: Iterable[Sequence[object]], align: str = "", markdown: bool = False) -> str:
    """Lay out rows, the first of which is the heading.

    Args:
        rows: of equal length; every cell is shown by ``str``.
        align: a letter a column, "l" or "r"; the last letter goes on for the columns that follow,
            and nothing means "l" for all.
        markdown: write bars and the rule below the heading, as Markdown has them.

    Returns:
        The lines, without blanks at their ends. No rows give an empty string.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    letters = (align or "l") + (align or "l")[-1] * len(cells[0])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        [
            cell.rjust(width) if letter == "r" else cell.ljust(width)
            for cell, width, letter in zip(row, widths, letters, strict=False)
        ]
        for row in cells
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = [
        "-" * (width + 1) + ":" if letter == "r" else "-" * (width + 2)
        for width, letter in zip(widths, letters, strict=False)
    ]
    barred = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([barred[0], "|" + "|".join(rule) + "|", *barred[1:]])


class Records:
    """What is a table: gives its rows as plain values, and as CSV.

    With pandas, which hirelab does not need, ``pandas.DataFrame(table.records())``.
    """

    def records(self) -> list[dict[str, Any]]:
        """The rows, each {column: value}, unrounded; all have the same columns."""
        raise NotImplementedError

    def to_csv(self, path: str | Path | None = None) -> str:
        """The rows as CSV with a heading, also written to ``path`` where one is given."""
        rows = self.records()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        if path is not None:
            write_atomic(path, text.getvalue())
        return text.getvalue()

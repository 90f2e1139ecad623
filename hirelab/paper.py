"""The paper's own figures, read from data/paper: the only place where they stand."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from ._shared.errors import HirelabError, unknown
from ._shared.files import data_folder
from ._shared.tables import table as aligned


@dataclass(frozen=True)
class PaperTable:
    """Rows of one table of the paper; prints as aligned text with its version above."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        return f"{self.title}\n{aligned([self.columns, *self.rows])}"


def headline(version: str = "v2") -> PaperTable:
    """Size, cost and ImageNet top-1 of the four networks, from one version of the paper."""
    rows = [row for row in _read("headline") if row["version"] == version]
    if not rows:
        raise HirelabError(f"There is no version {version!r} of the paper; give 'v1' or 'v2'.")
    title = f"Paper, {version}: ImageNet top-1 (%)"
    return _table(title, rows, ("network", "params_M", "gflops", "top1"))


def ablation(table: str) -> PaperTable:
    """One ablation table of v1: Hire-MLP-Small, ImageNet top-1 (%).

    Raises:
        HirelabError: for an unknown table; the message names those that exist.
    """
    rows = _read("ablations")
    known = list(dict.fromkeys(row["table"] for row in rows))
    if table not in known:
        raise HirelabError(
            unknown("ablation table", table, known, f"There are {', '.join(known)}.")
        )
    chosen = [row for row in rows if row["table"] == table]
    title = f"Paper, v1, Hire-MLP-Small: ImageNet top-1 (%) by {table.replace('_', '-')}"
    return _table(title, chosen, ("setting", "top1"))


def dense(method: str, schedule: str = "") -> PaperTable:
    """Detection (COCO) or segmentation (ADE20K) with one method, from v2 as quoted by MS-MLP
    (arXiv 2202.06510, tables 6, 7 and 11).

    Args:
        method: retinanet, mask_rcnn, cascade_mask_rcnn or upernet.
        schedule: "1x" or "3x" of a detector; by default the first that there is.

    Raises:
        HirelabError: an unknown method or schedule; the message names those that exist.
    """
    rows = _read("dense")
    known = list(dict.fromkeys(row["method"] for row in rows))
    if method not in known:
        raise HirelabError(unknown("method", method, known, f"There are {', '.join(known)}."))
    rows = [row for row in rows if row["method"] == method]
    schedules = list(dict.fromkeys(row["schedule"] for row in rows))
    if (schedule or schedules[0]) not in schedules:
        cure = f"{method} has {', '.join(schedules)}."
        raise HirelabError(unknown("schedule", schedule, schedules, cure))
    rows = [row for row in rows if row["schedule"] == (schedule or schedules[0])]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    own = ("network", "params_M", "gflops")
    wide = [
        {**{name: row[name] for name in own}, **{r["metric"]: r["value"] for r in same}}
        for row in rows
        if (same := [r for r in rows if r["network"] == row["network"]])[0] is row
    ]
    words = " ".join(filter(None, (method.replace("_", " "), rows[0]["schedule"])))
    where = "ADE20K" if method == "upernet" else "COCO"
    return _table(f"Paper, v2: {words} on {where} (%)", wide, (*own, *metrics))


def _read(name: str) -> list[dict[str, str]]:
    path = data_folder("paper") / f"{name}.csv"
    if not path.is_file():
        raise HirelabError(
            f"{path} does not exist: clone the repository again, or reinstall hirelab"
        )
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _table(title: str, rows: list[dict[str, str]], columns: tuple[str, ...]) -> PaperTable:
    return PaperTable(title, columns, tuple(tuple(row[c] for c in columns) for row in rows))

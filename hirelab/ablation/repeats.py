"""The same trainings once more, on another machine: how far does the printed command repeat a run?

A ledger may have a folder ``again`` of its own, a ledger too, with runs of the same keys: the same
network, recipe, data and seed. `repeats` compares the two, run by run and image by image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..results import Result
from .ledger import Entry, Ledger
from .report import read_runs
from .statistics import pool

__all__ = ["AGAIN", "Repeats", "repeats"]

AGAIN = "again"
"""Folder in a ledger with repetitions of its runs."""


@dataclass(frozen=True, eq=False)
class Repeats(Records, Result):
    """Runs of a ledger beside their repetitions.

    Attributes:
        ledger: its name.
        runs: for each repeated run its ``network``, ``seed``, ``first`` and ``again`` (top-1,
            percent), and ``alike``, the percent of images that both answered right or both wrong.
        deviation: standard deviation of one training about its pair's mean, points of top-1.
        between_seeds: the same between seeds of one network, over the whole ledger.
        alike_between_seeds: mean ``alike`` of two seeds of one network, over the ledger.
        hardware: of the first runs and of the repetitions.
    """

    ledger: str
    runs: list[dict[str, Any]]
    deviation: float
    between_seeds: float
    alike_between_seeds: float
    hardware: tuple[str, str]

    def records(self) -> list[dict[str, Any]]:
        """A row for each repeated run, see ``runs``."""
        return [dict(one) for one in self.runs]

    def __str__(self) -> str:
        head = ("network", "seed", "first", "again", "alike, %")
        rows = [
            (one["network"], one["seed"], *(f"{one[k]:.2f}" for k in ("first", "again")),
             f"{one['alike']:.1f}")
            for one in self.runs
        ]  # fmt: skip
        alike = float(np.mean([one["alike"] for one in self.runs]))
        return "\n".join(
            [
                table([head, *rows], "lr"),
                f"first: {self.hardware[0]}; again: {self.hardware[1]}",
                f"spread of one training: {self.deviation:.2f} points between machines, "
                f"{self.between_seeds:.2f} between seeds",
                f"answered alike: {alike:.1f} % of images between machines, "
                f"{self.alike_between_seeds:.1f} % between seeds",
            ]
        )


def repeats(ledger: str | Path = "imagenette-cpu") -> Repeats:
    """How far the runs of a ledger come out the same where they were done again.

    Args:
        ledger: one of `ledgers`, or the folder of one.

    Raises:
        HirelabError: no such ledger, or none of its runs was repeated.
    """
    runs = read_runs(ledger)
    again = {
        entry.key.name: entry
        for entry in Ledger(runs.folder / AGAIN).read()[0]
        if entry.status == "done"
    }
    pairs = [
        (str(cell), entry, again[entry.key.name])
        for cell, entries in runs.entries.items()
        for entry in entries
        if entry.key.name in again
    ]
    if not pairs:
        raise HirelabError(
            f"No run of {runs.folder.name} was repeated; `hirelab ablate --ledger "
            f"{runs.folder / AGAIN}` does, with the options that made it."
        )
    gaps = np.array([one.top1 - other.top1 for _, one, other in pairs])
    between = [
        _alike(one, other) for same in runs.entries.values() for one, other in combinations(same, 2)
    ]
    return Repeats(
        ledger=runs.folder.name,
        runs=[
            {
                "network": network,
                "seed": one.key.seed,
                "first": one.top1,
                "again": other.top1,
                "alike": _alike(one, other),
            }
            for network, one, other in pairs
        ],
        deviation=float(np.sqrt(np.mean(gaps**2) / 2)),
        between_seeds=pool(runs.samples("top1")).deviation,
        alike_between_seeds=float(np.mean(between)) if between else float("nan"),
        hardware=(_where(one for _, one, _ in pairs), _where(again for _, _, again in pairs)),
    )


def _alike(one: Entry, other: Entry) -> float:
    return 100 * float((one.answers == other.answers).mean())


def _where(entries: Iterable[Entry]) -> str:
    return ", ".join(sorted({entry.about.get("hardware", "unknown") for entry in entries}))

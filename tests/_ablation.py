"""Ledgers of networks that nobody trained, with accuracies that are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hirelab.ablation.ledger import Entry, Ledger, pack
from hirelab.ablation.protocols import Protocol, protocol, settle
from hirelab.ablation.tables import Cell

IMAGES = 400  # of the validation split: top-1 comes in quarters of a point


def made_protocol(profile: str = "cpu", **changes) -> Protocol:
    """A profile's protocol as if its data had been looked at."""
    looked = {"fingerprints": {"train": "t", "val": "v"}, "images": {"train": 10, "val": IMAGES}}
    return dataclasses.replace(protocol(profile), classes=10, **looked, **changes)


def made_ledger(
    folder: Path, top1: Mapping[Cell, Sequence[float]], chosen: Protocol | None = None
) -> Path:
    """A ledger in which every cell has these top-1 (%), a seed each, and 3 - top1/50 as its loss.

    Which images are right is drawn, the same for the same cell and seed.
    """
    chosen = chosen or made_protocol()
    settle(folder, chosen)
    for number, (cell, values) in enumerate(top1.items()):
        for seed, value in enumerate(values):
            right = np.arange(IMAGES) < round(value * IMAGES / 100)
            np.random.default_rng([number, seed]).shuffle(right)
            entry = Entry(
                chosen.key(cell, seed),
                "done",
                top1=100 * right.mean(),
                loss=3 - value / 50,
                correct=pack(right),
                images=IMAGES,
                parameters=1000 + number,
                macs=2000 + number,
            )
            Ledger(folder).write(entry)
    return folder

"""Who can have heard of whom: exact reachability, from index maps and without gradients.

This file counts along one axis of a stage: through the height (or width) branches of several blocks
in a row, tokens that keep their place beside each branch (the residual connection). The gate is
left out: it averages over the whole map, so through it everything reaches everything at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import index

import numpy as np

from .rearrange import Rearrangement, check_whole, compose_reach
from .results import Result

MANNERS = {
    "shift and restore": {},
    "shift, no restore": {"restore": False},
    "shuffle": {"cross_region": "shuffle"},
    "none": {"cross_region": "none"},
}


@dataclass(frozen=True, eq=False)
class ReachGrowth(Result):
    """How many tokens of a line a token has heard of after 0, 1, ... blocks.

    Attributes:
        size, region, shift, cycle, padding: the setting; block b shifts by (b mod cycle) * shift.
        manners: the cross-region manners that are compared, a row of ``fewest`` and ``mean`` each.
        fewest, mean: (manners, blocks + 1), over all tokens of the line: the fewest tokens that
            any of them has heard of, and the average; itself counted.
    """

    size: int
    region: int
    shift: int
    cycle: int
    padding: str
    manners: list[str]
    fewest: np.ndarray
    mean: np.ndarray

    def blocks_until_global(self) -> dict[str, int | None]:
        """For each manner, after how many blocks every token has heard of every other; None where
        that does not happen in the blocks that were counted."""
        found: dict[str, int | None] = {}
        for name, row in zip(self.manners, self.fewest, strict=True):
            full = np.flatnonzero(row == self.size)
            found[name] = int(full[0]) if len(full) else None
        return found

    def plot(self):
        """The growth as curves, a `hirelab.viz.canvas.Still`."""
        from .viz import charts

        until = self.blocks_until_global()
        said = "; ".join(f"{k}: {'never' if v is None else v}" for k, v in until.items())
        return charts.reach_growth(self.manners, self.mean, self.size, f"until global: {said}")


def reach_growth(
    size: int, region: int, shift: int, cycle: int, blocks: int = 16, padding: str = "circular"
) -> ReachGrowth:
    """Count reach along a line of ``size`` tokens for every cross-region manner.

    Raises:
        ValueError: for an impossible setting, see `Rearrangement`; for a cycle below 1 and fewer
            than 0 blocks.
    """
    # as Python's own numbers, which can be saved
    size, region, shift = (
        check_whole(name, value)
        for name, value in (("size", size), ("region", region), ("shift", shift))
    )
    if cycle < 1 or blocks < 0:
        raise ValueError(
            f"cycle is {cycle} and blocks {blocks}; a cycle has at least 1 block, and blocks are "
            "counted from 0."
        )
    cycle, blocks = index(cycle), index(blocks)
    fewest, mean = [], []
    for manner in MANNERS.values():
        base = Rearrangement(size, region, 0, padding, **manner)
        line = [replace(base, shift=(b % cycle) * shift) for b in range(blocks)]
        heard = np.array(
            [np.ones(size), *(compose_reach(line[:n]).sum(axis=1) for n in range(1, blocks + 1))]
        )
        fewest.append(heard.min(axis=1))
        mean.append(heard.mean(axis=1))
    return ReachGrowth(
        size, region, shift, cycle, padding, list(MANNERS), np.array(fewest), np.array(mean)
    )

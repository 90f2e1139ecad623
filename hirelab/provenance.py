"""Who can have heard of whom: exact reachability, from index maps and without gradients.

This file counts inside one stage, through several blocks in a row, on one line of tokens or on the
whole map. In a block a token hears along its height branch, along its width branch, and keeps
itself (channel branch and residual connection). The gate is left out: it averages over the whole
map, so through it everything reaches everything at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import index

import numpy as np

from ._names import unknown
from .rearrange import Rearrangement, check_whole
from .results import Result

MANNERS = {
    "shift and restore": {},
    "shift, no restore": {"restore": False},
    "shuffle": {"cross_region": "shuffle"},
    "none": {"cross_region": "none"},
}


@dataclass(frozen=True, eq=False)
class ReachGrowth(Result):
    """How many tokens a token has heard of after 0, 1, ... blocks.

    Attributes:
        axes: 1 for a line of ``size`` tokens, 2 for a map of ``size`` x ``size``.
        size, region, shift, cycle, padding: the setting; block b shifts by (b mod cycle) * shift.
        manners: the cross-region manners that are compared, a row of ``fewest`` and ``mean`` each.
        fewest, mean: (manners, blocks + 1), over all tokens: the fewest tokens that
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
    axes: int = 1

    @property
    def tokens(self) -> int:
        """Tokens on the line or map."""
        return self.size**self.axes

    def blocks_until_global(self) -> dict[str, int | None]:
        """For each manner, after how many blocks every token has heard of every other; None where
        that does not happen in the blocks that were counted."""
        found: dict[str, int | None] = {}
        for name, row in zip(self.manners, self.fewest, strict=True):
            full = np.flatnonzero(row == self.tokens)
            found[name] = int(full[0]) if len(full) else None
        return found

    def plot(self):
        """The growth as curves, a `hirelab.viz.canvas.Still`."""
        from .viz import charts

        blocks = self.mean.shape[1] - 1
        until = {
            k: f"not within {blocks}" if v is None else v
            for k, v in self.blocks_until_global().items()
        }
        said = "; ".join(f"{k}: {v}" for k, v in until.items())
        where = (
            f"A line of {self.size}" if self.axes == 1 else f"A map of {self.size} x {self.size}"
        )
        return charts.reach_growth(
            self.manners, self.mean, self.tokens, f"{where} tokens", f"blocks until global: {said}"
        )


def reach_growth(
    size: int,
    region: int,
    shift: int,
    cycle: int,
    blocks: int = 16,
    padding: str = "circular",
    axes: int = 1,
    manners: Sequence[str] = tuple(MANNERS),
) -> ReachGrowth:
    """Count reach on a line of ``size`` tokens (or a ``size`` x ``size`` map, with ``axes=2``).

    Args:
        size, region, shift, padding: as in `Rearrangement`.
        cycle: block b shifts by ``(b mod cycle) * shift``.
        blocks: how many blocks to count through.
        axes: 1 or 2. On a map every block moves along height or along width, not both.
        manners: which cross-region manners, names in `MANNERS`.

    Raises:
        ValueError: for an impossible setting, naming it.
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
    if axes not in (1, 2):
        raise ValueError(f"axes is {axes!r}; give 1 for a line or 2 for a map.")
    for name in manners:
        if name not in MANNERS:
            raise ValueError(unknown("manner", name, MANNERS, f"There are {', '.join(MANNERS)}."))
    cycle, blocks = index(cycle), index(blocks)
    fewest, mean = [], []
    for name in manners:
        base = Rearrangement(size, region, 0, padding, **MANNERS[name])
        steps = [replace(base, shift=(b % cycle) * shift).reach for b in range(blocks)]
        counts = [heard.reshape(size**axes, -1).sum(axis=1) for heard in _heard(steps, size, axes)]
        fewest.append([c.min() for c in counts])
        mean.append([c.mean() for c in counts])
    return ReachGrowth(
        size, region, shift, cycle, padding, list(manners), np.array(fewest), np.array(mean), axes
    )


def _heard(steps: Iterable[np.ndarray], size: int, axes: int) -> Iterator[np.ndarray]:
    """After 0, 1, ... blocks: who has heard of whom, bool, the hearing token's axes first.

    ``steps`` are one-axis reaches. A block adds to what a token has heard all that the tokens of
    its regions had heard before, along every axis for itself.
    """
    heard = np.eye(size**axes, dtype=bool).reshape(*(size,) * axes, -1)
    yield heard
    for step in steps:
        new = heard.copy()
        weights, told = step.astype(np.float32), heard.astype(np.float32)  # a product is fastest so
        for axis in range(axes):
            moved = np.moveaxis(told, axis, 0)
            said = (weights @ moved.reshape(size, -1)).reshape(moved.shape) > 0
            new |= np.moveaxis(said, 0, axis)
        heard = new
        yield heard

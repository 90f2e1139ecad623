"""How far a token reaches through blocks in a row: exact, from index maps, without a network.

In a block a token reads along its height branch, along its width branch, and keeps itself (channel
branch and residual connection). The gate averages over the whole map, so through it everything
reaches everything at once; it is left out here. `hirelab.analysis.provenance` follows a token
through a whole network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError
from ..models.wiring import Edge, propagate
from ..rearrange import Rearrangement
from ..results import Result

CROSS_REGION_MODES: dict[str, dict[str, Any]] = {
    "shift and restore": {},
    "shift, no restore": {"restore": False},
    "shuffle": {"cross_region": "shuffle"},
    "none": {"cross_region": "none"},
}
"""What may be done across regions, as arguments of `Rearrangement`."""


def reach_through(
    blocks: Iterable[Rearrangement], size: int, axes: int = 1
) -> Iterator[np.ndarray]:
    """After 0, 1, ... blocks in a row: which tokens reach which, for all tokens at once.

    Args:
        blocks: the index map of every block, of ``size`` tokens, the same along every axis.
        axes: 1 for a line of ``size`` tokens, 2 for a map of ``size`` x ``size``.

    Yields:
        (size,) * axes + (tokens,) bool: first the place that is reached, then the number of the
        token that reaches it (as in `Rearrangement.reach`).
    """
    reach = np.eye(size**axes, dtype=bool).reshape(*(size,) * axes, -1)
    yield reach
    for block in blocks:
        reach = _through(reach, block, axes)
        yield reach


def sources_of(position: Sequence[int], blocks: Sequence[Rearrangement], size: int) -> np.ndarray:
    """Which tokens reach one position through blocks in a row: its part of `reach_through`.

    ``position`` is (place,) on a line of ``size`` tokens or (row, column) on a map of ``size`` x
    ``size``; the result is bool and has as many axes, of ``size``.
    """
    mask = np.zeros((size,) * len(position), dtype=bool)
    mask[tuple(position)] = True
    for block in reversed(blocks):
        mask = _through(mask, block, len(position), back=True)
    return mask


def _through(mask: np.ndarray, block: Rearrangement, axes: int, back: bool = False) -> np.ndarray:
    """One block on the first ``axes`` axes: what is marked stays (the residual connection), and
    reaches along every axis for itself."""
    if block.size != len(mask):
        raise HirelabError(
            f"A block rearranges {block.size} tokens, where the line has {len(mask)}; give blocks "
            "of one size."
        )
    along = [Edge("in", "out", rows=block.reach), Edge("in", "out", columns=block.reach)]
    start, end = ("out", "in") if back else ("in", "out")
    maps = {start: mask, end: mask.copy()}
    propagate(along[:axes], maps, back)
    return maps[end]


@dataclass(frozen=True, eq=False)
class ReachGrowth(Result):
    """How many tokens reach a token through 0, 1, ... blocks.

    Attributes:
        axes: 1 for a line of ``size`` tokens, 2 for a map of ``size`` x ``size``.
        size, region, shift, cycle, padding: the setting; block b shifts by (b mod cycle) * shift.
        modes: the cross-region modes that are compared, one row of ``fewest`` and ``mean`` each.
        fewest, mean: (modes, blocks + 1), over all tokens: the fewest tokens that reach any of
            them, and the average; itself counted.
    """

    size: int
    region: int
    shift: int
    cycle: int
    padding: str
    modes: list[str]
    fewest: np.ndarray
    mean: np.ndarray
    axes: int = 1

    @property
    def tokens(self) -> int:
        """Tokens on the line or map."""
        return self.size**self.axes

    def blocks_until_global(self) -> dict[str, int | None]:
        """For each mode, after how many blocks every token reaches every other; None where that
        does not happen in the blocks that were counted."""
        found: dict[str, int | None] = {}
        for name, row in zip(self.modes, self.fewest, strict=True):
            full = np.flatnonzero(row == self.tokens)
            found[name] = int(full[0]) if len(full) else None
        return found

    def plot(self):
        """The growth as curves, a `hirelab.viz.canvas.Figure`."""
        from ..viz import charts

        blocks = self.mean.shape[1] - 1
        until = ", ".join(
            f"{name}: {f'not within {blocks}' if count is None else count}"
            for name, count in self.blocks_until_global().items()
        )
        where = "A line of" if self.axes == 1 else f"A map of {self.size} x"
        return charts.reach_growth(
            self.modes,
            self.mean,
            self.tokens,
            f"{where} {self.size} tokens",
            f"blocks until global: {until}",
        )


def reach_growth(
    size: int,
    region: int,
    shift: int,
    cycle: int,
    blocks: int = 16,
    padding: str = "circular",
    axes: int = 1,
    modes: Sequence[str] = tuple(CROSS_REGION_MODES),
) -> ReachGrowth:
    """Count reach on a line of ``size`` tokens (or a ``size`` x ``size`` map, with ``axes=2``).

    Args:
        size, region, shift, padding: as in `Rearrangement`.
        cycle: block b shifts by ``(b mod cycle) * shift``.
        blocks: how many blocks to count through.
        axes: 1 or 2. On a map every block moves along height or along width, not both.
        modes: which cross-region modes, names in `CROSS_REGION_MODES`.

    Raises:
        HirelabError: for an impossible setting, naming it.
    """
    size, region, shift = (
        check_whole(name, value)  # Python's own numbers, which can be saved
        for name, value in (("size", size), ("region", region), ("shift", shift))
    )
    cycle = check_whole("cycle", cycle, 1, unit="blocks")
    blocks = check_whole("blocks", blocks, 0)
    if axes not in (1, 2):
        raise HirelabError(f"axes is {axes!r}; give 1 for a line or 2 for a map.")
    fewest, mean = [], []
    for name in modes:
        check_choice("cross-region mode", name, CROSS_REGION_MODES)
        base = Rearrangement(size, region, 0, padding, **CROSS_REGION_MODES[name])
        steps = (replace(base, shift=(b % cycle) * shift) for b in range(blocks))
        reached = reach_through(steps, size, axes)
        counts = [reach.reshape(size**axes, -1).sum(axis=1) for reach in reached]
        fewest.append([c.min() for c in counts])
        mean.append([c.mean() for c in counts])
    return ReachGrowth(
        size, region, shift, cycle, padding, list(modes), np.array(fewest), np.array(mean), axes
    )

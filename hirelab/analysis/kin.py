"""How many tokens reach a token in Hire-MLP and in its relatives, exactly, from index maps.

What may reach is counted, for any weights; what trained weights make of it is another question,
which `hirelab.analysis.receptive_field` asks. `hirelab.models.kin` has the networks, and says what
is left out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._shared.checks import check_img_size, check_position
from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..models.kin import KIN, Member, member_of, stage_maps, wire_kin
from ..models.wiring import propagate
from ..results import Result

if TYPE_CHECKING:
    from ..viz.figures import Figure

MOST = 128  # blocks in a row that are followed until every token reaches every other
_ONES = np.array([n.bit_count() for n in range(256)], np.uint16)


@dataclass(frozen=True, eq=False, repr=False)
class KinReach(Records, Result):
    """How many tokens reach a token in each stage of several networks; prints as a table.

    The first arrays have a row for each stage that has blocks of each network, in order.

    Attributes:
        img_size: (height, width) of the image in pixels.
        members: names of the networks, a row each.
        stage, tokens, depth: the stage, tokens on its map, and its published blocks.
        until_global: after how many blocks of such a stage every token reaches every other, if it
            had as many; -1 where `MOST` blocks are not enough.
        pixels: share of the image that reaches the middle token at the end of the stage, through
            all that stands before it, 0 to 1.
        macs: multiply-adds of the module that mixes tokens, in one block, for one token.
        blocks: (rows, most blocks + 1) how many tokens reach a token of the map after 0, 1, ...
            blocks: the median over all; NaN beyond the published depth.
        centre: as ``blocks``, of the middle token.
    """

    img_size: tuple[int, int]
    members: list[str]
    stage: np.ndarray
    tokens: np.ndarray
    depth: np.ndarray
    until_global: np.ndarray
    pixels: np.ndarray
    macs: np.ndarray
    blocks: np.ndarray
    centre: np.ndarray

    def share(self, member: str, stage: int, blocks: int | None = None) -> float:
        """Share of a stage's map that reaches a token (the median), 0 to 1, after so many blocks;
        by default after the published ones."""
        row = self._row(member, stage)
        depth = int(self.depth[row])
        blocks = depth if blocks is None else blocks
        if not 0 <= blocks <= depth:
            raise HirelabError(
                f"blocks is {blocks}; {member} has {depth} in stage {stage}: give 0 to {depth}."
            )
        return float(self.blocks[row, blocks] / self.tokens[row])

    def blocks_until_global(self, member: str, stage: int) -> int | None:
        """After how many blocks every token reaches every other; None for "not within `MOST`"."""
        until = int(self.until_global[self._row(member, stage)])
        return None if until < 0 else until

    def pixel_share(self, member: str, stage: int) -> float:
        """Share of the image that reaches the middle token at the end of a stage, 0 to 1."""
        return float(self.pixels[self._row(member, stage)])

    def _until(self, row: int) -> str:
        until = int(self.until_global[row])
        return f"> {MOST}" if until < 0 else str(until)

    def _row(self, member: str, stage: int) -> int:
        for row, (name, at) in enumerate(zip(self.members, self.stage, strict=True)):
            if (name, at) == (member, stage):
                return row
        raise HirelabError(f"Stage {stage} of {member!r} was not counted here, or has no blocks.")

    def records(self) -> list[dict[str, Any]]:
        """A row for each stage of each network after each number of blocks."""
        return [
            {
                "member": self.members[row],
                "stage": int(self.stage[row]),
                "blocks": blocks,
                "tokens": int(self.tokens[row]),
                "median": float(self.blocks[row, blocks]),
                "centre": float(self.centre[row, blocks]),
                "until_global": int(self.until_global[row]),
                "pixels": float(self.pixels[row]),
                "macs": int(self.macs[row]),
            }
            for row in range(len(self.members))
            for blocks in range(int(self.depth[row]) + 1)
        ]

    def __repr__(self) -> str:
        heads = ("map, %", "middle, %", "global", "image, %", "K")
        rows: list[tuple[object, ...]] = [("network", "stage", "tokens", "blocks", *heads)]
        for row, name in enumerate(self.members):
            depth, tokens = int(self.depth[row]), int(self.tokens[row])
            rows.append(
                (
                    name,
                    int(self.stage[row]),
                    tokens,
                    depth,
                    f"{100 * self.blocks[row, depth] / tokens:.0f}",
                    f"{100 * self.centre[row, depth] / tokens:.0f}",
                    self._until(row),
                    f"{100 * self.pixels[row]:.0f}",
                    f"{self.macs[row] / 1000:.0f}",
                )
            )
        title = (
            "map: what a token hears of its map through the stage's blocks (median); middle: the "
            "middle token;\nglobal: blocks until all hear all; image: what the middle token hears "
            "of the image;\nK: thousand multiply-adds of mixing, a token and block"
        )
        return f"{title}\n{table(rows, 'lr')}"

    def plot(self) -> Figure:
        """A panel for each stage, a bar for each network."""
        from ..viz.kin import Bar, reach_bars

        panels: dict[str, list[Bar]] = {}
        for row in np.argsort(self.stage, kind="stable"):
            depth, tokens = int(self.depth[row]), int(self.tokens[row])
            title = f"stages.{self.stage[row]}: {tokens} tokens"
            shares = self.blocks[row, : depth + 1] / tokens
            bar = Bar(self.members[row], shares, float(self.pixels[row]), self._until(row))
            panels.setdefault(title, []).append(bar)
        return reach_bars(panels, "Hire", repr(self))


def sources_through(
    member: Member, grid: Sequence[int], stage: int, position: Sequence[int], blocks: int
) -> list[np.ndarray]:
    """Which tokens of a stage's map reach one position through 0, 1, ... ``blocks`` blocks.

    Returns:
        (rows, columns) bool, one for each number of blocks: those of a stage's beginning.
    """
    row, column = check_position(position, grid, f"stage {stage}")
    # backwards, all numbers of blocks in one: those that hold a block pass through it together
    mask = np.zeros((*grid, blocks + 1), bool)
    mask[row, column] = True
    for block in reversed(range(blocks)):
        out = mask[:, :, block + 1 :]
        maps = {"out": out, "in": np.zeros_like(out)}
        propagate(member.edges(grid, stage, block), maps, back=True)
        mask[:, :, block + 1 :] = maps["in"]
    return list(np.moveaxis(mask, 2, 0))


def blocks_in_a_row(member: Member, grid: Sequence[int], stage: int) -> Iterator[np.ndarray]:
    """How many tokens reach each token of a stage's map, (rows, columns), after 0, 1, ... blocks,
    without end."""
    rows, columns = grid
    tokens = np.eye(rows * columns, dtype=bool).reshape(rows, columns, -1)
    mask, block = np.packbits(tokens, axis=-1), 0
    while True:
        yield _ONES[mask].sum(axis=-1)
        maps = {"in": mask, "out": np.zeros_like(mask)}
        propagate(member.edges(grid, stage, block), maps)
        mask, block = maps["out"], block + 1


def kin_reach(members: Sequence[str] = tuple(KIN), img_size: int | Sequence[int] = 224) -> KinReach:
    """Count how many tokens reach a token in each stage of Hire-MLP-Small and its relatives.

    Everything is exact and holds for any weights. A block reads along its axes and keeps the token
    itself; gates and norms over the whole map are left out (`hirelab.models.kin`).

    Args:
        members: names in `hirelab.models.kin.KIN`, by default all.
        img_size: (height, width) in pixels, or one number for a square. The published 224 suits
            all of them; Swin needs a multiple of 224.

    Raises:
        HirelabError: for an unknown name, no name, or an image that a network cannot take.
    """
    if isinstance(members, str) or not len(members):
        raise HirelabError(f"members is {members!r}; give a list of names: {', '.join(KIN)}.")
    size = check_img_size(img_size, low=32)
    rows: dict[str, list[Any]] = {name: [] for name in ("name", "stage", "tokens", "until", "macs")}
    medians, centres, pixels = [], [], []
    for member in map(member_of, members):
        heard_by_stage = _pixels(member, size)
        for stage, grid in stage_maps(member, size).items():
            tokens, depth = grid[0] * grid[1], member.depths[stage]
            median, centre, until = [], [], -1
            for block, counts in enumerate(blocks_in_a_row(member, grid, stage)):
                if block <= depth:
                    median.append(float(np.median(counts)))
                    centre.append(float(counts[grid[0] // 2, grid[1] // 2]))
                whole = int(counts.min()) == tokens
                until = block if whole and until < 0 else until
                if block >= depth and (whole or block == MOST):
                    break
            for key, value in zip(
                rows, (member.name, stage, tokens, until, member.mixing_macs(stage)), strict=True
            ):
                rows[key].append(value)
            medians.append(median)
            centres.append(centre)
            pixels.append(heard_by_stage[stage])
    return KinReach(
        size,
        rows["name"],
        np.array(rows["stage"]),
        np.array(rows["tokens"]),
        np.array([len(median) - 1 for median in medians]),
        np.array(rows["until"]),
        np.array(pixels),
        np.array(rows["macs"]),
        _padded(medians),
        _padded(centres),
    )


def _pixels(member: Member, img_size: tuple[int, int]) -> dict[int, float]:
    """Share of the image that reaches the middle token at the end of each stage."""
    wiring = wire_kin(member, img_size)
    found = {}
    for stage in member.stages:
        maps = {name: np.zeros(grid, bool) for name, grid in wiring.grids.items()}
        out = maps[f"stages.{stage}.out"]
        out[out.shape[0] // 2, out.shape[1] // 2] = True
        propagate(wiring.edges, maps, back=True)
        found[stage] = float(maps["input"].mean())
    return found


def _padded(lines: Sequence[Sequence[float]]) -> np.ndarray:
    """Lines of unequal length as one array, with NaN behind the shorter ones."""
    array = np.full((len(lines), max(map(len, lines))), np.nan)
    for row, line in zip(array, lines, strict=True):
        row[: len(line)] = line
    return array

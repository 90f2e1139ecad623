"""ReachExplorer: which tokens of the map reach a token, block by block, in four modes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import nn

from ..analysis.reach import CROSS_REGION_MODES, sources_of
from ..rearrange import PADDINGS, Rearrangement
from ..viz import reach, theme
from ..viz.canvas import Canvas
from .controls import Depends, choice, slider
from .network import StageExplorer
from .phrases import several

LONGEST = 64  # blocks in a row that are followed until the whole map reaches a token


class Measured(NamedTuple):
    """For each mode, what `ReachExplorer.reached` and `ReachExplorer.blocks_until_all` give."""

    reached: dict[str, list[np.ndarray]]
    until: dict[str, int | None]


class ReachExplorer(StageExplorer):
    """Which tokens of a stage's map reach a token after 1, 2, ... blocks: with shift and restore,
    without restore, with ShuffleNet's shuffle, and without the cross-region step; and after how
    many blocks all of them do.

    Every block passes on along height and along width; block b shifts by ``(b mod cycle) * shift``
    with the stage's cycle, as the network does. The gate is left out: it averages over the map, so
    through it every token reaches every other within one block.

    Args:
        model: the network whose stages are shown; by default Hire-MLP-Tiny's sizes.
        img_size: the side of the image in pixels, which the map's follows; by default the one the
            network was made for, 224 where nothing tells.
        settings: see ``ReachExplorer.Settings``.
    """

    title = "Which tokens reach a token, block by block"

    @dataclass(frozen=True)
    class Settings:
        stage: int = choice(2, range(4), "stage")
        row: int = slider(4, 0, 55, "row")
        column: int = slider(5, 0, 55, "column")
        blocks: int = slider(6, 1, 24, "blocks", play=True)
        region: int = slider(3, 1, 8, "region")
        shift: int = slider(1, -8, 8, "shift")
        padding: str = choice("circular", PADDINGS, "padding")

    def __init__(
        self, model: nn.Module | None = None, img_size: int | None = None, **settings: Any
    ):
        # does not move with the number of blocks, which is what plays
        self._until = lru_cache(maxsize=64)(self._count)
        super().__init__(model, None, img_size, **settings)

    def limits(self) -> dict[str, Any]:
        last = Depends(("stage",), self.last_token)
        return {**super().limits(), "row": last, "column": last}

    def in_a_row(self, mode: str, blocks: int, s: Settings | None = None) -> list[Rearrangement]:
        """The index maps of the stage's first ``blocks`` blocks, as if it had that many."""
        s = s or self.settings
        stage = self.stage(s)
        way: Any = CROSS_REGION_MODES[mode]
        r = Rearrangement(stage.grid, s.region, 0, s.padding, **way)
        cycle = [replace(r, shift=b * s.shift) for b in range(stage.cycle)]
        return [cycle[b % len(cycle)] for b in range(blocks)]

    def reached(self, mode: str, s: Settings | None = None) -> list[np.ndarray]:
        """(size, size) bool for 0, 1, ... ``blocks`` blocks: which tokens reach the token."""
        s = s or self.settings
        size = self.stage(s).grid
        blocks = self.in_a_row(mode, s.blocks, s)
        return [sources_of((s.row, s.column), blocks[:n], size) for n in range(s.blocks + 1)]

    def blocks_until_all(self, s: Settings | None = None) -> dict[str, int | None]:
        """For each mode, after how many blocks the whole map reaches the token; None where
        `LONGEST` blocks are not enough."""
        s = s or self.settings
        return dict(self._until(replace(s, blocks=1)))

    def _count(self, s: Settings) -> dict[str, int | None]:
        size = self.stage(s).grid
        found: dict[str, int | None] = {}
        for mode in CROSS_REGION_MODES:
            blocks = self.in_a_row(mode, LONGEST, s)

            def all_reach(n: int, row: list[Rearrangement] = blocks) -> bool:
                return bool(sources_of((s.row, s.column), row[:n], size).all())

            # nothing is lost, so what is true after n blocks is true after more: halve the span
            low, high = -1, LONGEST + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if all_reach(middle) else (middle, high)
            found[mode] = None if high > LONGEST else high
        return found

    def measure(self, s: Settings) -> Measured:
        reached = {mode: self.reached(mode, s) for mode in CROSS_REGION_MODES}
        return Measured(reached, self.blocks_until_all(s))

    def facts(self, s: Settings, measured: Measured) -> dict[str, Any]:
        facts: dict[str, Any] = {"at": self.stage(s).name, "tokens": self.stage(s).grid ** 2}
        for mode, steps in measured.reached.items():
            name = mode.replace(",", "").replace(" ", "_")
            facts[name] = [int(step.sum()) for step in steps[1:]]
            facts[f"{name}_all_after"] = measured.until[mode]
        return facts

    def words(self, s: Settings, measured: Measured) -> str:
        tokens = self.stage(s).grid ** 2
        shifted, alone = (
            int(measured.reached[mode][-1].sum()) for mode in ("shift and restore", "none")
        )
        return (
            f"With shift and restore {shifted / tokens:.0%} of the map reaches the token after "
            f"{several(s.blocks, 'block')}; with no cross-region step it is {alone / tokens:.0%}, "
            "after one block and after any number."
        )

    def draw(self, s: Settings, measured: Measured) -> Image.Image:
        stage, colors = self.stage(s), reach.block_colors(s.blocks)
        size = stage.grid
        side, step, top = 246, 270, 104
        canvas = Canvas(theme.WIDTH, top + side + 148)
        plural = "block" if s.blocks == 1 else "blocks"
        title = f"Which tokens reach token ({s.row}, {s.column}) within {s.blocks} {plural}"
        canvas.text((12, 6), title, theme.TITLE, bold=True)
        shifts = ", ".join(str(b % stage.cycle * s.shift) for b in range(stage.cycle + 1))
        note = f"{stage.name}: {size} x {size} tokens, regions of {s.region}; from block to "
        note += f"block shift {shifts}, ...; {s.padding} padding; without the gate"
        canvas.text((12, 38), note, theme.SMALL, theme.MUTED)
        for i, (mode, steps) in enumerate(measured.reached.items()):
            left = 12 + i * step
            # the block after which a token reaches it, from 1 on
            since = np.sum([~reached for reached in steps], axis=0)
            cells = np.full((size, size, 3), theme.rgb(theme.UNREACHED), np.uint8)
            known = steps[-1] & (since > 0)
            cells[known] = colors[since[known] - 1]
            name = mode if mode != "none" else "no cross-region step"
            canvas.text((left, top - 28), name, theme.TEXT, bold=True)
            reach.draw_cells(canvas, cells, (left, top, left + side, top + side), (s.row, s.column))
            counts = [int(reached.sum()) for reached in steps]
            canvas.text((left, top + side + 6), f"{counts[-1]} of {size**2} tokens", theme.SMALL)
            box = (left, top + side + 32, left + side, top + side + 44)
            _draw_share(canvas, counts, size**2, colors, box)
            when = measured.until[mode]
            words = f"not all within {LONGEST} blocks"
            if when is not None:
                words = f"all of them after {when} block" + "s" * (when != 1)
            canvas.text((left, top + side + 50), words, theme.SMALL, theme.MUTED)
        reach.draw_legend(canvas, colors, top + side + 104)
        return canvas.image


def _draw_share(
    canvas: Canvas, counts: list[int], tokens: int, colors: np.ndarray, box: tuple
) -> None:
    """A bar as long as the map, one piece for what each block added."""
    left, top, right, bottom = box
    canvas.rect(box, fill=theme.UNREACHED)
    x = [left + (right - left) * count / tokens for count in counts]
    canvas.rect((left, top, x[0], bottom), fill=theme.FOCUS)
    for start, end, color in zip(x, x[1:], colors, strict=False):
        canvas.rect((start, top, end, bottom), fill="#{:02x}{:02x}{:02x}".format(*color))

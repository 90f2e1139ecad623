"""ReachExplorer: which tokens of the map a token has heard of, block by block, in four manners."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from ..analysis.reach import CROSS_REGION_MODES, sources_of
from ..rearrange import PADDINGS, Rearrangement
from ..viz import reach, theme
from ..viz.canvas import Canvas
from .explorer import Explorer, choice, slider
from .inputs import missing_stage, stage_table

LONGEST = 64  # blocks in a row that are followed until a token has heard of the whole map


class ReachExplorer(Explorer):
    """Which tokens of a stage's map a token has heard of after 1, 2, ... blocks: with shift and
    restore, without restore, ShuffleNet manner, and without the cross-region step; and after how
    many blocks it has heard of all.

    Every block passes on along height and along width; block b shifts by ``(b mod cycle) * shift``
    with the stage's cycle, as the network does. The gate is left out: it averages over the map, so
    through it everything is heard within one block.

    Args:
        model: the network whose stages are shown; by default Hire-MLP-Tiny's sizes.
        settings: see ``ReachExplorer.Settings``.
    """

    title = "How far a token hears"

    @dataclass(frozen=True)
    class Settings:
        stage: int = choice(3, (1, 2, 3, 4), "stage")
        row: int = slider(4, 0, 55, "row of the token")
        column: int = slider(5, 0, 55, "column of the token")
        blocks: int = slider(6, 1, 24, "blocks", play=True)
        region: int = slider(3, 1, 8, "region")
        shift: int = slider(1, -8, 8, "shift")
        padding: str = choice("circular", PADDINGS, "padding")

    def __init__(self, model: nn.Module | None = None, **settings: Any):
        self._stages = stage_table(model)
        # neither moves with the number of blocks, which is what plays
        self._until = lru_cache(maxsize=64)(self._count)
        super().__init__(**settings)

    def problem(self, s: Settings) -> str | None:
        missing = missing_stage(self._stages, s.stage)
        if missing:
            return missing
        size = self._stages[s.stage - 1]["grid"]
        if s.row < size and s.column < size:
            return None
        return (
            f"Token ({s.row}, {s.column}) is not there: stage {s.stage} has {size} x {size} tokens "
            f"at 224 x 224 pixels; choose row and column from 0 to {size - 1}, or an earlier stage."
        )

    def in_a_row(self, manner: str, blocks: int, s: Settings | None = None) -> list[Rearrangement]:
        """The index maps of the stage's first ``blocks`` blocks, as if it had that many."""
        s = s or self.settings
        stage = self._stages[s.stage - 1]
        r = Rearrangement(stage["grid"], s.region, 0, s.padding, **CROSS_REGION_MODES[manner])
        cycle = [replace(r, shift=b * s.shift) for b in range(stage["cycle"])]
        return [cycle[b % len(cycle)] for b in range(blocks)]

    def heard(self, manner: str, s: Settings | None = None) -> list[np.ndarray]:
        """(size, size) bool for 0, 1, ... ``blocks`` blocks: which tokens have been heard of."""
        s = s or self.settings
        size = self._stages[s.stage - 1]["grid"]
        blocks = self.in_a_row(manner, s.blocks, s)
        return [sources_of((s.row, s.column), blocks[:n], size) for n in range(s.blocks + 1)]

    def blocks_until_all(self, s: Settings | None = None) -> dict[str, int | None]:
        """For each manner, after how many blocks the token has heard of the whole map; None where
        `LONGEST` blocks are not enough."""
        s = s or self.settings
        return dict(self._until(replace(s, blocks=1)))

    def _count(self, s: Settings) -> dict[str, int | None]:
        size = self._stages[s.stage - 1]["grid"]
        found: dict[str, int | None] = {}
        for manner in CROSS_REGION_MODES:
            blocks = self.in_a_row(manner, LONGEST, s)

            def all_heard(n: int, row: list[Rearrangement] = blocks) -> bool:
                return bool(sources_of((s.row, s.column), row[:n], size).all())

            # nobody forgets, so what is true after n blocks is true after more: halve the span
            low, high = -1, LONGEST + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if all_heard(middle) else (middle, high)
            found[manner] = None if high > LONGEST else high
        return found

    def facts(self, s: Settings) -> dict[str, Any]:
        until = self.blocks_until_all(s)
        facts: dict[str, Any] = {"tokens": self._stages[s.stage - 1]["grid"] ** 2}
        for manner in CROSS_REGION_MODES:
            counts = [int(step.sum()) for step in self.heard(manner, s)[1:]]
            name = manner.replace(",", "").replace(" ", "_")
            facts |= {f"{name}": counts, f"{name}_all_after": until[manner]}
        return facts

    def draw(self, s: Settings) -> Image.Image:
        size, colors = self._stages[s.stage - 1]["grid"], reach.block_colors(s.blocks)
        side, step, top = 246, 270, 104
        canvas = Canvas(theme.WIDTH, top + side + 148)
        plural = "block" if s.blocks == 1 else "blocks"
        title = f"What token ({s.row}, {s.column}) has heard of after {s.blocks} {plural}"
        canvas.text((12, 6), title, theme.TITLE, bold=True)
        cycle = self._stages[s.stage - 1]["cycle"]
        shifts = ", ".join(str(b % cycle * s.shift) for b in range(cycle + 1))
        note = f"stage {s.stage}: {size} x {size} tokens, regions of {s.region}; from block to "
        note += f"block shift {shifts}, ...; {s.padding} padding; without the gate"
        canvas.text((12, 38), note, theme.SMALL, theme.MUTED)
        until = self.blocks_until_all(s)
        for i, manner in enumerate(CROSS_REGION_MODES):
            left = 12 + i * step
            steps = self.heard(manner, s)
            since = sum((~told).astype(int) for told in steps)  # the block that told, from 1 on
            cells = np.full((size, size, 3), theme.rgb(theme.UNHEARD), np.uint8)
            known = steps[-1] & (since > 0)
            cells[known] = colors[since[known] - 1]
            name = manner if manner != "none" else "no cross-region step"
            canvas.text((left, top - 28), name, theme.TEXT, bold=True)
            reach.draw_map(canvas, cells, (left, top, left + side, top + side), (s.row, s.column))
            counts = [int(told.sum()) for told in steps]
            canvas.text((left, top + side + 6), f"{counts[-1]} of {size**2} tokens", theme.SMALL)
            box = (left, top + side + 32, left + side, top + side + 44)
            _draw_share(canvas, counts, size**2, colors, box)
            when = until[manner]
            words = f"not all within {LONGEST} blocks"
            if when is not None:
                words = f"all of them after {when} block" + "s" * (when != 1)
            canvas.text((left, top + side + 50), words, theme.SMALL, theme.MUTED)
        _draw_legend(canvas, colors, top + side + 104)
        return canvas.image


def _draw_share(
    canvas: Canvas, counts: list[int], tokens: int, colors: np.ndarray, box: tuple
) -> None:
    """A bar as long as the map, a piece for what each block added."""
    left, top, right, bottom = box
    canvas.rect(box, fill=theme.UNHEARD)
    x = [left + (right - left) * count / tokens for count in counts]
    canvas.rect((left, top, x[0], bottom), fill=theme.FOCUS)
    for start, end, color in zip(x, x[1:], colors, strict=False):
        canvas.rect((start, top, end, bottom), fill="#{:02x}{:02x}{:02x}".format(*color))


def _draw_legend(canvas: Canvas, colors: np.ndarray, y: float) -> None:
    """The colour of every block, numbered; the token; what is not heard."""
    x = canvas.swatch((12, y), theme.FOCUS, "the token")
    x = canvas.swatch((x, y), theme.UNHEARD, "not heard of")
    canvas.text((x, y), "first heard of after block", theme.SMALL, theme.MUTED)
    x += canvas.text_width("first heard of after block", theme.SMALL) + 12
    width = min(26.0, (canvas.width - 12 - x) / len(colors))
    for block, color in enumerate(colors, start=1):
        box = (x, y - 2, x + width, y + 12)
        canvas.rect(box, fill="#{:02x}{:02x}{:02x}".format(*color))
        canvas.text((x + width / 2, y + 15), str(block), 15, theme.MUTED, "ma")
        x += width

"""KinExplorer: which tokens reach a token, block by block, in two networks of the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..analysis.kin import sources_through
from ..models.kin import KIN, Member, stage_maps
from ..viz import theme
from ..viz.canvas import Canvas
from ..viz.kin import draw_reached, draw_scale
from ..viz.reach import block_colors
from .controls import Depends, choice, slider
from .inputs import SIDE
from .network import SizedExplorer
from .phrases import several

LONGEST = 36  # blocks that can be looked at: S2-MLP has that many


class Measured(NamedTuple):
    """The map of the stage, (rows, columns), and for either network which tokens reach the token
    after 0, 1, ... blocks."""

    grid: tuple[int, int]
    reached: tuple[list[np.ndarray], list[np.ndarray]]


class KinExplorer(SizedExplorer):
    """Two networks of the family on one image: which tokens of a stage's map reach a token, in
    order of the block after which they first do.

    Each network is shown as published, for images of 224 pixels; where more blocks are looked at
    than its stage has, the figure says so. Gates and norms over the whole map are left out
    (`hirelab.models.kin`).

    Args:
        image: a file, a sample's name, a PIL image, an array or a tensor (3, H, W).
        settings: see ``KinExplorer.Settings``.
    """

    title = "Which tokens reach a token, in two networks"
    pictured = True

    @dataclass(frozen=True)
    class Settings:
        left: str = choice("Hire-MLP-S", tuple(KIN), "left")
        right: str = choice("AS-MLP-T", tuple(KIN), "right")
        stage: int = choice(2, range(4), "stage")
        row: int = slider(4, 0, 55, "row")
        column: int = slider(5, 0, 55, "column")
        blocks: int = slider(3, 1, LONGEST, "blocks", play=True)

    def __init__(self, image: Any = None, **settings: Any):
        self._maps = {name: stage_maps(member, SIDE) for name, member in KIN.items()}
        super().__init__(None, image, SIDE, **settings)

    def limits(self) -> dict[str, Any]:
        last = Depends(("left", "right", "stage"), self._last_token)
        return {"stage": Depends(("left", "right"), self._stages), "row": last, "column": last}

    def _stages(self, left: str, right: str) -> list[int]:
        """The stages that both networks have."""
        return [stage for stage in self._maps[left] if stage in self._maps[right]]

    def _last_token(self, left: str, right: str, stage: int) -> int:
        return self._maps[left][stage][0] - 1

    @staticmethod
    def _members(s: Settings) -> tuple[Member, Member]:
        return KIN[s.left], KIN[s.right]

    def measure(self, s: Settings) -> Measured:
        grid = self._maps[s.left][s.stage]
        left, right = (
            sources_through(member, grid, s.stage, (s.row, s.column), s.blocks)
            for member in self._members(s)
        )
        return Measured(grid, (left, right))

    def facts(self, s: Settings, measured: Measured) -> dict[str, Any]:
        facts: dict[str, Any] = {"tokens": measured.grid[0] * measured.grid[1]}
        for side, member, steps in zip(
            ("left", "right"), self._members(s), measured.reached, strict=True
        ):
            facts[f"{side}_published"] = member.depths[s.stage]
            facts[f"{side}_reached"] = [int(step.sum()) for step in steps[1:]]
        return facts

    def words(self, s: Settings, measured: Measured) -> str:
        tokens = measured.grid[0] * measured.grid[1]
        left, right = (steps[-1].sum() / tokens for steps in measured.reached)
        return (
            f"Through {several(s.blocks, 'block')} {left:.0%} of the map reaches the token in "
            f"{s.left} and {right:.0%} in {s.right}."
        )

    def draw(self, s: Settings, measured: Measured) -> Image.Image:
        colors = block_colors(s.blocks)
        rows, columns = measured.grid
        side, top = 440, 104
        canvas = Canvas(theme.WIDTH, top + side + 56)
        token = f"token ({s.row}, {s.column}) within {several(s.blocks, 'block')}"
        canvas.text((12, 6), f"Which tokens reach {token}", theme.TITLE, bold=True)
        note = f"stages.{s.stage}: {rows} x {columns} tokens, images of {SIDE} pixels; residual "
        note += "connection included, gates and norms over the whole map left out"
        canvas.text((12, 38), note, theme.SMALL, theme.MUTED)
        for i, (member, steps) in enumerate(zip(self._members(s), measured.reached, strict=True)):
            left = 12 + i * (side + 24)
            canvas.text((left, top - 30), member.name, theme.TEXT, bold=True)
            has = member.depths[s.stage]
            note = f"has {several(has, 'block')} here"
            canvas.text((left + side, top - 28), note, theme.SMALL, theme.MUTED, "ra")
            box = (left, top, left + side, top + side)
            draw_reached(canvas, self._image, steps, colors, (s.row, s.column), box)
            counts = [int(step.sum()) for step in steps]
            text = f"{counts[-1]} of {rows * columns} tokens ({counts[-1] / rows / columns:.0%})"
            if counts[-1] == rows * columns:
                text += f", all of them after {several(counts.index(counts[-1]), 'block')}"
            canvas.text((left, top + side + 8), text, theme.SMALL)
            if s.blocks > has:
                text = f"after the {several(has, 'block')} that it has: {counts[has]}"
                canvas.text((left, top + side + 30), text, theme.SMALL, theme.MUTED)
        draw_scale(canvas, colors, (2 * (side + 24) + 12, top, canvas.width - 8, top + side))
        return canvas.image

"""ShiftExplorer: what the shift does to the regions, and which tokens reach a token in blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..analysis.reach import sources_of
from ..rearrange import AXES, CROSS_REGIONS, EMPTY, PADDINGS, Rearrangement
from ..viz import grids, theme
from ..viz.canvas import Canvas
from .controls import Depends, choice, slider, toggle
from .network import StageExplorer
from .phrases import listed, several

_BLOCK = {
    "shift": "A block that shifts",
    "shuffle": "A block that shuffles",
    "none": "A block without the cross-region step",
}
_MOVED = {"shift": "shifted", "shuffle": "shuffled", "none": "unmoved"}


class Measured(NamedTuple):
    """The index map of one block, and which tokens reach the token after 0, 1, ... blocks: as set,
    and without the cross-region step."""

    r: Rearrangement
    reached: list[np.ndarray]
    isolated: list[np.ndarray]


class ShiftExplorer(StageExplorer):
    """Before, shifted, mixed and restored side by side, and which tokens reach a token after one
    and after several blocks, with the shift and without.

    Mixing is shown as the mean over a region; a network learns its own mixture of the same tokens.
    Block b of several shifts by ``(b mod cycle) * shift`` with the stage's cycle, as the network
    does, so its first block never shifts; the four images show a block that does.

    Args:
        model: the network whose stages are shown; by default Hire-MLP-Tiny's sizes.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        img_size: the side of the image in pixels; by default the one the network was made for, 224
            where nothing tells.
        settings: see ``ShiftExplorer.Settings``.
    """

    title = "Shift and restore"
    pictured = True

    @dataclass(frozen=True)
    class Settings:
        shift: int = slider(2, -8, 8, "shift")
        region: int = slider(3, 1, 8, "region")
        direction: str = choice("height", tuple(AXES), "direction")
        stage: int = choice(1, range(4), "stage")
        padding: str = choice("circular", PADDINGS, "padding")
        cross_region: str = choice("shift", CROSS_REGIONS, "cross-region")
        restore: bool = toggle(True, "restore")
        token: int = slider(6, 0, 55, "token")
        blocks: int = slider(4, 1, 8, "blocks")

    def limits(self) -> dict[str, Any]:
        return {**super().limits(), "token": Depends(("stage",), self.last_token)}

    def idle(self, s: Settings) -> tuple[str, ...]:
        return ("shift",) if s.cross_region == "none" else ()

    def rearrangement(self, s: Settings | None = None) -> Rearrangement:
        """The index map of the block that the four images show."""
        s = s or self.settings
        size = self.stage(s).grid
        return Rearrangement(size, s.region, s.shift, s.padding, s.cross_region, s.restore)

    def reached(self, s: Settings | None = None) -> list[np.ndarray]:
        """(size,) bool for 0, 1, ... ``blocks`` blocks: which tokens reach the token."""
        s = s or self.settings
        r, cycle = self.rearrangement(s), self.stage(s).cycle
        blocks = [replace(r, shift=(b % cycle) * s.shift) for b in range(s.blocks)]
        return [sources_of((s.token,), blocks[:n], r.size) for n in range(s.blocks + 1)]

    def measure(self, s: Settings) -> Measured:
        isolated = replace(s, cross_region="none")
        return Measured(self.rearrangement(s), self.reached(s), self.reached(isolated))

    def facts(self, s: Settings, measured: Measured) -> dict[str, Any]:
        r = measured.r
        return {
            "at": self.stage(s).name,
            "tokens": r.size,
            "regions": r.regions,
            "padded": r.pad,
            "reached_by": list(r.sources(s.token)),
            "reached_by_after_blocks": [int(step.sum()) for step in measured.reached[1:]],
        }

    def words(self, s: Settings, measured: Measured) -> str:
        r = measured.r
        line = "row" if s.direction == "height" else "column"
        mixed, at_home = (
            listed(sorted(set(one.sources(s.token)) - {s.token}), line)
            for one in (r, replace(r, cross_region="none"))
        )
        words = f"{_BLOCK[s.cross_region]} mixes {line} {s.token} with {mixed or 'nothing'}"
        words += "." if mixed == at_home else f"; unmoved it would be {at_home or 'nothing'}."
        if r.pad:
            words += f" {several(r.pad, 'place')} at the end of the last region "
            words += f"{'is' if r.pad == 1 else 'are'} padding."
        return words

    def draw(self, s: Settings, measured: Measured) -> Image.Image:
        r = measured.r
        tokens = grids.cells(self._image, r.size, photograph=False)
        top = 368
        bottom = top + 22 * (s.blocks + 1)
        canvas = Canvas(theme.WIDTH, bottom + 34)
        self._draw_panels(canvas, tokens, r, s)
        cycle = self.stage(s).cycle
        for left, name, steps, cross_region in (
            (4, f"Tokens that reach token {s.token}", measured.reached, s.cross_region),
            (560, "without the cross-region step", measured.isolated, "none"),
        ):
            right = left + 512
            canvas.text((left, top - 32), name, theme.TEXT, bold=True)
            what = {"shift": "shift {}", "shuffle": "shuffle", "none": "block {1}"}
            labels = [
                "+ " + what[cross_region].format((b % cycle) * s.shift, b) for b in range(s.blocks)
            ]
            grids.draw_cone(
                canvas, steps, ["itself", *labels], s.token, (left + 110, top, right, bottom)
            )
            count = f"{int(steps[-1].sum())} of {r.size} after {s.blocks} "
            count += "block" if s.blocks == 1 else "blocks"
            canvas.text((left + 311, bottom + 3), count, theme.SMALL, anchor="ma")
        return canvas.image

    def _draw_panels(
        self, canvas: Canvas, tokens: np.ndarray, r: Rearrangement, s: Settings
    ) -> None:
        """The four states of the line-up, home regions coloured in all of them."""
        line = np.arange(r.size)
        shifted = r.slots.ravel()
        panels = (
            ("1  before", tokens, line, np.zeros(r.size, bool)),
            (f"2  {_MOVED[s.cross_region]}", grids.arrange(tokens, shifted, s.direction), shifted,
             r.padded.ravel()),
            ("3  mixed", grids.mixed(tokens, r, s.direction), shifted, r.padded.ravel()),
            ("4  restored" if s.restore else "4  cropped", grids.restored(tokens, r, s.direction),
             shifted[r.landing], np.zeros(r.size, bool)),
        )  # fmt: skip
        side, slots = 216, r.size + r.pad
        region = set(r.sources(s.token))
        for column, (name, cells, order, padded) in enumerate(panels):
            left = 18 + column * 271
            canvas.text((left - 14, 6), name, theme.TITLE, bold=True)
            home = [theme.PAPER if t == EMPTY else theme.region_color(t // r.region) for t in order]
            marks = {}
            if column < 2:  # what its region holds is content, and moves with the shift
                real = [(i, t) for i, t in enumerate(order) if not padded[i]]
                marks = {i: theme.REACHED for i, t in real if t in region}
                marks |= {i: theme.FOCUS for i, t in real if t == s.token}
            elif column == 3:  # the result's token is a place: without restore, of other content
                marks = {s.token: theme.FOCUS}
            cut = r.region if column in (1, 2) else 0
            lines = grids.Lines(s.direction, home, padded, cut, marks)
            grids.draw_lines(canvas, cells, lines, (left, 54, side), slots)
        y = 294
        x = canvas.swatch((4, y), theme.CYCLE[:4], "side bar: home region")
        x = canvas.swatch((x, y), theme.FOCUS, f"token {s.token}")
        x = canvas.swatch((x, y), theme.REACHED, "tokens that its region holds")
        if r.pad:
            canvas.swatch((x, y), theme.PAPER, "padding", hatched=True)

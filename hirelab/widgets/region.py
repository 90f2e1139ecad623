"""RegionExplorer: how the map is cut into regions, and how a region becomes one longer token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..rearrange import AXES, PADDINGS, Rearrangement
from ..viz import grids, theme
from ..viz.canvas import Box, Canvas
from .controls import Depends, choice, slider
from .network import StageExplorer
from .phrases import several


class RegionExplorer(StageExplorer):
    """Regions along height and along width as coloured bands, the padded slots hatched, and one
    region unpacked into its channel-concatenated token.

    Args:
        model: the network whose stages are shown; by default Hire-MLP-Tiny's sizes.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        img_size: the side of the image in pixels; by default the one the network was made for, 224
            where nothing tells.
        settings: see ``RegionExplorer.Settings``.
    """

    title = "Region partition"
    pictured = True

    @dataclass(frozen=True)
    class Settings:
        stage: int = choice(1, range(4), "stage")
        region_height: int = slider(3, 1, 8, "region, height")
        region_width: int = slider(3, 1, 8, "region, width")
        padding: str = choice("circular", PADDINGS, "padding")
        view: str = choice("photograph", ("photograph", "tokens"), "shown as")
        unpack: str = choice("height", tuple(AXES), "unpack along")
        pick: int = slider(2, 0, 27, "unpack region")

    def limits(self) -> dict[str, Any]:
        def last(stage: int, high: int, wide: int, unpack: str) -> int:
            region = {"height": high, "width": wide}[unpack]
            return Rearrangement(self._stages[stage].grid, region).regions - 1

        on = ("stage", "region_height", "region_width", "unpack")
        return {**super().limits(), "pick": Depends(on, last)}

    def _along(self, s: Settings, axis: str) -> Rearrangement:
        region = {"height": s.region_height, "width": s.region_width}[axis]
        return Rearrangement(self.stage(s).grid, region, padding=s.padding)

    def measure(self, s: Settings) -> dict[str, Rearrangement]:
        """The index map along each axis."""
        return {axis: self._along(s, axis) for axis in AXES}

    def facts(self, s: Settings, maps: dict[str, Rearrangement]) -> dict[str, Any]:
        dim = self.stage(s).dim
        h, w = maps["height"], maps["width"]
        picked = maps[s.unpack].slots[s.pick]
        return {
            "at": self.stage(s).name,
            "map": f"{h.size} x {h.size} x {dim}",
            "height_regions": f"{h.regions} x {h.size} x {h.region * dim}",
            "width_regions": f"{w.size} x {w.regions} x {w.region * dim}",
            "padded_rows": h.pad,
            "padded_columns": w.pad,
            "unpacked": [int(t) for t in picked],
        }

    def words(self, s: Settings, maps: dict[str, Rearrangement]) -> str:
        padded = [(r, axis) for axis, r in maps.items() if r.pad]
        if not padded:
            return "Both lines divide into whole regions: nothing is padded."
        said = []
        for r, axis in padded:
            held = several(r.region - r.pad, "row" if axis == "height" else "column")
            said.append(f"{held} and {r.pad} of padding along {axis}")
        return f"The last region holds {', '.join(said)}; the padding is cropped after mixing."

    def draw(self, s: Settings, maps: dict[str, Rearrangement]) -> Image.Image:
        grid, dim = self.stage(s).grid, self.stage(s).dim
        tokens = grids.cells(self._image, grid, s.view == "photograph")
        canvas = Canvas(theme.WIDTH, 486)
        slots = grid + max(r.pad for r in maps.values())
        for column, (axis, r) in enumerate(maps.items()):
            left, top, side = 20 + column * 366, 82, 330
            line = "row" if axis == "height" else "column"
            count = f"{several(r.regions, 'region')} of {several(r.region, line)}"
            canvas.text((left - 14, 8), f"Along {axis}", theme.TITLE, bold=True)
            canvas.text((left - 14, 37), count, theme.TEXT)
            lines = grids.Lines(
                axis,
                colors=[theme.region_color(i // r.region) for i in range(r.regions * r.region)],
                padded=r.padded.ravel(),
                region=r.region,
                marks=self._picked(s, r) if axis == s.unpack else {},
            )
            cells = grids.arrange(tokens, r.slots.ravel(), axis)
            grids.draw_lines(canvas, cells, lines, (left, top, side), slots)
            shape = (
                f"{r.regions} x {grid} x {r.region}\u00b7{dim}"
                if axis == "height"
                else f"{grid} x {r.regions} x {r.region}\u00b7{dim}"
            )
            canvas.text((left - 14, 424), f"{grid} x {grid} x {dim}  \u2192  {shape}")
        x = canvas.swatch((6, 456), theme.CYCLE[:4], "regions")
        x = canvas.swatch((x, 456), theme.REACHED, "unpacked")
        if any(r.pad for r in maps.values()):
            name = "zeros" if s.padding == "zero" else f"{s.padding} copies"
            canvas.swatch((x, 456), theme.PAPER, f"padding: {name}, cropped later", True)
        self._draw_unpacked(canvas, tokens, maps[s.unpack], s, dim)
        return canvas.image

    @staticmethod
    def _picked(s: Settings, r: Rearrangement) -> dict[int, str]:
        """A mark beside every line of the region that is unpacked."""
        first = s.pick * r.region
        return dict.fromkeys(range(first, first + r.region), theme.REACHED)

    def _draw_unpacked(
        self, canvas: Canvas, tokens: np.ndarray, r: Rearrangement, s: Settings, dim: int
    ) -> None:
        """The tokens of one region, and the one vector that their channels make."""
        left = 752
        canvas.text((left, 8), f"Region {s.pick}, unpacked", theme.TITLE, bold=True)
        canvas.text((left, 37), f"{r.region} x {dim} \u2192 one token of {r.region * dim}")
        middle = tokens.shape[1] // 2
        column = grids.arrange(tokens, r.slots[s.pick], s.unpack)
        line = column[:, middle] if s.unpack == "height" else column[middle]
        step = min(50, 240 / r.region)
        for slot in range(r.region):
            y = 82 + slot * step
            canvas.draw_image(line[slot], (left, y, left + step - 6, y + step - 6), smooth=True)
            if r.padded[s.pick, slot]:
                canvas.hatch((left, y, left + step - 6, y + step - 6))
            token = r.slots[s.pick, slot]
            name = f"{'row' if s.unpack == 'height' else 'column'} {token}" if token >= 0 else "0"
            canvas.text((left + 53, y + step / 2 - 3), name, theme.SMALL, anchor="lm")
            canvas.text((left + 142, y + step / 2 - 3), f"{dim} numbers", 14, theme.MUTED, "lm")
            self._slot(canvas, (left + 240, y + 4, left + 320, y + step - 10), slot, "t = ")
        top = 82 + r.region * step
        canvas.arrow((left + 155, top + 2), (left + 155, top + 28), theme.INK)
        gap = 24  # for the dots, however narrow a place is
        width = (310 - gap) / (3 * r.region)
        x = float(left)
        for group in range(3):  # channel 0, channel 1, ... and the last: tokens take turns in each
            if group == 2:
                canvas.text((x + gap / 2, top + 50), "\u2026", theme.TEXT, anchor="mm")
                x += gap
            for slot in range(r.region):
                self._slot(canvas, (x, top + 36, x + width - 1, top + 64), slot)
                x += width
            name = ("channel 0", "channel 1", f"channel {dim - 1}")[group]
            if r.region > 1 or group == 0:
                canvas.text((x - width * r.region / 2, top + 68), name, 14, theme.MUTED, "ma")
        note = f"number of channel c, token t: {r.region}c + t"
        canvas.text((left, top + 92), note, theme.SMALL, theme.MUTED)

    @staticmethod
    def _slot(canvas: Canvas, box: Box, slot: int, before: str = "") -> None:
        """A place inside the region: a grey and its number (colours mean regions here)."""
        color = theme.SLOTS[slot % len(theme.SLOTS)]
        left, top, right, bottom = box
        canvas.rect(box, fill=color)
        dark = sum(theme.rgb(color)) < 400
        if right - left > 9:
            middle = ((left + right) / 2, (top + bottom) / 2)
            ink = theme.PAPER if dark else theme.INK
            canvas.text(middle, f"{before}{slot}", 14, ink, "mm")

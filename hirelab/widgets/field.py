"""ReceptiveFieldExplorer: which pixels reach a point of the network, by which path, and how far."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from ..analysis.fields import ReceptiveField
from ..analysis.paths import PATHS
from ..analysis.receptive_field import POSITIONS, receptive_field
from ..datasets.images import PHOTOGRAPHS
from ..datasets.transforms import normalise
from ..models.hire_mlp import BRANCHES
from ..viz import field, theme
from ..viz.canvas import Canvas
from .controls import Depends, choice, slider
from .inputs import GIVEN, square_image
from .network import ModelExplorer

ALL = "average of all"
POINTS = {  # what is read of a block, by the names of its points
    "block": "out",
    "hire module": "hire.out",
    "height branch": "hire.height.out",
    "width branch": "hire.width.out",
    "channel branch": "hire.channel.out",
}


class ReceptiveFieldExplorer(ModelExplorer):
    """How strongly each pixel moves one position of a block: the gradient's magnitude.

    Colours are logarithmic; every number is measured on the linear map.

    Args:
        model: a Hire-MLP; by default the trained Hire-MLP-Pico that comes with hirelab. Untrained
            weights are noted in the figure.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        img_size: the side of the image in pixels; by default the one the network was made for.
        settings: see ``ReceptiveFieldExplorer.Settings``.
    """

    title = "Effective receptive field"

    @dataclass(frozen=True)
    class Settings:
        stage: int = slider(2, 0, 3, "stage")
        block: int = slider(1, 0, 23, "block")
        point: str = choice("block", POINTS, "point")
        position: str = choice("centre", POSITIONS, "position")
        paths: str = choice("spatial", PATHS, "paths")
        photograph: str = choice(GIVEN, (GIVEN, *PHOTOGRAPHS, ALL), "image")

    KEPT = 32  # maps of the image's size
    given = MappingProxyType({"photograph": GIVEN})

    def limits(self) -> dict[str, Any]:
        closed = set(BRANCHES) - set(self.branches)

        def paths(point: str) -> list[str]:
            own = point.removesuffix(" branch")
            shut = closed | (set(BRANCHES) - {own} if own in BRANCHES else set())
            return [name for name in PATHS if name not in shut]

        return {
            **super().limits(),
            "point": [name for name in POINTS if name.removesuffix(" branch") not in closed],
            "paths": Depends(("point",), paths),
        }

    def images(self, s: Settings) -> list[Image.Image]:
        """What is measured."""
        if s.photograph == GIVEN:
            return [self._image]
        names = PHOTOGRAPHS if s.photograph == ALL else [s.photograph]
        return [square_image(name, self.img_size) for name in names]

    def run(self, s: Settings) -> ReceptiveField:
        """The measurement of the settings."""
        name = f"{self.block_name(s)}.{POINTS[s.point]}"
        x = normalise(self.images(s))
        return receptive_field(self._model, x, name, s.position, s.paths, batch_size=4)

    def measure(self, s: Settings) -> ReceptiveField:
        return self._read(s)

    def field(self) -> ReceptiveField:
        """The measurement behind the image."""
        return self._read(self.settings)

    def facts(self, s: Settings, measured: ReceptiveField) -> dict[str, Any]:
        half, most = measured.area(0.5, 0.99)
        return {
            "at": measured.point,
            "row": measured.position[0],
            "column": measured.position[1],
            "half_mass_side": round(measured.half_mass_side, 1),
            "area_50": _rounded(half),
            "area_99": _rounded(most),
            "wrapped_share": _rounded(measured.wrapped_share),
        }

    def words(self, s: Settings, measured: ReceptiveField) -> str:
        half, (most,) = measured.half_mass_side, measured.area(0.99)
        return (
            f"Half of what the position hears comes from a square {half / self.img_size:.0%} as "
            f"wide as the image, and 99% of it from {most:.0%} of the pixels."
        )

    def draw(self, s: Settings, measured: ReceptiveField) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 524)
        row, column = measured.position
        title = f"Pixels that reach {measured.point} at row {row}, column {column}"
        canvas.text((6, 6), title, theme.TITLE, bold=True)
        note = PATHS[s.paths].words + self.untrained_note()
        canvas.text((6, 38), note, theme.SMALL, theme.MUTED)
        self._draw_image(canvas, s, measured, (6, 102, 326, 422))

        canvas.text((352, 74), "|gradient| to the pixels", theme.SMALL, bold=True)
        field.draw_field(
            canvas, measured.map, measured.centre, measured.half_mass_side, (352, 102, 672, 422)
        )
        field.draw_scale(canvas, (352, 436, 672, 450))
        canvas.text((352, 478), "share of the largest, log colours", 15, theme.MUTED)

        canvas.text((700, 74), "mass in a square around, linear", theme.SMALL, bold=True)
        box = (758, 106, 1064, 422)
        half, longest = measured.half_mass_side, max(measured.map.shape)
        field.draw_curve(canvas, measured.sides, measured.curve, half, longest, box)
        canvas.text((911, 450), "side of the square, pixels", 15, theme.MUTED, "ma")
        canvas.swatch((758, 472), theme.FOCUS, f"half of it within {half:g} pixels")
        share = 100 * measured.wrapped_share
        shown = "none" if share == 0 else "under 0.1%" if share < 0.1 else f"{_rounded(share):g}%"
        crossed = f"nearer round the border: {shown}"
        canvas.text((758, 498), crossed, theme.SMALL, theme.MUTED)
        return canvas.image

    def _draw_image(
        self, canvas: Canvas, s: Settings, measured: ReceptiveField, box: tuple
    ) -> None:
        left, top, right, bottom = box
        images = self.images(s)
        several = len(images) > 1
        words = f"{len(images)} images, averaged" if several else "the image"
        canvas.text((left, 74), words, theme.SMALL, bold=True)
        shown = np.mean([np.asarray(p, np.float64) for p in images], axis=0)
        canvas.draw_image(shown.round().astype(np.uint8), box, smooth=True)
        rows, columns = measured.grid
        row, column = measured.position
        high, wide = (bottom - top) / rows, (right - left) / columns
        cell = (
            left + column * wide,
            top + row * high,
            left + (column + 1) * wide,
            top + (row + 1) * high,
        )
        around = (cell[0] - 2, cell[1] - 2, cell[2] + 2, cell[3] + 2)
        canvas.rect(around, outline=theme.PAPER, width=5)
        canvas.rect(around, outline=theme.FOCUS, width=3)
        canvas.rect(box, outline=theme.LINE)
        canvas.swatch((left, bottom + 14), theme.FOCUS, f"the position, of {rows} x {columns}")


def _rounded(share: float) -> float:
    """Three significant figures, and no trace of rounding errors."""
    return float(f"{share:.3g}") if share > 1e-6 else 0.0

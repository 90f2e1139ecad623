"""CostExplorer: the paper's complexity formulas beside what the built layers really hold and do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image

from ..analysis.cost import BranchCost, branch_cost
from ..viz import theme
from ..viz.canvas import Canvas
from .controls import choice, slider
from .explorer import Explorer

REGIONS = 1, 8  # smallest and largest region that is shown
_cost = lru_cache(maxsize=256)(branch_cost)


class CostExplorer(Explorer):
    """Weights and multiply-adds of one branch as region, width and map size change: bars are
    measured on a built branch, the marks are the formulas h C^2 and H W C^2."""

    title = "What a branch costs"

    @dataclass(frozen=True)
    class Settings:
        region: int = slider(3, *REGIONS, "region h")
        dim: int = choice(128, (32, 64, 128, 160, 256, 320, 512), "width C")
        size: int = choice(28, (7, 14, 28, 56), "tokens H = W")

    def cost(self, s: Settings | None = None) -> BranchCost:
        """The measured cost of the settings."""
        s = s or self.settings
        return _cost(s.dim, s.region, s.size)

    def measure(self, s: Settings) -> list[BranchCost]:
        """The costs of all regions that the control knows, from 1 on."""
        regions = range(REGIONS[0], REGIONS[1] + 1)
        return [_cost(s.dim, region, s.size) for region in regions]

    def facts(self, s: Settings, costs: list[BranchCost]) -> dict[str, Any]:
        cost = costs[s.region - REGIONS[0]]
        return {
            "weights": cost.weights,
            "weights_formula": cost.weights_formula,
            "biases_and_norm": cost.others,
            "macs": cost.macs,
            "macs_formula": cost.macs_formula,
            "padding_share": round(cost.padding_share, 4),
        }

    def words(self, s: Settings, costs: list[BranchCost]) -> str:
        cost, one = costs[s.region - REGIONS[0]], costs[0]
        times = f"{cost.weights / one.weights:.0f} times the weights of regions of 1 token"
        if s.region == 1:
            times = "as many weights as a 1 x 1 convolution of that width"
        extra = "the same multiply-adds, as any region that divides the tokens"
        if cost.padding_share:
            extra = f"{cost.padding_share:.1%} more multiply-adds, since the last region is padded"
        return f"It has {times}, and {extra}."

    def draw(self, s: Settings, costs: list[BranchCost]) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 350)
        self._bars(
            canvas, 6, "Weights of a branch", "h\u00b7C\u00b2", s.region,
            [c.weights for c in costs], [c.weights_formula for c in costs],
        )  # fmt: skip
        self._bars(
            canvas, 560, "Multiply-adds of a branch", "H\u00b7W\u00b7C\u00b2", s.region,
            [c.macs for c in costs], [c.macs_formula for c in costs],
        )  # fmt: skip
        x = canvas.swatch((6, 322), theme.BLUE, "measured")
        x = canvas.swatch((x, 322), theme.VERMILION, "formula (line)")
        canvas.text((x, 322), f"C = {s.dim}, {s.size} x {s.size} tokens", theme.SMALL, theme.MUTED)
        return canvas.image

    @staticmethod
    def _bars(
        canvas: Canvas,
        left: float,
        title: str,
        formula: str,
        region: int,
        values: list[int],
        expected: list[int],
    ) -> None:
        """One bar per region, the chosen one dark; the formula as a line across each bar."""
        canvas.text((left, 6), title, theme.TITLE, bold=True)
        exact = values[region - 1] == expected[region - 1]
        ratio = values[region - 1] / expected[region - 1]
        verdict = f"{formula} is exact" if exact else f"{ratio:.3f} times {formula}: padding"
        canvas.text((left, 37), f"{_short(values[region - 1])}   {verdict}")
        top, bottom, step = 86, 276, 62
        unit = (bottom - top) / max(values)
        for i, (value, formula_value) in enumerate(zip(values, expected, strict=True)):
            x = left + i * step
            color = theme.BLUE if i + 1 == region else theme.SKY
            canvas.rect((x + 6, bottom - value * unit, x + step - 8, bottom), fill=color)
            y = bottom - formula_value * unit
            canvas.rect((x, y - 2, x + step - 2, y + 2), fill=theme.VERMILION)
            canvas.text((x + step / 2 - 1, bottom + 6), str(i + 1), theme.SMALL, anchor="ma")
        canvas.text((left + 8 * step, bottom + 6), "h", theme.SMALL, theme.MUTED)


def _short(value: float) -> str:
    """A count with three digits and a unit."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)

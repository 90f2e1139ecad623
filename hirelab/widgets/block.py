"""BlockExplorer: every point of one block as a heat map, and the gate's weights per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ..datasets.transforms import normalise
from ..viz import maps, theme
from ..viz.canvas import Canvas
from .controls import slider, toggle
from .network import ModelExplorer

# Where a point stands in the figure, (row, column): the flow goes from left to right, and down.
_IMAGE, _GATE = (0, 0), (3, 0)
_FLOW = {
    "hire.input": (0, 1), "hire.channel.out": (0, 3),
    "hire.height.shifted": (1, 0), "hire.height.regions": (1, 1),
    "hire.height.mixed": (1, 2), "hire.height.out": (1, 3),
    "hire.width.shifted": (2, 0), "hire.width.regions": (2, 1),
    "hire.width.mixed": (2, 2), "hire.width.out": (2, 3),
    "hire.fused": (3, 1), "hire.out": (3, 2), "mid": (3, 3),
    "mlp.out": (4, 2), "out": (4, 3),
}  # fmt: skip
_ROWS = (
    "channel branch", "height branch: shift, cut, mix, restore",
    "width branch: the same sideways", "fusion: weigh, add up, project; added to what came in",
    "channel MLP; added again",
)  # fmt: skip


class Measured(NamedTuple):
    """What `BlockExplorer.maps` and `BlockExplorer.gate` give."""

    maps: dict[str, np.ndarray]
    weights: np.ndarray
    branches: tuple[str, ...]


class BlockExplorer(ModelExplorer):
    """What one image leaves at every point of one block.

    A map shows, for every token (or region), the root mean square over channels, or one channel's
    magnitude; each map has its own scale, printed under it.

    Args:
        model: a Hire-MLP; by default an untrained Hire-MLP-Tiny. Untrained weights are noted in the
            figure.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        settings: see ``BlockExplorer.Settings``.
    """

    title = "Inside a Hire block"

    @dataclass(frozen=True)
    class Settings:
        stage: int = slider(1, 0, 3, "stage")
        block: int = slider(1, 0, 23, "block")
        channel: int = slider(-1, -1, 1535, "channel (-1: all)")
        carry_back: bool = toggle(False, "carry back to places")

    KEPT = 4  # blocks

    def limits(self) -> dict[str, Any]:
        widest = max(self._channels(stage) for stage in range(len(self._model.stages)))
        return {**super().limits(), "channel": widest - 1}

    def problem(self, s: Settings) -> str | None:
        channels = self._channels(s.stage)
        if s.channel >= channels:
            return f"Channel {s.channel} does not exist: stage {s.stage} has 0 to {channels - 1}."
        return self.missing_block(s)

    def _channels(self, stage: int) -> int:
        return self._model.feature_info[stage]["num_chs"]

    def run(self, block: str) -> tuple[dict[str, Tensor], Any]:
        """A block's tensors (without the batch axis), by name inside the block."""
        x = normalise([self._given]).to(next(self._model.parameters()))
        cache = self.activations(x, f"{block}.*")
        return {name.removeprefix(f"{block}."): cache[name].float().cpu() for name in cache}, cache

    def gate(self, s: Settings | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """The gate's weights (C, branches) and the branches; (C, 0) where there is no gate."""
        s = s or self.settings
        name = "hire.gate.out"
        values, cache = self._read(self.block_name(s))
        if name not in values:
            return np.zeros((0, 0)), ()
        return values[name][0].numpy(), cache.point(f"{self.block_name(s)}.{name}").branches

    def maps(self, s: Settings | None = None) -> dict[str, np.ndarray]:
        """A (rows, columns) magnitude for every grid point of the block, by name."""
        s = s or self.settings
        values, cache = self._read(self.block_name(s))
        shown = {}
        for name in _FLOW:
            if name not in values:
                continue
            point, value = cache.point(f"{self.block_name(s)}.{name}"), values[name]
            if s.carry_back:
                value = point.tokens(value)
            if s.channel >= 0:
                grouped = point.kind == "region grid" and not s.carry_back
                width = point.rearrangement.region if grouped else 1
                value = value[:, s.channel * width : (s.channel + 1) * width]
            shown[name] = value[0].square().mean(0).sqrt().numpy()
        return shown

    def measure(self, s: Settings) -> Measured:
        return Measured(self.maps(s), *self.gate(s))

    def facts(self, s: Settings, measured: Measured) -> dict[str, Any]:
        branch = self.hire_module(s).height
        facts: dict[str, Any] = {"at": self.block_name(s)}
        if branch is not None:
            facts |= {"region": branch.region, "shift": branch.shift}
        for column, name in enumerate(measured.branches):
            facts[f"gate_{name}"] = round(float(measured.weights[:, column].mean()), 3)
        facts["output_rms"] = round(float(np.sqrt((measured.maps["out"] ** 2).mean())), 3)
        return facts

    def draw(self, s: Settings, measured: Measured) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 1242)
        branch = self.hire_module(s).height
        title = self.block_name(s)
        if branch is not None:
            title += f":  region {branch.region}, shift {branch.shift}"
        canvas.text((6, 6), title, theme.TITLE, bold=True)
        what = "root mean square over channels" if s.channel < 0 else f"channel {s.channel}"
        note = f"{what}, each map on its own scale, dark low and bright high"
        note += self.untrained_note()
        canvas.text((6, 38), note, theme.SMALL, theme.MUTED)
        for row, words in enumerate(_ROWS):
            left, top, _, _ = self._box(row, 0 if row < 4 else 2)
            canvas.text((left, top - 24), words, theme.SMALL, theme.MUTED)
        for name, values in measured.maps.items():
            color = next((c for branch, c in theme.BRANCH.items() if branch in name), None)
            maps.draw_heat_map(canvas, values, self._box(*_FLOW[name]), name, color)
        left, top, _, bottom = self._box(*_IMAGE)
        side = bottom - top - 44
        canvas.text((left, top), "the image", theme.SMALL, bold=True)
        box = (left, top + 24, left + side, top + 24 + side)
        canvas.draw_image(np.asarray(self._given), box, smooth=True)
        self._draw_gate(canvas, measured.weights, measured.branches)
        return canvas.image

    @staticmethod
    def _box(row: int, column: int) -> tuple[float, float, float, float]:
        left, top = 8 + column * 272, 98 + row * 230
        return (left, top, left + 236, top + 200)

    def _draw_gate(self, canvas: Canvas, weights: np.ndarray, branches: tuple[str, ...]) -> None:
        if not branches:
            return
        left, top, right, bottom = self._box(*_GATE)
        canvas.text((left, top), "hire.gate.out", theme.SMALL, bold=True)
        maps.draw_gate(canvas, weights, branches, (left, top + 24, right, bottom - 44))
        x = left
        for column, name in enumerate(branches):
            mean = f"{name[0]} {weights[:, column].mean():.2f}"
            x = canvas.swatch((x, bottom - 42), theme.BRANCH[name], mean) - 10
        undecided = np.abs(weights - 1 / len(branches)).max() < 0.01
        words = "undecided: equal shares" if undecided else "one column per channel; means"
        canvas.text((left, bottom - 18), words, 15, theme.MUTED)

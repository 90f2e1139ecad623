"""BlockExplorer: every point of one block as a heat map, and the gate's weights per channel."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ..datasets.transforms import normalise
from ..viz import maps, theme
from ..viz.canvas import Box, Canvas
from .controls import Depends, slider, toggle
from .network import ModelExplorer

# Where a point stands in the figure, (row, column): the flow goes from left to right.
_IMAGE, _GATE = (0, 0), (2, 1)
_FLOW = {
    "hire.input": (1, 0),
    "hire.height.shifted": (0, 1), "hire.height.regions": (0, 2),
    "hire.height.mixed": (0, 3), "hire.height.out": (0, 4),
    "hire.width.shifted": (1, 1), "hire.width.regions": (1, 2),
    "hire.width.mixed": (1, 3), "hire.width.out": (1, 4),
    "hire.channel.out": (2, 4),
    "hire.fused": (0, 5), "hire.out": (1, 5), "mid": (2, 5),
    "mlp.out": (1, 6), "out": (2, 6),
}  # fmt: skip
_LEFT, _TOP, _STEP, _ROW = 6, 88, 154, 158  # of the maps and from one to the next
_WIDE, _HIGH = 130, 102  # of a map, at most


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
        model: a Hire-MLP; by default the trained Hire-MLP-Pico that comes with hirelab. Untrained
            weights are noted in the figure.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        img_size: the side of the image in pixels; by default the one the network was made for.
        settings: see ``BlockExplorer.Settings``.
    """

    title = "Inside a Hire block"

    @dataclass(frozen=True)
    class Settings:
        stage: int = slider(1, 0, 3, "stage")
        block: int = slider(1, 0, 23, "block")
        channel: int = slider(-1, -1, 1535, "channel, -1 all")
        carry_back: bool = toggle(False, "carry back to places")

    KEPT = 4  # blocks

    def limits(self) -> dict[str, Any]:
        last = Depends(("stage",), lambda stage: self._channels(stage) - 1)
        return {**super().limits(), "channel": last}

    def _channels(self, stage: int) -> int:
        return self._model.feature_info[stage]["num_chs"]

    def run(self, block: str) -> tuple[dict[str, Tensor], Any]:
        """A block's tensors (without the batch axis), by name inside the block."""
        x = normalise([self._image]).to(next(self._model.parameters()))
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

    def words(self, s: Settings, measured: Measured) -> str:
        names = measured.branches
        if not names:
            return "This block has no gate: it adds its branches up as they are."
        if _undecided(measured.weights):
            return "The gate has learnt nothing yet: it gives every branch an equal share."
        most = np.bincount(measured.weights.argmax(axis=1), minlength=len(names))
        share = most / len(measured.weights)
        said = ", ".join(
            f"to {name} in {part:.0%}" for name, part in zip(names, share, strict=True)
        )
        return f"The gate gives its largest share {said} of the channels."

    def draw(self, s: Settings, measured: Measured) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 558)
        branch = self.hire_module(s).height
        title = self.block_name(s)
        if branch is not None:
            title += f":  region {branch.region}, shift {branch.shift}"
        canvas.text((6, 6), title, theme.TITLE, bold=True)
        what = "root mean square over channels" if s.channel < 0 else f"channel {s.channel}"
        rows, cols = measured.maps["out"].shape
        note = f"{what} of {rows} x {cols} tokens, each map on its own scale, bright is far from 0"
        note += self.untrained_note()
        canvas.text((6, 36), note, theme.SMALL, theme.MUTED)
        areas = {}
        for name, values in measured.maps.items():
            color = next((c for branch, c in theme.BRANCH.items() if branch in name), None)
            box = self._box(*_FLOW[name])
            areas[name] = maps.draw_heat_map(canvas, values, box, _short(name), color)
        left, top, _, _ = self._box(*_IMAGE)
        canvas.text((left, top), "the image", theme.SMALL, bold=True)
        box = (left, top + 24, left + _HIGH, top + 24 + _HIGH)
        canvas.draw_image(np.asarray(self._image), box, smooth=True)
        size = f"{self.img_size} x {self.img_size} pixels"
        canvas.text((left, box[3] + 3), size, 15, theme.MUTED)
        _draw_flow(canvas, areas)
        self._draw_gate(canvas, measured.weights, measured.branches)
        return canvas.image

    @staticmethod
    def _box(row: int, column: int) -> Box:
        left, top = _LEFT + column * _STEP, _TOP + row * _ROW - 20
        return (left, top, left + _WIDE, top + 24 + _HIGH + 20)

    def _draw_gate(self, canvas: Canvas, weights: np.ndarray, branches: tuple[str, ...]) -> None:
        if not branches:
            return
        left, top, _, _ = self._box(*_GATE)
        right = self._box(2, 3)[2] - 22
        words = "equal shares" if _undecided(weights) else "a column per channel"
        x = left + canvas.text_width("hire.gate.out", theme.SMALL, bold=True) + 14
        canvas.text((left, top), "hire.gate.out", theme.SMALL, bold=True)
        canvas.text((x, top), words, theme.SMALL, theme.MUTED)
        maps.draw_gate(canvas, weights, branches, (left, top + 24, right, top + 24 + _HIGH))
        x = left
        for column, name in enumerate(branches):
            mean = f"{name} {weights[:, column].mean():.2f}"
            x = canvas.swatch((x, top + 29 + _HIGH), theme.BRANCH[name], mean)


def _short(name: str) -> str:
    """A point's name where there is little room: a branch's without the module that all share."""
    return name.removeprefix("hire.") if name.count(".") > 1 else name


def _draw_flow(canvas: Canvas, areas: dict[str, Box]) -> None:
    """Arrows from map to map, by the names of points and where their maps lie."""

    def middle(name: str) -> float:
        row, _ = _FLOW[name]
        return _TOP + row * _ROW + _HIGH / 2 + 4

    def line(*points: tuple[float, float]) -> None:
        canvas.line(list(points), theme.MUTED, 2)

    def arrow(x: float, end: str) -> None:
        """From x to the left side of a map, at the middle of its row."""
        canvas.arrow((x, middle(end)), (areas[end][0] - 3, middle(end)), theme.MUTED)

    for start, end in itertools.pairwise(_FLOW):
        same = start.rsplit(".", 1)[0] == end.rsplit(".", 1)[0] and _FLOW[start][0] == _FLOW[end][0]
        if same and start in areas:
            arrow(areas[start][2] + 4, end)
    # the input goes to every branch along one rail, and every branch to the sum along another
    rail, y = _LEFT + _STEP - 14, middle("hire.input")
    line((areas["hire.input"][2] + 4, y), (rail, y))
    for name in (one for one in areas if one.endswith(".shifted")):
        line((rail, y), (rail, middle(name)))
        arrow(rail, name)
    if "hire.channel.out" in areas:
        lane = canvas.height - 8  # below the gate
        turn = areas["hire.channel.out"][0] - 16
        line((rail, y), (rail, lane), (turn, lane), (turn, middle("hire.channel.out")))
        arrow(turn, "hire.channel.out")
    rail = _LEFT + 5 * _STEP - 18
    for name in (one for one in areas if one.startswith("hire.") and _FLOW[one][1] == 4):
        y = middle(name)
        line((areas[name][2] + 4, y), (rail, y), (rail, middle("hire.fused")))
    arrow(rail, "hire.fused")
    # the last five: down, to the MLP and past it
    for start, end in (("hire.fused", "hire.out"), ("hire.out", "mid"), ("mlp.out", "out")):
        x = areas[start][0] + _WIDE - 12
        low, high = _TOP + _FLOW[start][0] * _ROW + _HIGH + 8, _TOP + _FLOW[end][0] * _ROW
        canvas.arrow((x, low), (x, high), theme.MUTED)
    rail, y = _LEFT + 6 * _STEP - 18, middle("mid")
    line((areas["mid"][2] + 4, y), (rail, y), (rail, middle("mlp.out")))
    arrow(rail, "mlp.out")
    arrow(rail, "out")


def _undecided(weights: np.ndarray) -> bool:
    """Whether a gate's weights (C, branches) are equal shares, as before any training."""
    return bool(np.abs(weights - 1 / weights.shape[1]).max() < 0.01)

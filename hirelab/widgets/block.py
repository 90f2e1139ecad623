"""BlockExplorer: every point of one block as a heat map, and the gate's weights per channel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ..datasets.transforms import normalise
from ..hooks.forward import eval_mode
from ..models import create
from ..viz import maps, theme
from ..viz.canvas import Canvas
from .explorer import Explorer, slider, toggle
from .inputs import check_network, missing_stage, square_image

# Where a point stands on the sheet, (row, column): the flow goes from left to right, and down.
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


class BlockExplorer(Explorer):
    """What one image leaves at every point of one block.

    A map shows, for every token (or region), the root mean square over channels, or one channel's
    magnitude; each map has its own scale, printed under it.

    Args:
        model: a Hire-MLP; by default an untrained Hire-MLP-Tiny, and the sheet says so.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
        settings: see ``BlockExplorer.Settings``.
    """

    title = "Inside a Hire block"

    @dataclass(frozen=True)
    class Settings:
        stage: int = slider(2, 1, 4, "stage")
        block: int = slider(2, 1, 24, "block")
        channel: int = slider(-1, -1, 1535, "channel (-1: all)")
        carry_back: bool = toggle(False, "carry back to places")

    def __init__(self, model: nn.Module | None = None, image: Any = None, **settings: Any):
        self._untrained = model is None
        self._model = create("hire_mlp_tiny", seed=0) if model is None else check_network(model)
        self._image_shown = square_image(image)
        # The reads are of a fixed network and image, so they are kept, a few blocks at a time.
        self._read = lru_cache(maxsize=4)(self._run)
        super().__init__(**settings)

    def problem(self, s: Settings) -> str | None:
        stages = self._model.stages
        if s.stage > len(stages):
            return missing_stage(stages, s.stage)
        depth = len(stages[s.stage - 1].blocks)
        if s.block > depth:
            return f"Block {s.block} is not there: stage {s.stage} has {depth}, 1 to {depth}."
        channels = self._model.feature_info[s.stage - 1]["num_chs"]
        if s.channel >= channels:
            return f"Channel {s.channel} is not there: stage {s.stage} has 0 to {channels - 1}."
        return None

    def _run(self, stage: int, block: int) -> tuple[dict[str, Tensor], Any]:
        """The block's tensors (without the batch axis), by name inside the block."""
        prefix = f"stages.{stage - 1}.blocks.{block - 1}."
        x = normalise([self._image_shown]).to(next(self._model.parameters()))
        with eval_mode(self._model):
            _, cache = self._model.run_with_cache(x, prefix + "*", stop_early=True)
        return {name.removeprefix(prefix): cache[name].float().cpu() for name in cache}, cache

    def gate(self, s: Settings | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """The gate's weights (C, branches) and the branches; (C, 0) where there is no gate."""
        s = s or self.settings
        values, cache = self._read(s.stage, s.block)
        if "hire.gate.out" not in values:
            return np.zeros((0, 0)), ()
        name = f"stages.{s.stage - 1}.blocks.{s.block - 1}.hire.gate.out"
        return values["hire.gate.out"][0].numpy(), cache.point(name).branches

    def maps(self, s: Settings | None = None) -> dict[str, np.ndarray]:
        """A (rows, columns) magnitude for every grid point of the block, by name."""
        s = s or self.settings
        values, cache = self._read(s.stage, s.block)
        prefix = f"stages.{s.stage - 1}.blocks.{s.block - 1}."
        shown = {}
        for name in _FLOW:
            if name not in values:
                continue
            point, value = cache.point(prefix + name), values[name]
            if s.carry_back:
                value = point.tokens(value)
            if s.channel >= 0:
                grouped = point.kind == "region grid" and not s.carry_back
                width = point.rearrangement.region if grouped else 1
                value = value[:, s.channel * width : (s.channel + 1) * width]
            shown[name] = value[0].square().mean(0).sqrt().numpy()
        return shown

    def facts(self, s: Settings) -> dict[str, Any]:
        branch = self._model.stages[s.stage - 1].blocks[s.block - 1].hire.height
        weights, branches = self.gate(s)
        facts: dict[str, Any] = {}
        if branch is not None:
            facts |= {"region": branch.region, "shift": branch.shift}
        for column, name in enumerate(branches):
            facts[f"gate_{name}"] = round(float(weights[:, column].mean()), 3)
        facts["output_rms"] = round(float(np.sqrt((self.maps(s)["out"] ** 2).mean())), 3)
        return facts

    def draw(self, s: Settings) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 1242)
        branch = self._model.stages[s.stage - 1].blocks[s.block - 1].hire.height
        title = f"Stage {s.stage}, block {s.block}"
        if branch is not None:
            title += f":  region {branch.region}, shift {branch.shift}"
        canvas.text((6, 6), title, theme.TITLE, bold=True)
        what = "root mean square over channels" if s.channel < 0 else f"channel {s.channel}"
        weights = "; the weights are untrained" if self._untrained else ""
        note = f"{what}, each map on its own scale, dark low and bright high{weights}"
        canvas.text((6, 38), note, theme.SMALL, theme.MUTED)
        for row, words in enumerate(_ROWS):
            left, top, _, _ = self._box(row, 0 if row < 4 else 2)
            canvas.text((left, top - 24), words, theme.SMALL, theme.MUTED)
        for name, values in self.maps(s).items():
            color = next((c for branch, c in theme.BRANCH.items() if branch in name), None)
            maps.draw_map(canvas, values, self._box(*_FLOW[name]), name, color)
        left, top, _, bottom = self._box(*_IMAGE)
        side = bottom - top - 44
        canvas.text((left, top), "the image", theme.SMALL, bold=True)
        box = (left, top + 24, left + side, top + 24 + side)
        canvas.draw_image(np.asarray(self._image_shown), box, smooth=True)
        self._draw_gate(canvas, s)
        return canvas.image

    @staticmethod
    def _box(row: int, column: int) -> tuple[float, float, float, float]:
        left, top = 8 + column * 272, 98 + row * 230
        return (left, top, left + 236, top + 200)

    def _draw_gate(self, canvas: Canvas, s: Settings) -> None:
        weights, branches = self.gate(s)
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
        words = "undecided: equal shares" if undecided else "a column a channel; means"
        canvas.text((left, bottom - 18), words, 15, theme.MUTED)

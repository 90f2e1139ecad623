"""BlockExplorer: one block as a diagram, every point of it as a heat map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..datasets.transforms import normalise
from ..hooks.points import Cache, Point
from ..models.hire_mlp import AxisBranch
from ..rearrange import AXES
from ..viz import theme
from ..viz.block import HEIGHT, PointMap, draw_block
from ..viz.canvas import Canvas
from .controls import Depends, slider, toggle
from .network import ModelExplorer, magnitude
from .phrases import said_of_gate

# what is no map of tokens or regions, or is not drawn: the hidden layer says nothing of places
_HIDDEN = ("hire.gate.out", "mlp.hidden")


class Measured(NamedTuple):
    """What `BlockExplorer` draws: its maps, and the gate's weights by branch."""

    points: dict[str, PointMap]
    weights: np.ndarray
    branches: tuple[str, ...]


def _regions(point: Point, carried_back: bool) -> dict[int, np.ndarray]:
    """Of each row or column of a branch's map, the region that it was or will be mixed in; nothing
    where a row is a whole region."""
    r = point.rearrangement
    if r is None or point.axis is None or (point.kind == "region grid" and not carried_back):
        return {}
    axis = AXES[point.axis] - 2
    if not point.shifted:
        positions = r.landing
    else:
        positions = np.argsort(r.order) if carried_back else np.arange(r.size)
    return {axis: positions // r.region}


class BlockExplorer(ModelExplorer):
    """What one image leaves at every point of one block, as a diagram of the computation.

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

    def source(self, s: Settings) -> str:
        """The point that goes into the chosen block."""
        if s.block:
            return f"stages.{s.stage}.blocks.{s.block - 1}.out"
        return f"stages.{s.stage}.downsample.out" if s.stage else "stem.out"

    def run(self, block: str, source: str) -> Cache:
        """The tensors of a block and of the point that goes into it."""
        x = normalise([self._image]).to(next(self._model.parameters()))
        return self.activations(x, [source, f"{block}.*"])

    def _cache(self, s: Settings) -> Cache:
        return self._read(self.block_name(s), self.source(s))

    def gate(self, s: Settings | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """The gate's weights (C, branches) and the branches; (C, 0) where there is no gate."""
        s = s or self.settings
        cache, name = self._cache(s), f"{self.block_name(s)}.hire.gate.out"
        if name not in cache:
            return np.zeros((0, 0)), ()
        return cache[name][0].float().cpu().numpy(), cache.point(name).branches

    def points(self, s: Settings | None = None) -> dict[str, PointMap]:
        """Every grid point of the block as a map, by its name inside the block, and first the
        point that goes into the block, by its own name."""
        s = s or self.settings
        cache, block = self._cache(s), f"{self.block_name(s)}."
        shown = {}
        for name in cache:
            short = name.removeprefix(block)
            if short in _HIDDEN:
                continue
            point, value = cache.point(name), cache[name]
            if s.carry_back:
                value = point.tokens(value)
            shape = " x ".join(map(str, value.shape[1:]))
            if s.channel >= 0:
                grouped = point.kind == "region grid" and not s.carry_back
                width = point.rearrangement.region if grouped and point.rearrangement else 1
                value = value[:, s.channel * width : (s.channel + 1) * width]
            values = magnitude(value)
            shown[short] = PointMap(values, shape, _regions(point, s.carry_back))
        return shown

    def maps(self, s: Settings | None = None) -> dict[str, np.ndarray]:
        """The (rows, columns) magnitudes of `points`, by name."""
        return {name: shown.values for name, shown in self.points(s).items()}

    def measure(self, s: Settings) -> Measured:
        return Measured(self.points(s), *self.gate(s))

    def facts(self, s: Settings, measured: Measured) -> dict[str, Any]:
        branch = self.hire_module(s).height
        facts: dict[str, Any] = {"at": self.block_name(s)}
        if branch is not None:
            facts |= {"region": branch.region, "shift": branch.shift}
        for column, name in enumerate(measured.branches):
            facts[f"gate_{name}"] = round(float(measured.weights[:, column].mean()), 3)
        facts["output_rms"] = round(float(np.sqrt((measured.points["out"].values ** 2).mean())), 3)
        return facts

    def words(self, s: Settings, measured: Measured) -> str:
        return said_of_gate(measured.weights, measured.branches)

    def draw(self, s: Settings, measured: Measured) -> Image.Image:
        canvas = Canvas(theme.WIDTH, HEIGHT)
        canvas.text((6, 6), self.block_name(s), theme.TITLE, bold=True)
        what = "root mean square over channels" if s.channel < 0 else f"channel {s.channel}"
        note = f"{what} of every token, each map on its own scale, bright is far from 0"
        canvas.text((6, 36), note + self.untrained_note(), theme.SMALL, theme.MUTED)
        lanes = {name: self._lane(s, name) for name in self.branches}
        draw_block(canvas, measured.points, self.source(s), lanes, measured.weights)
        return canvas.image

    def _lane(self, s: Settings, branch: str) -> str:
        """What a branch of the chosen block does, in a few words."""
        module = getattr(self.hire_module(s), branch)
        if not isinstance(module, AxisBranch):
            return "one linear layer on every token by itself"
        if module.cross_region == "shuffle" and module.shift:
            moved = "shuffle"
        elif module.cross_region == "none" or not module.shift:
            moved = "no shift"
        else:
            moved = f"shift by {module.shift}"
        back = "put back" if module.restore else "not put back"
        return f"{moved}, cut into regions of {module.region}, mix, {back}"

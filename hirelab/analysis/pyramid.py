"""What the stages of a Hire-MLP make of an image of any size: grids, regions and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._shared.checks import check_img_size
from .._shared.tables import table
from ..models.factory import skeleton
from ..models.hire_mlp import ConvNormAct, HireMLP, blocks_of, stages_of
from ..models.wiring import convolution_size, strides_of
from ..rearrange import EMPTY, Rearrangement
from ..results import Result


@dataclass(frozen=True, eq=False)
class Pyramid(Result):
    """What the stages of a Hire-MLP make of an image: grids, regions and padding.

    Attributes:
        network: the name that it was asked for by, or its class.
        img_size: (height, width) of the image, in pixels.
        dims: (stages,) channels.
        grids: (stages, 2) rows and columns of tokens.
        reduction: (stages,) pixels from one token to the next.
        region: (stages, 2) tokens in a region, along height and along width; 0 without a branch.
        padding: how the last region is filled, one for each stage.
    """

    network: str
    img_size: tuple[int, int]
    dims: np.ndarray
    grids: np.ndarray
    reduction: np.ndarray
    region: np.ndarray
    padding: list[str]

    def rearrangement(self, stage: int, axis: int, shift: int = 0) -> Rearrangement:
        """The index map of a stage (from 0) along height (0) or width (1)."""
        size, region = int(self.grids[stage, axis]), int(self.region[stage, axis])
        return Rearrangement(size, region or 1, shift, self.padding[stage])

    @property
    def padded(self) -> np.ndarray:
        """(stages, 2) padded slots at the end of a line, along height and along width."""
        stages = range(len(self.dims))
        return np.array([[self.rearrangement(i, axis).pad for axis in (0, 1)] for i in stages])

    def __repr__(self) -> str:
        height, width = self.img_size
        title = f"{self.network}, {height} x {width} pixels; the last region before any shift, "
        rows: list[tuple[object, ...]] = [
            ("stage", "channels", "tokens", "along height", "along width")
        ]
        rows += [
            (i, dim, f"{h} x {w}", self._last(i, 0), self._last(i, 1))
            for i, (dim, (h, w)) in enumerate(zip(self.dims, self.grids, strict=True))
        ]
        return f"{title}padded slots in brackets\n{table(rows, 'lrrl')}"

    def _last(self, stage: int, axis: int) -> str:
        if not self.region[stage, axis]:
            return "no branch"
        line = self.rearrangement(stage, axis)
        slots = [
            f"[{'zero' if token == EMPTY else token}]" if padded else str(token)
            for token, padded in zip(line.slots[-1], line.padded[-1], strict=True)
        ]
        return f"{line.regions} of {line.region}, last: {' '.join(slots)}"

    def plot(self):
        """The stages' grids, cut into regions, over the image: a `hirelab.viz.canvas.Figure`."""
        from ..viz import charts

        return charts.feature_pyramid(
            self.img_size, self.dims, self.grids, self.reduction, self.region, self.padded
        )


def pyramid(
    network: str | HireMLP = "hire_mlp_tiny", img_size: Sequence[int] | int = 224
) -> Pyramid:
    """The grids that a Hire-MLP makes of an image of any size, and how regions cut them.

    Args:
        network: a name of `hirelab.model_names`, or a network.
        img_size: (height, width) of the image in pixels, or one number for a square.

    Raises:
        HirelabError: for a network that is no Hire-MLP, an unknown name, or an impossible size.
    """
    name, model = skeleton(network)
    size = check_img_size(img_size)
    regions, paddings = [], []
    for stage in stages_of(model):
        hire = blocks_of(stage)[0].hire
        branches = (hire.height, hire.width)
        regions.append([b.region if b is not None else 0 for b in branches])
        paddings.append(next((b.padding for b in branches if b is not None), "circular"))
    return Pyramid(
        name,
        size,
        np.array([info["num_chs"] for info in model.feature_info]),
        np.array(stage_grids(model, size)),
        np.array([info["reduction"] for info in model.feature_info]),
        np.array(regions),
        paddings,
    )


def stage_grids(model: HireMLP, img_size: Sequence[int]) -> list[tuple[int, int]]:
    """(rows, columns) of tokens in every stage, for an image of (height, width) pixels."""
    height, width = img_size
    found = []
    for i, stage in enumerate(stages_of(model)):
        module = stage.downsample if i else model.stem
        if isinstance(module, ConvNormAct):
            down, across = strides_of(module)
            height, width = convolution_size(height, *down), convolution_size(width, *across)
        found.append((height, width))
    return found

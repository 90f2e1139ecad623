"""How a receptive field grows from block to block, beside what the index maps allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from .._shared.checks import check_choice
from .._shared.errors import HirelabError
from .._shared.tables import table
from ..models.hire_mlp import HireMLP, blocks_of, stages_of
from ..results import Result
from .fields import GRADIENTS
from .provenance import provenance
from .receptive_field import receptive_field

if TYPE_CHECKING:
    from ..viz.figures import Figure

PATHS = ("spatial", "shift off")  # through a gate everything reaches everything


@dataclass(frozen=True, eq=False, repr=False)
class FieldGrowth(Result):
    """The receptive field of the middle token after every block.

    Attributes:
        points: the blocks, in order.
        maps: (points, H, W) gradients as `ReceptiveField.map`.
        possible: (points, H, W) bool, the pixels that can reach the token, from the index maps.
        centres: (points, 2) middle of the token's cell in pixels, down and right.
        half, most: (points,) sides in pixels of the squares with 50 % and 99 % of the mass.
    """

    points: list[str]
    maps: np.ndarray
    possible: np.ndarray
    centres: np.ndarray
    half: np.ndarray
    most: np.ndarray

    @property
    def reachable(self) -> np.ndarray:
        """(points,) share of the pixels that can reach the token, 0..1."""
        return self.possible.mean(axis=(1, 2))

    @property
    def outside(self) -> np.ndarray:
        """(points,) mass at pixels that cannot reach the token: zero, if all is right."""
        return np.where(self.possible, 0, self.maps).sum(axis=(1, 2))

    def plot(self) -> Figure:
        """The maps side by side, with the border of what can reach the token."""
        from ..viz.field import fields_figure

        panels = list(
            zip(self.points, self.maps, self.centres, self.half, self.possible, strict=True)
        )
        return fields_figure(panels, GRADIENTS["abs"], repr(self))

    def __repr__(self) -> str:
        ends = f"{self.points[0]} to {self.points[-1]}"
        return f"{ends}: half of the mass within {self.half[0]:g} to {self.half[-1]:g} px"

    def __str__(self) -> str:
        """A line for each block."""
        rows = [["", "reachable", "half within", "99% within", "outside the border"]]
        rows += [
            [point, f"{100 * share:.0f} % of all", f"{half:g} px", f"{most:g} px", f"{out:g}"]
            for point, share, half, most, out in zip(
                self.points, self.reachable, self.half, self.most, self.outside, strict=True
            )
        ]
        return table(rows, "lr")


def field_growth(model: nn.Module, x: Tensor, paths: str = "spatial") -> FieldGrowth:
    """Measure the receptive field of the middle token after every block of a Hire-MLP.

    Args:
        model: a Hire-MLP.
        x: (N, C, H, W) images, averaged over.
        paths: one of `PATHS`, without the gate, through which everything reaches everything.

    Raises:
        HirelabError: for another network or other paths, and as `receptive_field`.
    """
    check_choice("paths", paths, PATHS)
    if not isinstance(model, HireMLP):
        raise HirelabError(
            f"{type(model).__name__} is no Hire-MLP and has no index maps; measure its modules one "
            "by one, by receptive_field."
        )
    points = [
        f"stages.{i}.blocks.{j}"
        for i, stage in enumerate(stages_of(model))
        for j in range(len(blocks_of(stage)))
    ]
    fields = [receptive_field(model, x, point, paths=paths) for point in points]
    size = (x.shape[2], x.shape[3])
    possible = [
        provenance(model, field.position, point, paths, size).pixels
        for point, field in zip(points, fields, strict=True)
    ]
    half, most = np.array([field.side(0.5, 0.99) for field in fields]).T
    return FieldGrowth(
        points,
        np.array([field.map for field in fields]),
        np.array(possible),
        np.array([field.centre for field in fields]),
        half,
        most,
    )

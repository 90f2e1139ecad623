"""How the cost of networks grows with the image, counted alike for any network of timm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from .._shared.checks import MOST_PIXELS, check_whole
from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..results import Result
from .cost import macs_by_module

SIDES = (192, 224, 320, 384, 448, 640, 768, 1024)


@dataclass(frozen=True, eq=False)
class CostGrowth(Records, Result):
    """What networks cost on square images of several sizes; prints as a table.

    Attributes:
        networks: names, as timm knows them.
        sides: (sizes,) of the images, in pixels.
        params: (networks, sizes) parameters; they change where a network is built for one size.
        macs: (networks, sizes) multiply-adds for one image.
        products: (networks, sizes) those among them that multiply no weight: the products of
            tokens with tokens of an attention.
        fixed: for each network, whether it is built for one size and takes no other.
    """

    networks: list[str]
    sides: np.ndarray
    params: np.ndarray
    macs: np.ndarray
    products: np.ndarray
    fixed: list[bool]

    @property
    def per_pixel(self) -> np.ndarray:
        """(networks, sizes) multiply-adds per pixel: the same everywhere if cost is linear."""
        return self.macs / self.sides**2

    def factor(self, network: str, small: int, large: int) -> float:
        """How many times the multiply-adds of an image of side ``small`` one of ``large`` costs.

        Raises:
            HirelabError: for a network or a side that was not counted.
        """
        sides = self.sides.tolist()
        if network not in self.networks or small not in sides or large not in sides:
            raise HirelabError(
                f"{network!r} from {small} to {large} pixels was not counted; there are "
                f"{', '.join(self.networks)} at {', '.join(map(str, sides))}."
            )
        row = self.macs[self.networks.index(network)]
        return float(row[sides.index(large)] / row[sides.index(small)])

    def records(self) -> list[dict[str, Any]]:
        """A row for each network and size."""
        return [
            {
                "network": name,
                "side": int(side),
                "params": int(self.params[i, j]),
                "macs": int(self.macs[i, j]),
                "products": int(self.products[i, j]),
                "fixed": bool(self.fixed[i]),
            }
            for i, name in enumerate(self.networks)
            for j, side in enumerate(self.sides)
        ]

    def __repr__(self) -> str:
        lines: list[tuple[object, ...]] = [("network", "counted", *self.sides)]
        for i, name in enumerate(self.networks):
            rows = [
                ("G multiply-adds", self.macs[i] / 1e9, ".1f"),
                ("k per pixel", self.per_pixel[i] / 1e3, ".1f"),
                ("tokens x tokens, %", 100 * self.products[i] / self.macs[i], ".0f"),
                ("M parameters", self.params[i] / 1e6, ".2f"),
            ]
            if not self.products[i].any():
                del rows[2]
            for first, (what, values, form) in enumerate(rows):
                lines.append(("" if first else name, what, *(f"{v:{form}}" for v in values)))
        rebuilt = [name for name, fixed in zip(self.networks, self.fixed, strict=True) if fixed]
        note = f"\nRebuilt for every size: {', '.join(rebuilt)}." if rebuilt else ""
        return f"Square images, side in pixels\n{table(lines, 'llr')}{note}"

    def plot(self):
        """Cost of an image, and of a pixel, against size, a `hirelab.viz.canvas.Figure`."""
        from ..viz import charts

        return charts.cost_growth(self.networks, self.sides, self.macs)


def cost_growth(
    networks: Sequence[str] = ("hire_mlp_small", "deit_small_patch16_224", "mixer_s16_224"),
    sides: Sequence[int] = SIDES,
) -> CostGrowth:
    """Count any networks of timm on square images, all with the same counter.

    A network that timm marks as built for one input size is built anew for every side.

    Raises:
        HirelabError: for no network or no side, or a side that is no whole number of pixels.
        RuntimeError: timm's, for a network that it does not know.
    """
    if isinstance(networks, str) or not len(networks) or not len(sides):
        raise HirelabError(
            f"networks is {networks!r} and sides {sides!r}; give a list of at least one of each."
        )
    sides = [check_whole("side", side, 3, MOST_PIXELS, "pixels") for side in sides]
    counts, fixed = [], []
    for name in networks:
        cfg = timm.get_pretrained_cfg(name)
        fixed.append(bool(cfg and cfg.fixed_input_size))
        model = None if fixed[-1] else _build(name)
        counts.append([_count(model or _build(name, img_size=side), side) for side in sides])
    params, macs, products = np.moveaxis(np.array(counts), -1, 0)
    return CostGrowth(list(networks), np.array(sides), params, macs, products, fixed)


def _build(name: str, **kwargs: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **kwargs).eval()


def _count(model: nn.Module, side: int) -> tuple[int, int, int]:
    """Parameters, multiply-adds, and those of them that multiply no weight."""
    macs = macs_by_module(model, torch.empty((1, 3, side, side), device="meta"))
    weighted = sum(
        macs.get(path, 0)
        for path, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    )
    return sum(p.numel() for p in model.parameters()), macs[""], macs[""] - weighted

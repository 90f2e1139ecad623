"""A Hire-MLP that takes its rearrangement as inputs, so that one exported file serves every one.

Shift, padding, cross-region mode and restore have no weights: along one axis they are two index
maps (`rearrange`), which say the token of each slot and the slot of each token. Where the maps come
from outside, whoever runs the file moves the rearrangement, without PyTorch and in any language:

    session.run(None, {"pixels": x, **index_maps(model, img_size)})   # as `model` is set now
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..hooks.forward import eval_mode
from ..hooks.points import match
from ..rearrange import EMPTY, Rearrangement, partition, unpartition
from .hire_mlp import AxisBranch, Gate, HireMLP

__all__ = ["RearrangeableHireMLP", "describe", "index_maps", "rearrangements"]

MAPS = ("slots", "landing")  # of each branch, as in `Rearrangement`


class IndexedAxis(nn.Module):
    """An `AxisBranch` that moves tokens by the index maps that ``maps`` holds during a pass.

    slots: int64 (regions * region,), the token in each slot, `EMPTY` for zero padding.
    landing: int64 (size,), the slot that each token of the result is read from.
    """

    def __init__(self, branch: AxisBranch) -> None:
        super().__init__()
        self.dim, self.region = branch.dim, branch.region
        self.regions, self.mix, self.mixed = branch.regions, branch.mix, branch.mixed
        self.out = branch.out
        self.maps: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.maps is not None
        slots, landing = self.maps
        size = x.shape[self.dim]
        # one more token, of zeros, at the end of the line: the one that EMPTY means
        line = F.pad(x, [0, 1] if self.dim == 3 else [0, 0, 0, 1])
        line = line.index_select(self.dim, torch.where(slots == EMPTY, size, slots))
        y = self.mixed(self.mix(self.regions(partition(line, self.dim, self.region))))
        y = unpartition(y, self.dim, self.region, len(slots))
        return self.out(y.index_select(self.dim, landing))


class RearrangeableHireMLP(nn.Module):
    """The function of a `HireMLP` in evaluation mode, of pixels and index maps.

    ``forward(pixels, *maps)`` takes a slot map and a landing map for every branch, in the order of
    ``map_names``, and returns the logits and then the points, in the order of ``point_names``.
    The norms are not folded into the weights (as `deploy` does), so that these stay the numbers of
    the checkpoint, in half the bytes where they are half-precision ones; a runtime folds by itself.

    Args:
        model: left as it is; the copy shares no memory with it.
        points: names or patterns of points to return, see `hooks.points.match`; ``shifted`` is
            none here, since a gather shifts, pads and cuts at once.

    Raises:
        HirelabError: for something else than a Hire-MLP, or one that rearranges nothing.
        UnknownPoint: for a pattern that means nothing.
    """

    def __init__(self, model: HireMLP, points: Iterable[str] | None = None) -> None:
        super().__init__()
        branches = _branches(model)
        network = deepcopy(model).eval().requires_grad_(False)
        self._indexed = []
        for name, branch in network.axis_branches().items():
            parent, _, axis = name.rpartition(".")
            self._indexed.append(IndexedAxis(branch))
            setattr(network.get_submodule(parent), axis, self._indexed[-1])
        self.network = network
        self.map_names = [f"{name}.{kind}" for name in branches for kind in MAPS]
        self.point_names = match(network, default_points(network) if points is None else points)
        self._kept: dict[str, Tensor] = {}
        for name in self.point_names:
            network.get_submodule(name).register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            self._kept[name] = output

        return keep

    def forward(self, pixels: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        for branch, slots, landing in zip(self._indexed, maps[::2], maps[1::2], strict=True):
            branch.maps = slots, landing
        try:
            logits = self.network(pixels)
            return logits, *(self._kept[name] for name in self.point_names)
        finally:
            self._kept.clear()
            for branch in self._indexed:
                branch.maps = None


def default_points(model: nn.Module) -> list[str]:
    """The outputs of the stages, and the shares of the gates where there are gates."""
    gates = [f"{name}.out" for name, module in model.named_modules() if isinstance(module, Gate)]
    return ["stages.?.out", *gates]


def rearrangements(model: HireMLP, img_size: int) -> dict[str, Rearrangement]:
    """The current rearrangement of every branch, by its path, for square images of that side.

    Raises:
        HirelabError: for something else than a Hire-MLP, or one that rearranges nothing.
    """
    names = list(_branches(model))
    like = model.stem.conv.weight
    x = torch.zeros(1, model.in_chans, img_size, img_size, dtype=like.dtype, device=like.device)
    with eval_mode(model):
        _, cache = model.run_with_cache(x, [f"{name}.out" for name in names])
    found = {name: cache.point(name).rearrangement for name in names}
    return {name: r for name, r in found.items() if r is not None}


def index_maps(model: HireMLP, img_size: int) -> dict[str, np.ndarray]:
    """The inputs of the exported network beside its pixels, as ``model`` is set now, int64.

    After `HireMLP.set_rearrangement`, or a change at a single branch, they are others.
    """
    maps = {}
    for name, r in rearrangements(model, img_size).items():
        maps[f"{name}.slots"] = r.slots.ravel().astype(np.int64)
        maps[f"{name}.landing"] = r.landing.astype(np.int64)
    return maps


def describe(model: HireMLP, img_size: int) -> dict[str, Any]:
    """What a program needs to drive the exported network, as plain values that JSON can hold.

    Returns:
        ``img_size``, ``mean``, ``std`` and ``label_names`` of the images and classes (no names
        where none are known); ``shift_cycle``: block j of stage i shifts by
        ``(j % shift_cycle[i])`` times the stage's shift; ``branches``: for every branch its name,
        stage, block, axis, and its current rearrangement, field by field (see `Rearrangement`);
        ``gates``: for every gate, the branch of each column.
    """
    cfg = getattr(model, "pretrained_cfg", None) or {}
    branches = []
    for name, r in rearrangements(model, img_size).items():
        _, stage, _, block, _, axis = name.split(".")
        place = {"name": name, "stage": int(stage), "block": int(block), "axis": axis}
        branches.append({**place, **asdict(r)})
    gates = {
        f"{name}.out": list(module.branches)
        for name, module in model.named_modules()
        if isinstance(module, Gate)
    }
    return {
        "img_size": img_size,
        "mean": list(cfg.get("mean", ())),
        "std": list(cfg.get("std", ())),
        "label_names": list(cfg.get("label_names", ())),
        "shift_cycle": list(model.shift_cycle),
        "branches": branches,
        "gates": gates,
    }


def _branches(model: HireMLP) -> dict[str, AxisBranch]:
    if not isinstance(model, HireMLP):
        raise HirelabError(
            f"The rearrangement is an input of a HireMLP; this is a {type(model).__name__}: give a "
            "network of hirelab.create."
        )
    if not (branches := model.axis_branches()):
        raise HirelabError(
            "This network has no height and no width branch, so there is no rearrangement to be an "
            "input; export it without --rearrangeable."
        )
    return branches

"""Effective receptive field: how much each pixel moves a point of a network, by its gradient.

After Luo et al. 2016 (`Understanding the effective receptive field in deep convolutional neural
networks`, https://arxiv.org/abs/1701.04128): the gradient, to the pixels, of a point's activations
at one position, summed over channels. Works for any network with a module of that name; the split
by path is for Hire-MLP, whose gate averages over the map and so makes every full field global.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._shared.checks import check_choice, check_position, check_whole
from .._shared.errors import HirelabError
from ..hooks.forward import check_images, eval_mode, is_trained, model_name
from ..hooks.layouts import PointMap, default_point, reading
from ..hooks.points import EditFunction, Point, edits, probes
from ..models.hire_mlp import BRANCHES, AxisBranch
from .fields import GRADIENTS, ReceptiveField, cell_middle, half_around_centroid, masses
from .paths import PATHS

OUTPUTS = ("all", "positive")
POSITIONS = ("centre", "corner", "top edge", "left edge")
_TAKEN = {"abs": torch.abs, "square": torch.square, "relu": torch.relu}


def receptive_field(
    model: nn.Module,
    x: Tensor,
    point: str | None = None,
    position: str | Sequence[int] = "centre",
    paths: str = "full",
    gradient: str = "abs",
    *,
    outputs: str = "all",
    batch_size: int = 16,
    dtype: torch.dtype | None = None,
    layout: str | None = None,
    grid: Sequence[int] | None = None,
    call: int | None = None,
) -> ReceptiveField:
    """Measure how much each pixel moves a point at one position, averaged over images.

    One backward pass serves a batch: in evaluation mode images do not mix, so the gradient of the
    sum over images holds the gradient of each. Nothing is computed for the parameters. The
    network is left as it was, also after an error.

    Args:
        model: any network of images; it is measured in evaluation mode.
        x: (N, C, H, W) images, finite.
        point: path of a module or a probe; ``"stages.3"`` means its probe ``"stages.3.out"``. A
            point inside a region is first carried back to places. The network's last map for None.
        position: (row, column) on the point's map, or one of `POSITIONS`; the centre of an even
            number is the later half's first.
        paths: how the gradient may travel, one of `PATHS`; values stay the network's own. "full":
            every way. For Hire-MLP also "spatial": not through the gate; "height", "width",
            "channel": through this branch only, and not the gate; "shift off": as spatial, of the
            same weights with every shift set to 0.
        gradient: what is taken of it before the sum over colours: "abs", "square" or "relu", its
            positive part.
        outputs: "all" sums the activations at the position over channels, "positive" the positive
            ones (the usual recipe, with ``gradient="relu"``). Right after a LayerNorm the sum of
            all is constant, and only "positive" means something.
        batch_size: at most so many images in one pass.
        dtype: torch.float32 or torch.float64, whatever the network's own is, for this measurement;
            by default the network's own, and float32 for one of half precision, whose gradients
            are too coarse.
        layout, grid, call: how the point's tensor is laid and which call to read, where that cannot
            be worked out, see `hirelab.hooks.layouts.reading`.

    Raises:
        UnknownPoint: for a point that does not exist, with near names.
        HirelabError: for what cannot be measured, in one sentence with its cure.
    """
    check_choice("paths", paths, PATHS)
    check_choice("gradient", gradient, GRADIENTS)
    check_choice("outputs", outputs, OUTPUTS)
    batch_size = check_whole("batch_size", batch_size, 1, unit="images")
    x = check_images(x)
    point = default_point(model) if point is None else point
    state = itertools.chain(model.parameters(), model.buffers())
    like = next((t for t in state if t.is_floating_point()), x)
    precise = _precision(like.dtype, dtype)
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        batch_size = 1  # norms by the batch's own statistics mix its images
    size = (x.shape[2], x.shape[3])
    total, within, wrapped, halves = np.zeros(size), [], [], []
    trained = is_trained(model).trained
    with (
        _measuring(model, like.device, precise, paths),
        reading(model, point, layout, grid, call) as point_map,
    ):
        for start in range(0, len(x), batch_size):
            # a tensor of its own, as the caller's may be one of inference mode
            part = x.detach()[start : start + batch_size].to(like.device, precise, copy=True)
            place, found = _pixel_gradient(point_map, part, position, outputs, paths, start)
            for one in _TAKEN[gradient](found).sum(1).double().cpu().numpy():
                mass, beyond = masses(one, cell_middle(place, point_map.grid, size))
                total += one
                within.append(mass)
                wrapped.append(beyond)
                halves.append(half_around_centroid(one))
    if total.sum() == 0:
        raise HirelabError(
            f"The gradient of {point_map.name} at {place} is zero for every image: what it reads "
            "is dead (say, behind a ReLU), or cut; choose another position or point."
        )
    return ReceptiveField(
        map=total / len(x),
        mass_within=np.array(within),
        wrapped_mass=np.array(wrapped),
        centroid_sides=np.array(halves),
        network=model_name(model),
        point=point_map.name,
        position=list(place),
        grid=list(point_map.grid),
        paths=paths,
        gradient=gradient,
        outputs=outputs,
        layout=point_map.layout or "NCHW",
        dtype=str(precise).removeprefix("torch."),
        trained=trained,
    )


def _pixel_gradient(
    point_map: PointMap,
    pixels: Tensor,
    position: str | Sequence[int],
    outputs: str,
    paths: str,
    start: int,
) -> tuple[tuple[int, int], Tensor]:
    """The (row, column) that is meant, and (B, C, H, W) the gradient of its activations' sum.

    Images count from ``start`` in messages.
    """
    pixels.requires_grad_()
    # a copy, as a network may begin in place, which leaves of the graph forbid
    seen = point_map.read(pixels.clone())
    row, column = _place(position, point_map.name, point_map.grid)
    value = seen[:, :, row, column]
    found = _gradient(value.relu() if outputs == "positive" else value, pixels, point_map.name)
    if found is None:
        raise HirelabError(
            f"{point_map.name} has no gradient to the image with paths={paths!r}: nothing leads "
            "there that can be differentiated, or the paths are cut; choose another point or paths."
        )
    if outputs == "all" and start == 0:
        _warn_of_constant(seen.detach(), point_map.name)
    if not found.isfinite().all():
        bad = (~found.isfinite()).flatten(1).any(1).nonzero().flatten() + start
        raise HirelabError(
            f"The gradient of {point_map.name} is not finite for images {bad.tolist()}; leave them "
            "out, or compute with dtype=torch.float64."
        )
    return (row, column), found


def _precision(own: torch.dtype, asked: torch.dtype | None) -> torch.dtype:
    exact = (torch.float32, torch.float64)
    if asked is not None and asked not in exact:
        raise HirelabError(
            f"dtype is {asked}; its gradients are too coarse: give float32 or float64."
        )
    return asked or (own if own in exact else torch.float32)


def _gradient(value: Tensor, pixels: Tensor, name: str) -> Tensor | None:
    """The gradient of the value's sum to the pixels, or None where nothing leads there."""
    if not value.requires_grad:
        return None
    try:
        return torch.autograd.grad(value.sum(), pixels, allow_unused=True)[0]
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise HirelabError(
            f"On the way to {name} the network changes in place what its gradient needs: build it "
            "with inplace=False, or choose an earlier point."
        ) from error


def _warn_of_constant(seen: Tensor, name: str) -> None:
    """Say when the sum over channels is the same everywhere, as after a LayerNorm."""
    sums = seen.sum(1)
    size = seen.abs().sum(1).mean()
    if sums.numel() > 1 and size > 0 and sums.max() - sums.min() < 1e-5 * size:
        warnings.warn(
            f"The sum over the channels of {name} is the same everywhere, as a LayerNorm makes it; "
            "its gradient is rounding error. Measure with outputs='positive', or before the norm.",
            stacklevel=4,
        )


def _place(position: str | Sequence[int], name: str, grid: Sequence[int]) -> tuple[int, int]:
    """The position as (row, column).

    Raises:
        HirelabError: for one that the map does not have.
    """
    if not isinstance(position, str):
        return check_position(position, grid, name, "positions")
    check_choice("position", position, POSITIONS)
    row = 0 if position in ("corner", "top edge") else grid[0] // 2
    return row, 0 if position in ("corner", "left edge") else grid[1] // 2


# ------------------------------------------------------------------ the network, as it is measured


@contextmanager
def _measuring(
    model: nn.Module, device: torch.device, dtype: torch.dtype, paths: str
) -> Iterator[None]:
    """Evaluation mode, a precision, open paths, and gradients whatever the caller's mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(eval_mode(model))
        stack.enter_context(_cast(model, dtype))
        stack.enter_context(_restrict_paths(model, paths))
        yield


@contextmanager
def _cast(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """With parameters of a precision that ask for no gradients; the network's own afterwards.

    Not `torch.func.functional_call`: it leaves its tensors behind where a module is registered
    under two names.
    """
    own: list[tuple[Any, str, Tensor]] = []
    try:
        for module in model.modules():
            stores: tuple[Any, ...] = (module._parameters, module._buffers)
            for store in stores:
                for name, tensor in store.items():
                    if tensor is not None:
                        own.append((store, name, tensor))
                        exact = tensor.detach()
                        store[name] = exact.to(dtype) if exact.is_floating_point() else exact
        yield
    finally:
        for store, name, tensor in own:
            store[name] = tensor


@contextmanager
def _restrict_paths(model: nn.Module, paths: str) -> Iterator[None]:
    """Let gradients travel by these paths only; everything as it was afterwards."""
    chosen = PATHS[paths]
    if not chosen.cut:
        yield
        return
    known = probes(model)

    def ends(part: str) -> list[str]:
        return [n for n in known if f".{n}".endswith(f".hire.{part}.out")]

    if not any(f".{n}".endswith(".hire.fused") for n in known):
        raise HirelabError(
            f"{type(model).__name__} is no Hire-MLP and has no branches to tell apart; measure it "
            "with paths='full'."
        )
    if paths in BRANCHES and not ends(paths):
        raise HirelabError(f"The network was built without {paths} branches; choose other paths.")
    branches = [m for m in model.modules() if isinstance(m, AxisBranch)]
    if chosen.shift_off and not branches and (ends("height") or ends("width")):
        raise HirelabError(
            "A deployed network has its shifts built in; measure paths='shift off' on the network "
            "that it was made from."
        )
    shifts = [(branch, branch.shift) for branch in branches]
    cuts: dict[str, EditFunction] = {name: _cut for part in chosen.cut for name in ends(part)}
    try:
        if chosen.shift_off:
            for branch in branches:
                branch.shift = 0
        with edits(model, cuts):
            yield
    finally:
        for branch, shift in shifts:
            branch.shift = shift


def _cut(value: Tensor, point: Point) -> Tensor:
    """The same values, with no gradient through them."""
    return value.detach()

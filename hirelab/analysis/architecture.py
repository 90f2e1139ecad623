"""Whole networks on the scales: what their parts hold and do, how that grows with the image, and
what their stages make of an image of any size.

A multiply-add (MAC) is one product added to a sum, in a convolution or a matrix product; the paper
writes FLOPs for the same count. Norms, activations, pooling and the residual sums are not counted.
Everything is counted on PyTorch's meta device: tensors have shapes but no numbers.

For regions of h tokens, C channels and a map of H x W, the two layers of a height or width branch
hold h C^2 weights and do H W C^2 multiply-adds (paper section 3.4); `network_cost` sets this, and
the like for every other part, beside what it counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .. import paper
from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from ..models import create
from ..models.hire_mlp import HireMLP
from ..rearrange import EMPTY, Rearrangement
from ..results import Result

# Name of a part, and how the path of its modules begins inside a stage or a block.
PARTS = {
    "stem": "stem",
    "downsampling": "downsample",
    "norms": "norm",
    "height branch": "hire.height",
    "width branch": "hire.width",
    "channel branch": "hire.channel",
    "gate": "hire.gate",
    "projection": "hire.proj",
    "channel MLP": "mlp",
    "head": "head",
}
NETWORKS = tuple(f"hire_mlp_{s}" for s in ("atto", "pico", "tiny", "small", "base", "large"))
SIDES = (192, 224, 320, 384, 448, 640, 768, 1024)


# ------------------------------------------------------------------ parts


@dataclass(frozen=True, eq=False)
class NetworkCost(Result):
    """What the parts of a Hire-MLP hold, and do for one image; prints as a table.

    Attributes:
        network: the name that it was asked for by, or its class.
        input_size: (height, width) of the image, in pixels.
        parts: those of `PARTS` that the network has.
        params: (parts,) all parameters, biases and norms included.
        weights: (parts,) the numbers in the weights of convolutions and linear layers.
        macs: (parts,) multiply-adds, counted while the network ran.
        weights_formula, macs_formula: (parts,) the formulas, which know no bias, norm or padding.
    """

    network: str
    input_size: tuple[int, int]
    parts: list[str]
    params: np.ndarray
    weights: np.ndarray
    macs: np.ndarray
    weights_formula: np.ndarray
    macs_formula: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))  # JSON knows no tuples

    def share(self, part: str, of: str = "macs") -> float:
        """The part of the whole, 0 to 1, "macs" or "params"; 0 for a part that is not there."""
        values = getattr(self, of)
        return float(values[self.parts.index(part)] / values.sum()) if part in self.parts else 0.0

    @property
    def padding_share(self) -> float:
        """Multiply-adds beyond the formulas, as a share of them: what padded slots cost."""
        return float(self.macs.sum() / self.macs_formula.sum() - 1)

    def __repr__(self) -> str:
        height, width = self.input_size
        lines = [
            f"{self.network}, {height} x {width} pixels",
            f"{'':14}{'parameters':>21}{'multiply-adds':>24}{'/ formula:':>14}{'':8}",
            f"{'part':14}{'':45}{'weights':>14}{'MACs':>8}",
        ]
        rows = zip(self.parts, self.params, self.weights, self.macs, strict=True)
        formulas = zip(self.weights_formula, self.macs_formula, strict=True)
        for (part, params, weights, macs), (weights_rule, macs_rule) in zip(
            rows, formulas, strict=True
        ):
            ratios = [
                f"{counted / rule:.3f}" if rule else ""
                for counted, rule in ((weights, weights_rule), (macs, macs_rule))
            ]
            lines.append(
                f"{part:14}{params:>14,}{params / self.params.sum():>7.1%}"
                f"{macs:>17,}{macs / self.macs.sum():>7.1%}{ratios[0]:>14}{ratios[1]:>8}"
            )
        total = self.macs.sum() / self.macs_formula.sum()
        whole = self.weights.sum() / self.weights_formula.sum()
        lines.append(
            f"{'all':14}{self.params.sum():>14,}{'':7}{self.macs.sum():>17,}{'':7}"
            f"{whole:>14.3f}{total:>8.3f}"
        )
        return "\n".join(lines)


class _Rule(NamedTuple):
    weights: int = 0
    macs: int = 0


def network_cost(
    network: str | HireMLP, input_size: Sequence[int] | int = (224, 224)
) -> NetworkCost:
    """Count the parts of a Hire-MLP for one image.

    Args:
        network: a name of `hirelab.model_names`, or a network, which is left as it is.
        input_size: (height, width) of the image in pixels, or one number for a square.

    Raises:
        HirelabError: for a network that is no Hire-MLP, an unknown name, or an impossible size.
    """
    name, model = _meta(network)
    height, width = _input_size(input_size)
    counts = _counts(model, (model.in_chans, height, width))
    params, weights, macs = (dict.fromkeys(PARTS, 0) for _ in range(3))
    for path, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        part = _part(path)
        params[part] += sum(p.numel() for p in own)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weights[part] += module.weight.numel()
            macs[part] += counts.get(path, 0)
    rules = _formulas(model, height, width)
    there = [part for part in PARTS if params[part]]
    return NetworkCost(
        name,
        (height, width),
        there,
        *(np.array([values[part] for part in there]) for values in (params, weights, macs)),
        np.array([rules[part].weights for part in there]),
        np.array([rules[part].macs for part in there]),
    )


def _part(path: str) -> str:
    inner = re.sub(r"^stages\.\d+\.(blocks\.\d+\.)?|^stage_", "", path)
    return next(part for part, start in PARTS.items() if inner.startswith(start))


def _formulas(model: HireMLP, height: int, width: int) -> dict[str, _Rule]:
    """The rule of every part: weights of its layers, and multiply-adds, which are the weights times
    the places where they are used."""
    total: dict[str, list[int]] = {part: [0, 0] for part in PARTS}

    def add(part: str, weights: int, places: int) -> None:
        total[part][0] += weights
        total[part][1] += weights * places

    for i, (stage, (h, w)) in enumerate(
        zip(model.stages, stage_sizes(model, (height, width)), strict=True)
    ):
        dim = model.feature_info[i]["num_chs"]
        strided = model.stem.conv if i == 0 else stage.downsample.conv
        kernel = strided.kernel_size[0]
        add(
            "stem" if i == 0 else "downsampling",
            kernel**2 * strided.in_channels * dim,
            h * w,
        )
        for block in stage.blocks:
            for axis in ("height", "width"):
                branch = getattr(block.hire, axis)
                if branch is not None:  # h C^2 weights, each used once a region: not h w times
                    total[f"{axis} branch"][0] += branch.region * dim**2
                    total[f"{axis} branch"][1] += h * w * dim**2
            if block.hire.channel is not None:
                add("channel branch", dim**2, h * w)
            if block.hire.gate is not None:
                columns = len(block.hire.gate.branches)
                add("gate", dim * (dim // 4) * (1 + columns), 1)  # C^2 for three branches
                add("projection", dim**2, h * w)
            add("channel MLP", 2 * block.mlp.fc1.out_channels * dim, h * w)
    if model.num_classes:
        # pooled, the head is used once, else at every place of the last stage
        places = 1 if isinstance(model.head, nn.Linear) else h * w
        add("head", model.num_features * model.num_classes, places)
    return {part: _Rule(*values) for part, values in total.items()}


@dataclass(frozen=True, eq=False)
class Family(Result):
    """Several Hire-MLPs side by side, and the paper's published sizes; prints as a table.

    Attributes:
        networks: names.
        input_size: (height, width) of the image, in pixels.
        parts: of `PARTS`, those that any of the networks has.
        params, macs: (networks, parts).
    """

    networks: list[str]
    input_size: tuple[int, int]
    parts: list[str]
    params: np.ndarray
    macs: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))

    def published(self, version: str) -> dict[str, tuple[float, float]]:
        """{network: (millions of parameters, billions of multiply-adds)} by "v1" or "v2" of the
        paper, which counts at 224 x 224 pixels."""
        return {
            name.lower().replace("-", "_"): (float(params), float(macs))
            for name, params, macs, _ in paper.headline(version).rows
        }

    def __repr__(self) -> str:
        versions = [self.published(version) for version in ("v1", "v2")]
        lines = [
            f"{'':16}{'parameters, M':>13}{'paper v1':>10}{'v2':>5}"
            f"{'multiply-adds, G':>20}{'paper v1':>10}{'v2':>6}"
        ]
        for name, params, macs in zip(self.networks, self.params, self.macs, strict=True):
            stated = [v.get(name) for v in versions]
            sizes = [f"{s[0]:.0f}" if s else "-" for s in stated]
            costs = [f"{s[1]:.1f}" if s else "-" for s in stated]
            lines.append(
                f"{name:16}{params.sum() / 1e6:>13.2f}{sizes[0]:>10}{sizes[1]:>5}"
                f"{macs.sum() / 1e9:>20.2f}{costs[0]:>10}{costs[1]:>6}"
            )
        return "\n".join(lines)

    def plot(self):
        """Shares of parameters and multiply-adds as bars, a `hirelab.viz.canvas.Still`."""
        from ..viz import charts

        groups = {
            "stem, downsampling": ("stem", "downsampling"),
            "height and width branches": ("height branch", "width branch"),
            "channel branch": ("channel branch",),
            "gate, projection": ("gate", "projection"),
            "channel MLP": ("channel MLP",),
            "head, norms": ("head", "norms"),
        }
        columns = [[self.parts.index(p) for p in g if p in self.parts] for g in groups.values()]
        shares = [
            np.stack([values[:, c].sum(1) for c in columns], 1) / values.sum(1, keepdims=True)
            for values in (self.params, self.macs)
        ]
        return charts.cost_shares(self.networks, list(groups), *shares)


def family(
    networks: Sequence[str | HireMLP] = NETWORKS, input_size: Sequence[int] | int = (224, 224)
) -> Family:
    """`network_cost` of several networks, smallest first: the study sizes and the paper's four.

    Raises:
        HirelabError: as `network_cost`, and for no network at all.
    """
    if isinstance(networks, (str, nn.Module)) or not len(networks):
        raise HirelabError(f"networks is {networks!r}; give a list of at least one network.")
    costs = [network_cost(network, input_size) for network in networks]
    parts = [part for part in PARTS if any(part in cost.parts for cost in costs)]

    def table(of: str) -> np.ndarray:
        rows = [dict(zip(cost.parts, getattr(cost, of), strict=True)) for cost in costs]
        return np.array([[row.get(part, 0) for part in parts] for row in rows])

    return Family(
        [c.network for c in costs], costs[0].input_size, parts, table("params"), table("macs")
    )


# ------------------------------------------------------------------ growth


@dataclass(frozen=True, eq=False)
class CostGrowth(Result):
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
        """(networks, sizes) multiply-adds for a pixel: the same everywhere if cost is linear."""
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

    def __repr__(self) -> str:
        lines = [f"{'side, pixels':24}" + "".join(f"{side:>8}" for side in self.sides)]
        for i, name in enumerate(self.networks):
            rows = [
                ("G multiply-adds", self.macs[i] / 1e9, ".1f"),
                ("k a pixel", self.per_pixel[i] / 1e3, ".1f"),
                ("M parameters", self.params[i] / 1e6, ".2f"),
            ]
            if self.products[i].any():
                rows.insert(2, ("tokens x tokens, %", 100 * self.products[i] / self.macs[i], ".0f"))
            lines.append(name + (", rebuilt for every size" if self.fixed[i] else ""))
            lines += [
                f"  {what:22}" + "".join(f"{v:>8{form}}" for v in values)
                for what, values, form in rows
            ]
        return "\n".join(lines)

    def plot(self):
        """Cost of an image, and of a pixel, against size, a `hirelab.viz.canvas.Still`."""
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
    sides = [_input_size(side)[0] for side in sides]
    params, macs, products, fixed = [], [], [], []
    for name in networks:
        cfg = timm.get_pretrained_cfg(name)
        fixed.append(bool(cfg and cfg.fixed_input_size))
        model = None if fixed[-1] else _timm(name)
        rows = []
        for side in sides:
            built = model if model is not None else _timm(name, img_size=side)
            counts = _counts(built, (3, side, side))
            weighted = sum(
                counts.get(path, 0)
                for path, module in built.named_modules()
                if isinstance(module, (nn.Conv2d, nn.Linear))
            )
            size = sum(p.numel() for p in built.parameters())
            rows.append((size, counts[""], counts[""] - weighted))
        for values, column in zip((params, macs, products), zip(*rows, strict=True), strict=True):
            values.append(column)
    return CostGrowth(
        list(networks), np.array(sides), *map(np.array, (params, macs, products)), fixed
    )


# ------------------------------------------------------------------ the pyramid


@dataclass(frozen=True, eq=False)
class Pyramid(Result):
    """What the stages of a Hire-MLP make of an image: grids, regions and padding.

    Attributes:
        network: the name that it was asked for by, or its class.
        input_size: (height, width) of the image, in pixels.
        dims: (stages,) channels.
        sizes: (stages, 2) rows and columns of tokens.
        pixels: (stages,) pixels from one token to the next.
        region: (stages, 2) tokens in a region, along height and along width; 0 without a branch.
        padding: how the last region is filled, a stage.
    """

    network: str
    input_size: tuple[int, int]
    dims: np.ndarray
    sizes: np.ndarray
    pixels: np.ndarray
    region: np.ndarray
    padding: list[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))

    def rearrangement(self, stage: int, axis: int, shift: int = 0) -> Rearrangement:
        """The index map of a stage (from 0) along height (0) or width (1)."""
        size, region = int(self.sizes[stage, axis]), int(self.region[stage, axis])
        return Rearrangement(size, region or 1, shift, self.padding[stage])

    @property
    def padded(self) -> np.ndarray:
        """(stages, 2) padded slots at the end of a line, along height and along width."""
        stages = range(len(self.dims))
        return np.array([[self.rearrangement(i, axis).pad for axis in (0, 1)] for i in stages])

    def __repr__(self) -> str:
        height, width = self.input_size
        lines = [
            f"{self.network}, {height} x {width} pixels; the last region before any shift, "
            "padded slots in brackets",
            f"{'stage':7}{'channels':>8}{'tokens':>12}   {'along height':32}along width",
        ]
        for i, (dim, (h, w)) in enumerate(zip(self.dims, self.sizes, strict=True)):
            said = [self._last(i, axis) for axis in (0, 1)]
            lines.append(f"{i + 1:<7}{dim:>8}{f'{h} x {w}':>12}   {said[0]:32}{said[1]}")
        return "\n".join(lines)

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
        """The stages' grids, cut into regions, over the image: a `hirelab.viz.canvas.Still`."""
        from ..viz import charts

        return charts.feature_pyramid(
            self.input_size, self.dims, self.sizes, self.pixels, self.region, self.padded
        )


def pyramid(
    network: str | HireMLP = "hire_mlp_tiny", input_size: Sequence[int] | int = (224, 224)
) -> Pyramid:
    """The grids that a Hire-MLP makes of an image of any size, and how regions cut them.

    Args:
        network: a name of `hirelab.model_names`, or a network.
        input_size: (height, width) of the image in pixels, or one number for a square.

    Raises:
        HirelabError: for a network that is no Hire-MLP, an unknown name, or an impossible size.
    """
    name, model = _meta(network)
    size = _input_size(input_size)
    regions, paddings = [], []
    for stage in model.stages:
        hire = stage.blocks[0].hire
        branches = (hire.height, hire.width)
        regions.append([b.region if b is not None else 0 for b in branches])
        paddings.append(next((b.padding for b in branches if b is not None), "circular"))
    return Pyramid(
        name,
        size,
        np.array([info["num_chs"] for info in model.feature_info]),
        np.array(stage_sizes(model, size)),
        np.array([info["reduction"] for info in model.feature_info]),
        np.array(regions),
        paddings,
    )


def stage_sizes(model: HireMLP, input_size: Sequence[int]) -> list[tuple[int, int]]:
    """(rows, columns) of tokens in every stage, by the rule of strided convolutions.

    A convolution fits ``floor((size + 2 padding - kernel) / stride) + 1`` times.
    """
    size, found = tuple(input_size), []
    for i, stage in enumerate(model.stages):
        conv = model.stem.conv if i == 0 else stage.downsample.conv
        size = tuple(
            (n + 2 * pad - kernel) // stride + 1
            for n, pad, kernel, stride in zip(
                size, conv.padding, conv.kernel_size, conv.stride, strict=True
            )
        )
        found.append(size)
    return found


# ------------------------------------------------------------------ shared


def _meta(network: str | HireMLP) -> tuple[str, HireMLP]:
    """Name and a copy without numbers."""
    if isinstance(network, str):
        return network, _blank(network)
    if not isinstance(network, HireMLP):
        raise HirelabError(
            f"network is a {type(network).__name__}; give a Hire-MLP or the name of one "
            "(cost_growth counts any network of timm, without parts)."
        )
    return type(network).__name__, deepcopy(network).to("meta").eval()


@lru_cache(maxsize=16)
def _blank(name: str) -> HireMLP:
    """Built once: nothing here changes a network, and without numbers it takes no memory."""
    return create(name, device="meta")


def _input_size(size: Sequence[int] | int) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, (Sequence, np.ndarray)) else (size, size)
    if len(sides) != 2:
        raise HirelabError(
            f"input_size is {size!r}; give (height, width) in pixels, or one number."
        )
    height, width = (check_whole("input_size", side) for side in sides)
    if min(height, width) < 3:
        raise HirelabError(
            f"input_size is {height} x {width} pixels; the stem needs at least 3 x 3."
        )
    return height, width


def _timm(name: str, **kwargs: int) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **kwargs).eval()


def _counts(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Multiply-adds of every module by its path ("" for the whole), for one input (C, H, W).

    By PyTorch's own counter, which counts an add and a multiply as two.
    """
    x = torch.empty((1, *shape), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    root = type(model).__name__
    found = {
        path.removeprefix(root).removeprefix("."): sum(operations.values()) // 2
        for path, operations in counter.get_flop_counts().items()
        if path != "Global"
    }
    found[""] = counter.get_total_flops() // 2
    return found

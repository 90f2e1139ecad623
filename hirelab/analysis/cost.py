"""What the parts of a network hold and do, counted on the built layers, beside the formulas.

A multiply-add (MAC) is one product added to a sum, in a convolution or a matrix product; the paper
writes FLOPs for the same count. Norms, activations, pooling and the residual sums are not counted.
Everything is counted on PyTorch's meta device: tensors have shapes but no numbers.

`branch_cost` counts one branch, `block_parts` one block, `network_cost` a whole Hire-MLP, `family`
several; `hirelab.analysis.cost_growth` counts any network of timm on images of several sizes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .. import paper
from .._shared.checks import check_img_size, check_whole
from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..models.factory import skeleton
from ..models.hire_mlp import AxisBranch, ConvNormAct, HireMLP, blocks_of, stages_of
from ..results import Result
from .pyramid import stage_grids

# Name of a part, and how the path of its modules begins inside a network, a stage or a block.
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


# ------------------------------------------------------------------ counting


def macs_by_module(module: nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Multiply-adds on ``x`` of every module inside, by its path; "" for the whole.

    By PyTorch's own counter, which counts an add and a multiply as two.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    root = type(module).__name__
    found = {
        path.removeprefix(root).removeprefix("."): sum(operations.values()) // 2
        for path, operations in counter.get_flop_counts().items()
        if path != "Global"
    }
    found[""] = counter.get_total_flops() // 2
    return found


def count_macs(module: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds of a module's convolutions and matrix products on ``x``."""
    return macs_by_module(module, x)[""]


@dataclass(frozen=True)
class _Count:
    """Of one part: all parameters, those in weights of its layers, multiply-adds."""

    params: int = 0
    weights: int = 0
    macs: int = 0


def _count_parts(module: nn.Module, x: torch.Tensor) -> dict[str, _Count]:
    """The count of each of `PARTS` that a network or a block has, in that order."""
    done = macs_by_module(module, x)
    found: dict[str, _Count] = {}
    for path, layer in module.named_modules():
        params = sum(p.numel() for p in layer.parameters(recurse=False))
        if not params:
            continue
        weighted = isinstance(layer, (nn.Conv2d, nn.Linear))
        inner = re.sub(r"^stages\.\d+\.(blocks\.\d+\.)?|^stage_", "", path)
        part = next(part for part, start in PARTS.items() if inner.startswith(start))
        before = found.get(part, _Count())
        found[part] = _Count(
            before.params + params,
            before.weights + (layer.weight.numel() if weighted else 0),
            before.macs + (done.get(path, 0) if weighted else 0),
        )
    return {part: found[part] for part in PARTS if part in found}


# ------------------------------------------------------------------ formulas


def _branch_formula(dim: int, region: int, tokens: int) -> tuple[int, int]:
    """Weights and multiply-adds of a height or width branch (paper section 3.4).

    With a bottleneck of C/2 channels its two layers hold ``hC * C/2 + C/2 * hC = h C^2`` weights,
    and use every one of them once for each of the ``H/h * W`` regions: ``H W C^2`` multiply-adds,
    whatever the region.
    """
    return region * dim**2, tokens * dim**2


def _formulas(model: HireMLP, img_size: tuple[int, int]) -> Iterator[tuple[str, int, int]]:
    """(part, weights, multiply-adds) of everything in a network that has weights.

    But for the branches, multiply-adds are the weights times the places where they are used.
    """
    places = 1
    for i, (stage, (h, w)) in enumerate(
        zip(stages_of(model), stage_grids(model, img_size), strict=True)
    ):
        dim, places = model.feature_info[i]["num_chs"], h * w
        strided = stage.downsample if i else model.stem
        if isinstance(strided, ConvNormAct):
            conv = strided.conv
            weights = conv.kernel_size[0] * conv.kernel_size[1] * conv.in_channels * dim
            yield "downsampling" if i else "stem", weights, weights * places
        for block in blocks_of(stage):
            hire = block.hire
            for axis, branch in (("height", hire.height), ("width", hire.width)):
                if branch is not None:
                    yield f"{axis} branch", *_branch_formula(dim, branch.region, places)
            if hire.channel is not None:
                yield "channel branch", dim**2, dim**2 * places
            if hire.gate is not None:  # on the pooled map: C^2 for three branches
                weights = dim * (dim // 4) * (1 + len(hire.gate.branches))
                yield "gate", weights, weights
                yield "projection", dim**2, dim**2 * places
            weights = 2 * block.mlp.fc1.out_channels * dim
            yield "channel MLP", weights, weights * places
    if model.num_classes:
        # pooled, the head is used once, else at every place of the last stage
        weights = model.num_features * model.num_classes
        yield "head", weights, weights * (1 if isinstance(model.head, nn.Linear) else places)


# ------------------------------------------------------------------ a branch


@dataclass(frozen=True)
class BranchCost:
    """A branch's cost on a map of ``size`` x ``size`` tokens of ``dim`` channels.

    Attributes:
        weights: numbers in the linear layers, counted on the built branch.
        others: its other parameters (biases and BatchNorm), which the formula leaves out.
        macs: multiply-adds of the linear layers, counted while they ran.
        weights_formula, macs_formula: the paper's.
    """

    dim: int
    region: int
    size: int
    weights: int
    others: int
    macs: int

    @property
    def weights_formula(self) -> int:
        return _branch_formula(self.dim, self.region, self.size**2)[0]

    @property
    def macs_formula(self) -> int:
        return _branch_formula(self.dim, self.region, self.size**2)[1]

    @property
    def padding_share(self) -> float:
        """Multiply-adds beyond the formula, as a share of it: what the padded slots cost."""
        return self.macs / self.macs_formula - 1

    def __str__(self) -> str:
        """One line: the setting, weights and multiply-adds in multiples of the formulas."""
        return (
            f"{self.size:2} x {self.size:<2} tokens, C {self.dim:3}, region {self.region}: "
            f"{self.weights / self.weights_formula:.3f} x h\u00b7C\u00b2 weights "
            f"+ {self.others:,}, "
            f"{1 + self.padding_share:.3f} x H\u00b7W\u00b7C\u00b2 multiply-adds"
        )


def branch_cost(dim: int, region: int, size: int) -> BranchCost:
    """Build one height branch and count.

    Args:
        dim: channels, at least 2, since the bottleneck halves them.
        region: tokens in a region.
        size: tokens along the height and along the width.

    Raises:
        HirelabError: for a number that is not whole or too small.
    """
    dim, size = check_whole("dim", dim, 2), check_whole("size", size, 1)
    branch = AxisBranch(
        dim, "height", region, 0, "circular", "shift", True, 2, device="meta"
    ).eval()
    weights = sum(m.weight.numel() for m in branch.mix if isinstance(m, nn.Conv2d))
    others = sum(p.numel() for p in branch.parameters()) - weights
    macs = count_macs(branch, torch.empty(1, dim, size, size, device="meta"))
    return BranchCost(dim, region, size, weights, others, macs)


# ------------------------------------------------------------------ a block


@dataclass(frozen=True)
class BlockParts(Records):
    """What the parts of one block hold and do for one image, in the order of the forward pass.

    Prints as a table with each part's share; ``rows`` holds (part, parameters, multiply-adds).
    """

    block: str
    rows: tuple[tuple[str, int, int], ...]

    def records(self) -> list[dict[str, Any]]:
        """A row for each part."""
        names = ("part", "params", "macs")
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def __repr__(self) -> str:
        params = sum(params for _, params, _ in self.rows) or 1
        macs = sum(macs for *_, macs in self.rows) or 1
        lines: list[tuple[str, ...]] = [("part", "parameters", "", "multiply-adds", "")]
        lines += [
            (name, f"{p:,}", f"{p / params:.1%}", f"{m:,}", f"{m / macs:.1%}")
            for name, p, m in self.rows
        ]
        return f"{self.block}\n{table(lines, 'lr')}"


def block_parts(
    network: str | HireMLP, stage: int = 1, block: int = 1, img_size: int | Sequence[int] = 224
) -> BlockParts:
    """Count parameters and multiply-adds of a block's parts; the network is left as it is.

    Args:
        network: a name of `hirelab.model_names`, or a network.
        stage, block: counted from 0, as in point names.
        img_size: (height, width) of the image in pixels, or one number for a square.

    Raises:
        HirelabError: for a network that is no Hire-MLP, a block out of range, an impossible size.
    """
    name, (_, blank) = f"stages.{stage}.blocks.{block}", skeleton(network)
    blocks = [blocks_of(one) for one in stages_of(blank)]
    stage, block = check_whole("stage", stage), check_whole("block", block)
    if not (0 <= stage < len(blocks) and 0 <= block < len(blocks[stage])):
        raise HirelabError(
            f"There is no {name}; the network has {[len(one) for one in blocks]} blocks in its "
            "stages, counted from 0."
        )
    grid = stage_grids(blank, check_img_size(img_size))[stage]
    x = torch.empty(1, blank.feature_info[stage]["num_chs"], *grid, device="meta")
    parts = _count_parts(blocks[stage][block], x)
    return BlockParts(name, tuple((part, one.params, one.macs) for part, one in parts.items()))


# ------------------------------------------------------------------ a network


@dataclass(frozen=True, eq=False)
class NetworkCost(Records, Result):
    """What the parts of a Hire-MLP hold, and do for one image; prints as a table.

    Attributes:
        network: the name that it was asked for by, or timm's name of it.
        img_size: (height, width) of the image, in pixels.
        parts: those of `PARTS` that the network has.
        params: (parts,) all parameters, biases and norms included.
        weights: (parts,) the numbers in the weights of convolutions and linear layers.
        macs: (parts,) multiply-adds, counted while the network ran.
        weights_formula, macs_formula: (parts,) the formulas, which know no bias, norm or padding.
    """

    network: str
    img_size: tuple[int, int]
    parts: list[str]
    params: np.ndarray
    weights: np.ndarray
    macs: np.ndarray
    weights_formula: np.ndarray
    macs_formula: np.ndarray

    def share(self, part: str, of: str = "macs") -> float:
        """The part of the whole, 0 to 1, "macs" or "params"; 0 for a part the network has not."""
        values = getattr(self, of)
        return float(values[self.parts.index(part)] / values.sum()) if part in self.parts else 0.0

    @property
    def padding_share(self) -> float:
        """Multiply-adds beyond the formulas, as a share of them: what padded slots cost."""
        return float(self.macs.sum() / self.macs_formula.sum() - 1)

    def records(self) -> list[dict[str, Any]]:
        """A row for each part, with its five counts."""
        names = ("params", "weights", "macs", "weights_formula", "macs_formula")
        columns = [getattr(self, name).tolist() for name in names]
        rows = zip(self.parts, *columns, strict=True)
        return [dict(zip(("part", *names), row, strict=True)) for row in rows]

    def __repr__(self) -> str:
        height, width = self.img_size
        lines: list[tuple[object, ...]] = [
            ("part", "parameters", "", "multiply-adds", "", "weights / formula", "MACs / formula")
        ]
        columns = (self.params, self.weights, self.macs, self.weights_formula, self.macs_formula)
        totals = [values.sum() for values in columns]
        for part, *numbers in zip([*self.parts, "all"], *_with_totals(columns), strict=True):
            params, weights, macs, weights_rule, macs_rule = numbers
            lines.append(
                (
                    part,
                    f"{params:,}",
                    f"{params / totals[0]:.1%}",
                    f"{macs:,}",
                    f"{macs / totals[2]:.1%}",
                    f"{weights / weights_rule:.3f}" if weights_rule else "",
                    f"{macs / macs_rule:.3f}" if macs_rule else "",
                )
            )
        return f"{self.network}, {height} x {width} pixels\n{table(lines, 'lr')}"


def _with_totals(columns: Sequence[np.ndarray]) -> list[list[int]]:
    return [[*map(int, values), int(values.sum())] for values in columns]


def network_cost(network: str | HireMLP, img_size: Sequence[int] | int = 224) -> NetworkCost:
    """Count the parts of a Hire-MLP for one image.

    Args:
        network: a name of `hirelab.model_names`, or a network, which is left as it is.
        img_size: (height, width) of the image in pixels, or one number for a square.

    Raises:
        HirelabError: for a network that is no Hire-MLP, an unknown name, or an impossible size.
    """
    name, model = skeleton(network)
    size = check_img_size(img_size)
    counts = _count_parts(model, torch.empty(1, model.in_chans, *size, device="meta"))
    rules = {part: np.zeros(2, dtype=np.int64) for part in PARTS}
    for part, *numbers in _formulas(model, size):
        rules[part] += numbers
    return NetworkCost(
        name,
        size,
        list(counts),
        params=np.array([count.params for count in counts.values()]),
        weights=np.array([count.weights for count in counts.values()]),
        macs=np.array([count.macs for count in counts.values()]),
        weights_formula=np.array([rules[part][0] for part in counts]),
        macs_formula=np.array([rules[part][1] for part in counts]),
    )


# ------------------------------------------------------------------ several networks


@dataclass(frozen=True, eq=False)
class Family(Records, Result):
    """Several Hire-MLPs side by side, and the paper's published sizes; prints as a table.

    Attributes:
        networks: names.
        img_size: (height, width) of the image, in pixels.
        parts: of `PARTS`, those that any of the networks has.
        params, macs: (networks, parts).
    """

    networks: list[str]
    img_size: tuple[int, int]
    parts: list[str]
    params: np.ndarray
    macs: np.ndarray

    def published(self, version: str) -> dict[str, tuple[float, float]]:
        """{network: (millions of parameters, billions of multiply-adds)} by "v1" or "v2" of the
        paper, which counts at 224 x 224 pixels."""
        return {
            name.lower().replace("-", "_"): (float(params), float(macs))
            for name, params, macs, _ in paper.headline(version).rows
        }

    def records(self) -> list[dict[str, Any]]:
        """A row for each part of each network."""
        return [
            {"network": name, "part": part, "params": int(p), "macs": int(m)}
            for name, params, macs in zip(self.networks, self.params, self.macs, strict=True)
            for part, p, m in zip(self.parts, params, macs, strict=True)
        ]

    def __repr__(self) -> str:
        versions = [self.published(version) for version in ("v1", "v2")]
        stated = ("paper v1", "v2")
        lines: list[tuple[str, ...]] = [
            ("network", "parameters, M", *stated, "multiply-adds, G", *stated)
        ]
        for name, params, macs in zip(self.networks, self.params, self.macs, strict=True):
            found = [v.get(name) for v in versions]
            sizes = [f"{s[0]:.0f}" if s else "-" for s in found]
            costs = [f"{s[1]:.1f}" if s else "-" for s in found]
            size, cost = f"{params.sum() / 1e6:.2f}", f"{macs.sum() / 1e9:.2f}"
            lines.append((name, size, *sizes, cost, *costs))
        return table(lines, "lr")

    def plot(self):
        """Shares of parameters and multiply-adds as bars, a `hirelab.viz.canvas.Figure`."""
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
    networks: Sequence[str | HireMLP] = NETWORKS, img_size: Sequence[int] | int = 224
) -> Family:
    """`network_cost` of several networks, smallest first: the study sizes and the paper's four.

    Raises:
        HirelabError: as `network_cost`, and for no network at all.
    """
    if isinstance(networks, (str, nn.Module)) or not len(networks):
        raise HirelabError(f"networks is {networks!r}; give a list of at least one network.")
    costs = [network_cost(network, img_size) for network in networks]
    parts = [part for part in PARTS if any(part in cost.parts for cost in costs)]

    def by_part(of: str) -> np.ndarray:
        rows = [dict(zip(cost.parts, getattr(cost, of), strict=True)) for cost in costs]
        return np.array([[row.get(part, 0) for part in parts] for row in rows])

    return Family(
        [c.network for c in costs], costs[0].img_size, parts, by_part("params"), by_part("macs")
    )

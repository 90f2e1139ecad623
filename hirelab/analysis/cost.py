"""What a branch costs: measured on the built layers, beside the paper's formula.

Paper section 3.4: with a bottleneck of C/2 channels the two layers of a branch hold
``hC * C/2 + C/2 * hC = h C^2`` weights, and use every one of them once for each of the ``H/h * W``
regions, ``H W C^2`` multiply-adds, whatever the region.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .._shared.errors import HirelabError
from ..hooks.points import points
from ..models.hire_mlp import AxisBranch


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
        return self.region * self.dim**2

    @property
    def macs_formula(self) -> int:
        return self.size**2 * self.dim**2

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


def count_macs(module: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds of a module's convolutions and matrix products on ``x``.

    Counted by PyTorch's own counter, which counts an add and a multiply as two.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() // 2


def branch_cost(dim: int, region: int, size: int) -> BranchCost:
    """Build one height branch and count; on the meta device, so that it costs no arithmetic.

    Raises:
        HirelabError: for a dim, region or size that is no whole number or below 1 (2 for dim, which
            the bottleneck halves).
    """
    if any(isinstance(v, bool) or not isinstance(v, Integral) for v in (dim, size)):
        raise HirelabError(f"dim is {dim!r} and size {size!r}; give whole numbers.")
    if dim < 2 or size < 1:
        raise HirelabError(
            f"dim is {dim} and size {size}; a branch needs at least 2 channels and 1 token."
        )
    branch = AxisBranch(
        dim, "height", region, 0, "circular", "shift", True, 2, device="meta"
    ).eval()
    convs = [m for m in branch.mix if isinstance(m, nn.Conv2d)]
    weights = sum(m.weight.numel() for m in convs)
    others = sum(p.numel() for p in branch.parameters()) - weights
    macs = count_macs(branch, torch.empty(1, dim, size, size, device="meta"))
    return BranchCost(dim, region, size, weights, others, macs)


@dataclass(frozen=True)
class BlockParts:
    """What the parts of one block hold and do for one image, in the order of the forward pass.

    Prints as a table with each part's share; ``rows`` holds (part, parameters, multiply-adds).
    """

    block: str
    rows: tuple[tuple[str, int, int], ...]

    def __repr__(self) -> str:
        params, macs = (sum(row[i] for row in self.rows) or 1 for i in (1, 2))
        lines = [f"{self.block}", f"{'part':16}{'parameters':>12}{'':8}{'multiply-adds':>15}"]
        lines += [
            f"{name:16}{p:>12,}{p / params:>7.1%} {m:>15,}{m / macs:>7.1%}"
            for name, p, m in self.rows
        ]
        return "\n".join(lines)


def block_parts(
    model: nn.Module, stage: int = 1, block: int = 1, input_size: tuple[int, int] = (224, 224)
) -> BlockParts:
    """Count parameters and multiply-adds of a block's parts; indices from 0, as in point names.

    On the meta device: nothing is computed and the network is left as it is.

    Raises:
        HirelabError: for a block that is not there.
    """
    try:
        blocks = model.stages[stage].blocks[block]
    except IndexError:
        raise HirelabError(
            f"There is no stages.{stage}.blocks.{block}; the network has "
            f"{[len(s.blocks) for s in model.stages]} blocks in its stages, counted from 0."
        ) from None
    name = f"stages.{stage}.blocks.{block}"
    point = points(model, f"{name}.hire.input", (model.in_chans, *input_size))[0]
    copy = deepcopy(blocks).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy(torch.empty(point.shape, device="meta"))
    counts = counter.get_flop_counts()
    parts = {
        "norms": ("norm1", "norm2"),
        "height branch": ("hire.height",),
        "width branch": ("hire.width",),
        "channel branch": ("hire.channel",),
        "gate": ("hire.gate",),
        "projection": ("hire.proj",),
        "channel MLP": ("mlp",),
    }
    modules = dict(copy.named_modules())
    rows = []
    for part, members in parts.items():
        there = [m for m in members if m in modules]
        held = sum(p.numel() for m in there for p in modules[m].parameters())
        root = type(copy).__name__
        done = sum(sum(counts.get(f"{root}.{m}", {}).values()) for m in there)
        if there:
            rows.append((part, held, done // 2))
    return BlockParts(name, tuple(rows))

"""What a branch costs: measured on the built layers, beside the paper's formula.

Paper section 3.4: with a bottleneck of C/2 channels the two layers of a branch hold
``hC * C/2 + C/2 * hC = h C^2`` weights, and use every one of them once for each of the ``H/h * W``
regions, ``H W C^2`` multiply-adds, whatever the region.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .models.hire_mlp import AxisBranch


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
        ValueError: for a dim, region or size that is no whole number or below 1 (2 for dim, which
            the bottleneck halves).
    """
    if any(isinstance(v, bool) or not isinstance(v, Integral) for v in (dim, size)):
        raise ValueError(f"dim is {dim!r} and size {size!r}; give whole numbers.")
    if dim < 2 or size < 1:
        raise ValueError(
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

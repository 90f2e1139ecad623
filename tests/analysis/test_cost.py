"""What a branch costs, against formulas by hand and against counting while it runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import hirelab as hl
from hirelab.analysis.cost import block_parts, branch_cost, count_macs
from hirelab.models.hire_mlp import AxisBranch


def counted(dim: int, region: int, size: int) -> dict[str, int]:
    """Parameters and multiply-adds of a branch on real numbers, by hooks on its layers."""
    branch = AxisBranch(dim, "width", region, 1, "circular", "shift", True, 2).eval()
    macs = []

    def count(module, args, output):
        channels = args[0].shape[1]
        macs.append(output.numel() * channels)

    layers = [m for m in branch.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        assert branch(torch.rand(1, dim, size, size)).shape == (1, dim, size, size)
    for handle in handles:
        handle.remove()
    weights = sum(m.weight.numel() for m in layers)
    return {
        "weights": weights,
        "others": sum(p.numel() for p in branch.parameters()) - weights,
        "macs": sum(macs),
    }


@pytest.mark.parametrize("dim", [2, 8, 64])
@pytest.mark.parametrize(("region", "size"), [(1, 7), (3, 7), (4, 8), (5, 4), (2, 1)])
def test_costs_are_the_formulas_and_the_counts(dim, region, size):
    cost = branch_cost(dim, region, size)
    assert (cost.dim, cost.region, cost.size) == (dim, region, size)
    # a bottleneck of dim/2: two layers between region * dim and dim / 2 channels
    assert cost.weights == cost.weights_formula == region * dim * dim
    # the norm's two numbers a channel in the middle, a bias for every channel that comes out
    assert cost.others == 2 * (dim // 2) + region * dim
    regions = math.ceil(size / region)
    assert cost.macs == regions * size * region * dim * dim
    assert cost.macs_formula == size * size * dim * dim
    assert cost.padding_share == pytest.approx(regions * region / size - 1)
    assert {k: getattr(cost, k) for k in ("weights", "others", "macs")} == counted(
        dim, region, size
    )


def test_an_odd_width_loses_half_a_channel():
    cost = branch_cost(7, 2, 4)
    assert cost.weights == 2 * (7 * 2) * 3 < cost.weights_formula
    assert cost.weights == counted(7, 2, 4)["weights"]


def test_where_regions_fill_the_map_the_formula_is_exact():
    for region in (1, 2, 4, 7, 8, 14, 28, 56):
        cost = branch_cost(16, region, 56)
        assert cost.macs == cost.macs_formula
        assert cost.padding_share == 0


def test_multiply_adds_of_any_module():
    linear, conv = nn.Linear(5, 7), nn.Conv2d(3, 4, 3, padding=1, groups=1)
    assert count_macs(linear, torch.rand(2, 5)) == 2 * 5 * 7
    assert count_macs(conv, torch.rand(2, 3, 6, 5)) == 2 * 4 * 6 * 5 * 3 * 9
    assert count_macs(nn.ReLU(), torch.rand(9)) == 0
    x = torch.rand(1, 5, requires_grad=True)
    count_macs(linear, x)
    assert linear.weight.grad is None


@pytest.mark.parametrize(("stage", "block"), [(0, 0), (2, 1)])
def test_the_parts_of_a_block_are_the_whole_block(stage, block):
    model = hl.create("hire_mlp_atto", seed=0)
    parts = block_parts(model, stage, block, (96, 64))
    whole = model.stages[stage].blocks[block]
    assert parts.block == f"stages.{stage}.blocks.{block}"
    assert sum(p for _, p, _ in parts.rows) == sum(p.numel() for p in whole.parameters())
    side, channels = (96 // 4 // 2**stage, 64 // 4 // 2**stage), (16, 24, 48)[stage]
    assert sum(m for *_, m in parts.rows) == count_macs(whole, torch.rand(1, channels, *side))
    rows = {name: (p, m) for name, p, m in parts.rows}
    tokens = side[0] * side[1]
    assert rows["channel branch"] == (channels**2 + channels, tokens * channels**2)
    assert rows["channel MLP"] == (8 * channels**2 + 5 * channels, tokens * 8 * channels**2)
    assert rows["norms"] == (4 * channels, 0)
    for share in ("100.0%", "nan", "e+"):
        assert share not in repr(parts)
    assert whole.mlp.fc1.weight.device.type == "cpu"  # the network stays where it is


def test_blocks_that_are_not_there_are_said():
    model = hl.create("hire_mlp_atto", device="meta")
    for stage, block in ((4, 0), (0, 2)):
        with pytest.raises(
            ValueError, match=rf"no stages\.{stage}\.blocks\.{block}; .*\[2, 2, 3, 2\]"
        ):
            block_parts(model, stage, block)


def test_a_cost_prints_as_one_line():
    assert str(branch_cost(64, 4, 56)) == (
        "56 x 56 tokens, C  64, region 4: 1.000 x h·C² weights + 320, 1.000 x H·W·C² multiply-adds"
    )
    assert "1.143 x H·W·C²" in str(branch_cost(64, 8, 7))


def test_numbers_out_of_arrays_are_numbers():
    assert branch_cost(np.int64(8), np.int64(2), np.int64(4)) == branch_cost(8, 2, 4)


@pytest.mark.parametrize(
    ("dim", "region", "size", "message"),
    [
        (1, 2, 4, "dim is 1 and size 4; a branch needs at least 2 channels"),
        (0, 2, 4, "dim is 0"),
        (-8, 2, 4, "dim is -8"),
        (8, 2, 0, "size 0"),
        (8, 0, 4, "region is 0; a region holds at least 1 token"),
        (8, -1, 4, "region is -1"),
        (8, 1.5, 4, "region is 1.5"),
        (8.5, 1, 4, "dim is 8.5 and size 4; give whole numbers"),
        (True, 1, 4, "dim is True"),
        (8, 1, "4", "size '4'"),
    ],
)
def test_impossible_sizes_are_named(dim, region, size, message):
    with pytest.raises(ValueError, match=message):
        branch_cost(dim, region, size)

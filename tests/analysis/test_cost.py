"""What branches, blocks and networks cost, against formulas by hand, hooks and the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from _helpers import check_kept, counted_by_hooks
from torch import nn

import hirelab as hl
from hirelab.analysis.cost import (
    NETWORKS,
    PARTS,
    Family,
    NetworkCost,
    block_parts,
    branch_cost,
    count_macs,
    family,
    network_cost,
)
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
        (1, 2, 4, "dim is 1; give a whole number of at least 2"),
        (0, 2, 4, "dim is 0"),
        (-8, 2, 4, "dim is -8"),
        (8, 2, 0, "size is 0"),
        (8, 0, 4, "region is 0; a region holds at least 1 token"),
        (8, -1, 4, "region is -1"),
        (8, 1.5, 4, "region is 1.5"),
        (8.5, 1, 4, "dim is 8.5; give a whole number"),
        (True, 1, 4, "dim is True"),
        (8, 1, "4", "size is '4'"),
    ],
)
def test_impossible_sizes_are_named(dim, region, size, message):
    with pytest.raises(ValueError, match=message):
        branch_cost(dim, region, size)


# ------------------------------------------------------------------ whole networks


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (64, 64)),
        ({"fusion": "sum", "in_chans": 1}, (70, 45)),
        ({"branches": ("width",), "num_classes": 0}, (33, 90)),
        ({"global_pool": "", "num_classes": 7}, (65, 65)),
        ({"stage_norms": True, "fc_layers": 3}, (50, 50)),
    ],
)
def test_parts_add_up_to_what_hooks_count(settings, size):
    model = hl.create("hire_mlp_atto", seed=0, **settings)
    cost = network_cost(model, size)
    params, macs = counted_by_hooks(model, torch.rand(1, model.in_chans, *size))
    assert cost.params.sum() == params
    assert cost.macs.sum() == macs
    assert set(cost.parts) <= set(PARTS)
    assert cost.share(cost.parts[-1], "params") > 0
    assert sum(cost.share(part) for part in PARTS) == pytest.approx(1)
    assert ("gate" in cost.parts) == (model.stages[0].blocks[0].hire.gate is not None)


def test_a_part_holds_its_own_modules():
    model = hl.create("hire_mlp_atto", device="meta")
    cost = network_cost(model, 64)
    held = dict(zip(cost.parts, cost.params, strict=True))
    blocks = [block for stage in model.stages for block in stage.blocks]

    def size(*modules):
        return sum(p.numel() for m in modules for p in m.parameters())

    assert held["stem"] == size(model.stem)
    assert held["downsampling"] == size(*(s.downsample for s in model.stages))
    assert held["width branch"] == size(*(b.hire.width for b in blocks))
    assert held["gate"] == size(*(b.hire.gate for b in blocks))
    assert held["channel MLP"] == size(*(b.mlp for b in blocks))
    assert held["norms"] == size(model.norm, *(n for b in blocks for n in (b.norm1, b.norm2)))
    assert held["head"] == size(model.head)


def test_a_block_holds_and_does_what_the_paper_s_formulas_say():
    """Per block (2h + 11) C^2 weights, 12 H W C^2 multiply-adds and C^2 for the gate; 192 x 192
    pixels need no padding anywhere."""
    model = hl.create("hire_mlp_tiny", device="meta")
    cost = network_cost(model, 192)
    outside = [cost.parts.index(p) for p in ("stem", "downsampling", "head")]
    depths, dims, regions = (2, 2, 4, 2), (64, 128, 320, 512), (4, 3, 3, 2)
    weights = sum(n * (2 * h + 11) * c * c for n, c, h in zip(depths, dims, regions, strict=True))
    macs = sum(
        n * (12 * (48 // 2**i) ** 2 + 1) * c * c
        for i, (n, c) in enumerate(zip(depths, dims, strict=True))
    )
    assert cost.weights.sum() - cost.weights[outside].sum() == weights
    assert cost.macs.sum() - cost.macs[outside].sum() == macs
    np.testing.assert_array_equal(cost.weights, cost.weights_formula)
    np.testing.assert_array_equal(cost.macs, cost.macs_formula)
    assert cost.padding_share == 0
    assert network_cost(model, 224).padding_share > 0


def test_without_padding_four_times_the_pixels_cost_four_times_but_for_gate_and_head():
    small, large = (network_cost("hire_mlp_atto", side) for side in (192, 384))
    once = [small.parts.index(p) for p in ("gate", "head")]
    rest = np.setdiff1d(np.arange(len(small.parts)), once)
    np.testing.assert_array_equal(large.macs[once], small.macs[once])
    np.testing.assert_array_equal(large.macs[rest], 4 * small.macs[rest])


def test_the_four_networks_have_the_published_sizes():
    found = family(("hire_mlp_tiny", "hire_mlp_base"))
    stated = found.published("v2")
    assert set(found.published("v1")) == set(stated) == set(NETWORKS[2:])
    for name, params, macs in zip(found.networks, found.params, found.macs, strict=True):
        assert round(params.sum() / 1e6) == stated[name][0]
        assert round(macs.sum() / 1e9, 1) == stated[name][1]
    np.testing.assert_array_equal(found.macs[0], network_cost("hire_mlp_tiny").macs)
    mixed = family((hl.create("hire_mlp_atto", device="meta", fusion="sum"), "hire_mlp_atto"), 64)
    assert (mixed.params[:, mixed.parts.index("gate")] > 0).tolist() == [False, True]


def test_a_network_is_left_as_it_is():
    model = hl.create("hire_mlp_atto", seed=0).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    network_cost(model, 48)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: network_cost("hire_mlp_atto", (64, 50)), NetworkCost),
        (lambda: family(("hire_mlp_atto",), 64), Family),
    ],
)
def test_results_are_kept_as_they_were(make, kind, tmp_path):
    made = make()
    assert isinstance(made, kind)
    check_kept(made, tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network_cost("hire_mlp_tini"), "hire_mlp_tiny"),
        (lambda: network_cost(nn.Linear(2, 2)), "is a Linear; give a Hire-MLP or the name of one"),
        (lambda: family([]), "at least one network"),
        (lambda: family("hire_mlp_atto"), "give a list"),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

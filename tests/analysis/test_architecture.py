"""Whole networks on the scales, against formulas by hand, hooks and the network as it runs."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

import hirelab as hl
from hirelab.analysis import architecture
from hirelab.analysis.architecture import PARTS, CostGrowth, Family, NetworkCost, Pyramid


def by_hooks(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Parameters, and multiply-adds of layers with weights, while real numbers run through."""
    macs = []

    def count(module, args, output):
        places = output[0].numel() // module.weight.shape[0]
        macs.append(places * module.weight.numel())

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return sum(p.numel() for p in model.parameters()), sum(macs)


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
    cost = architecture.network_cost(model, size)
    params, macs = by_hooks(model, torch.rand(1, model.in_chans, *size))
    assert cost.params.sum() == params
    assert cost.macs.sum() == macs
    assert set(cost.parts) <= set(PARTS)
    assert cost.share(cost.parts[-1], "params") > 0
    assert sum(cost.share(part) for part in PARTS) == pytest.approx(1)
    assert ("gate" in cost.parts) == (model.stages[0].blocks[0].hire.gate is not None)


def test_a_part_holds_its_own_modules():
    model = hl.create("hire_mlp_atto", device="meta")
    cost = architecture.network_cost(model, 64)
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
    cost = architecture.network_cost(model, 192)
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
    assert architecture.network_cost(model, 224).padding_share > 0


def test_without_padding_four_times_the_pixels_cost_four_times_but_for_gate_and_head():
    small, large = (architecture.network_cost("hire_mlp_atto", side) for side in (192, 384))
    once = [small.parts.index(p) for p in ("gate", "head")]
    rest = np.setdiff1d(np.arange(len(small.parts)), once)
    np.testing.assert_array_equal(large.macs[once], small.macs[once])
    np.testing.assert_array_equal(large.macs[rest], 4 * small.macs[rest])


def test_a_network_is_left_as_it_is():
    model = hl.create("hire_mlp_atto", seed=0).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    architecture.network_cost(model, 48)
    architecture.pyramid(model, 48)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_four_networks_have_the_published_sizes():
    found = architecture.family(("hire_mlp_tiny", "hire_mlp_base"))
    stated = found.published("v2")
    assert set(found.published("v1")) == set(stated) == set(architecture.NETWORKS[2:])
    for name, params, macs in zip(found.networks, found.params, found.macs, strict=True):
        assert round(params.sum() / 1e6) == stated[name][0]
        assert round(macs.sum() / 1e9, 1) == stated[name][1]
    np.testing.assert_array_equal(found.macs[0], architecture.network_cost("hire_mlp_tiny").macs)
    mixed = architecture.family(
        (hl.create("hire_mlp_atto", device="meta", fusion="sum"), "hire_mlp_atto"), 64
    )
    assert (mixed.params[:, mixed.parts.index("gate")] > 0).tolist() == [False, True]


def test_attention_s_own_products_are_counted_and_apart():
    growth = architecture.cost_growth(("deit_tiny_patch16_224", "hire_mlp_atto"), (64, 128))
    depth, dim = 12, 192
    for column, side in enumerate((64, 128)):
        tokens = (side // 16) ** 2 + 1  # and the class token
        products = depth * 2 * tokens**2 * dim  # queries with keys, weights with values
        layers = depth * 12 * dim**2 * tokens + (tokens - 1) * 16**2 * 3 * dim + dim * 1000
        assert growth.products[0, column] == products
        assert growth.macs[0, column] == products + layers
    assert not growth.products[1].any()
    assert growth.fixed == [True, False]
    assert growth.params[1, 0] == growth.params[1, 1]
    assert growth.params[0, 1] - growth.params[0, 0] == (8**2 - 4**2) * dim  # places of tokens
    ratio = growth.factor("deit_tiny_patch16_224", 64, 128)
    assert ratio == growth.macs[0, 1] / growth.macs[0, 0]


def test_another_network_of_timm_is_counted_as_by_hooks():
    growth = architecture.cost_growth(("resnet18",), (64, 96))
    model = timm.create_model("resnet18").eval()
    for column, side in enumerate((64, 96)):
        params, macs = by_hooks(model, torch.rand(1, 3, side, side))
        assert (growth.params[0, column], growth.macs[0, column]) == (params, macs)
    np.testing.assert_allclose(growth.per_pixel * growth.sides**2, growth.macs)


@pytest.mark.parametrize("size", [(3, 3), (75, 101), (224, 224), (226, 97), (64, 350)])
def test_the_pyramid_is_that_of_the_running_network(size):
    model = hl.create("hire_mlp_atto", seed=0)
    found = architecture.pyramid(model, size)
    x = torch.rand(1, 3, *size)
    _, cache = model.run_with_cache(x, ["stages.*.blocks.0.hire.*.regions", "stages.*.out"])
    for i, dim in enumerate(found.dims):
        assert cache[f"stages.{i}.out"].shape == (1, dim, *found.sizes[i])
        for axis, name in enumerate(("height", "width")):
            grid = cache[f"stages.{i}.blocks.0.hire.{name}.regions"]
            slots = grid.shape[2 + axis] * found.region[i, axis]
            assert slots == found.sizes[i, axis] + found.padded[i, axis]
            assert grid.shape[1] == dim * found.region[i, axis]


def test_the_last_region_shows_what_stands_in_its_padding():
    said = repr(architecture.pyramid("hire_mlp_tiny", (300, 401))).splitlines()
    assert "7 of 3, last: 18 [0] [1]" in said[4]  # 19 rows: 18 is alone, the line begins again
    zero = architecture.pyramid(hl.create("hire_mlp_atto", device="meta", padding="zero"), 224)
    assert "last: 27 [zero] [zero]" in repr(zero)
    single = hl.create("hire_mlp_atto", device="meta", branches=("height", "channel"))
    found = architecture.pyramid(single, 224)
    assert not found.padded[:, 1].any()
    assert repr(found).count("no branch") == 4
    assert "no branch" in found.plot().text


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: architecture.network_cost("hire_mlp_atto", (64, 50)), NetworkCost),
        (lambda: architecture.family(("hire_mlp_atto",), 64), Family),
        (lambda: architecture.cost_growth(("hire_mlp_atto",), (64, 96)), CostGrowth),
        (lambda: architecture.pyramid("hire_mlp_atto", (64, 50)), Pyramid),
    ],
)
def test_results_are_kept_as_they_were(make, kind, tmp_path):
    made = make()
    made.save(tmp_path / "result.npz")
    kept = kind.load(tmp_path / "result.npz")
    assert repr(kept) == repr(made)
    assert kept.versions == made.versions
    if hasattr(made, "plot"):
        assert kept.plot().text == made.plot().text
        assert kept.plot().data.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: architecture.network_cost("hire_mlp_tini"), "hire_mlp_tiny"),
        (lambda: architecture.network_cost(nn.Linear(2, 2)), "is a Linear.*cost_growth"),
        (lambda: architecture.pyramid("hire_mlp_atto", (2, 64)), "2 x 64.*at least 3 x 3"),
        (lambda: architecture.pyramid("hire_mlp_atto", (64, 64, 3)), r"give \(height, width\)"),
        (lambda: architecture.pyramid("hire_mlp_atto", 64.5), "64.5.*whole"),
        (lambda: architecture.family([]), "at least one network"),
        (lambda: architecture.family("hire_mlp_atto"), "give a list"),
        (lambda: architecture.cost_growth([]), "at least one of each"),
        (lambda: architecture.cost_growth("resnet18"), "give a list"),
        (lambda: architecture.cost_growth(["hire_mlp_atto"], [True]), "True.*whole"),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_factor_of_what_was_not_counted_is_an_error():
    growth = architecture.cost_growth(("hire_mlp_atto",), (64,))
    with pytest.raises(ValueError, match=r"64 to 96.*hire_mlp_atto at 64"):
        growth.factor("hire_mlp_atto", 64, 96)

"""Cost of networks of timm on images of several sizes, against formulas by hand and hooks."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from _helpers import check_kept, counted_by_hooks

from hirelab.analysis.cost_growth import CostGrowth, cost_growth


def test_attention_s_own_products_are_counted_and_apart():
    growth = cost_growth(("deit_tiny_patch16_224", "hire_mlp_atto"), (64, 128))
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


def test_another_network_of_timm_is_counted_as_counted_by_hooks():
    growth = cost_growth(("resnet18",), (64, 96))
    model = timm.create_model("resnet18").eval()
    for column, side in enumerate((64, 96)):
        params, macs = counted_by_hooks(model, torch.rand(1, 3, side, side))
        assert (growth.params[0, column], growth.macs[0, column]) == (params, macs)
    np.testing.assert_allclose(growth.per_pixel * growth.sides**2, growth.macs)


def test_a_factor_of_what_was_not_counted_is_an_error():
    growth = cost_growth(("hire_mlp_atto",), (64,))
    with pytest.raises(ValueError, match=r"64 to 96.*hire_mlp_atto at 64"):
        growth.factor("hire_mlp_atto", 64, 96)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: cost_growth(("hire_mlp_atto",), (64, 96)), CostGrowth),
    ],
)
def test_results_are_kept_as_they_were(make, kind, tmp_path):
    made = make()
    assert isinstance(made, kind)
    check_kept(made, tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cost_growth([]), "at least one of each"),
        (lambda: cost_growth("resnet18"), "give a list"),
        (lambda: cost_growth(["hire_mlp_atto"], [True]), "True.*whole"),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

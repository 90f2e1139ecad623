"""Numbers that notebook 04 says in prose are those of the library and of the paper's tables."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import nbformat
import numpy as np

from hirelab.analysis import cost as costs
from hirelab.analysis.cost import family, network_cost
from hirelab.analysis.cost_growth import cost_growth
from hirelab.analysis.pyramid import pyramid
from hirelab.models import create

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_architecture_and_cost.ipynb"


@cache
def prose() -> str:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


@cache
def networks() -> costs.Family:
    return family(costs.NETWORKS[2:])


@cache
def tiny() -> costs.NetworkCost:
    return network_cost("hire_mlp_tiny")


def test_shares_of_the_parts():
    found = networks()
    macs = found.macs / found.macs.sum(1, keepdims=True)
    mlp = (100 * macs[:, found.parts.index("channel MLP")]).round().astype(int)
    assert f"{mlp[0]} of 100 multiply-adds of Tiny, and {mlp[2]} in Base" in prose()
    assert mlp[2] == mlp[3]
    everywhere = family()
    for values in (everywhere.params, everywhere.macs):
        assert {everywhere.parts[i] for i in values.argmax(1)} == {"channel MLP"}
    axes = ("height branch", "width branch")
    params, work = (sum(tiny().share(a, of) for a in axes) for of in ("params", "macs"))
    assert f"hold {params:.0%} of Tiny's".replace("%", " %") in prose()
    assert f"do {work:.0%} of its work".replace("%", " %") in prose()


def test_published_sizes():
    found = networks()
    v1, v2 = found.published("v1"), found.published("v2")
    params, macs = found.params.sum(1) / 1e6, found.macs.sum(1) / 1e9
    for name, size, cost in zip(found.networks, params, macs, strict=True):
        assert (round(size), round(cost, 1)) == v2[name]
        assert (round(size) == v1[name][0]) == (name != "hire_mlp_tiny")
    assert v2["hire_mlp_tiny"][0] - v1["hire_mlp_tiny"][0] == 1  # "one million more"
    gate = found.params[:, found.parts.index("gate")] / 1e6
    assert f"without it Tiny would have {params[0] - gate[0]:.2f} million" in prose()
    assert round(params[0] - gate[0]) == v1["hire_mlp_tiny"][0]
    summed = create("hire_mlp_tiny", fusion="sum", device="meta")
    size = sum(p.numel() for p in summed.parameters()) / 1e6
    assert f"leaves out the projection as well: {size:.2f} million" in prose()
    others = zip(found.networks[1:], params[1:] - gate[1:], strict=True)
    assert all(round(without) != v1[name][0] for name, without in others)
    assert f"does {macs[0]:.1f} billion multiply-adds for an image of 224" in prose()


def test_padding():
    cost = tiny()
    axes = [cost.parts.index(f"{a} branch") for a in ("height", "width")]
    extra = cost.macs[axes].sum() / cost.macs_formula[axes].sum() - 1
    assert f"by {100 * extra:.1f} %" in prose()
    assert f"whole network that is {100 * cost.padding_share:.1f} %" in prose()
    np.testing.assert_array_equal(np.delete(cost.macs, axes), np.delete(cost.macs_formula, axes))
    np.testing.assert_array_equal(cost.weights, cost.weights_formula)
    assert [bool(p) for p in pyramid("hire_mlp_tiny", 224).padded[:, 0]] == [False, *[True] * 3]
    for side in (192, 384):
        assert not pyramid("hire_mlp_tiny", side).padded.any()
    # "From 224 to 448 the padding shrinks."
    assert network_cost("hire_mlp_tiny", 448).padding_share < cost.padding_share


def test_images_of_any_shape():
    wide = pyramid("hire_mlp_tiny", (300, 401))
    (before, _), (rows, columns) = wide.grids[2:].tolist()
    assert f"{before} rows become {rows}" in prose()
    assert wide.padded[3].tolist() == [0, 1]
    assert f"{rows} rows need nothing and {columns} columns one more" in prose()
    assert rows * wide.reduction[3] > 300  # "the last stage reaches beyond the image"
    assert wide.padded.max() == 2  # "row 0 and, where two are missing, row 1"


def test_growth():
    growth = cost_growth(sides=(224, 448, 1024))
    hire, deit, mixer = range(3)
    products = (100 * growth.products / growth.macs).round().astype(int)
    assert f"{products[deit, 0]} % of the work at 224 pixels, {products[deit, 2]} % at" in prose()
    level = growth.per_pixel[:, 2] / growth.per_pixel[:, 0]
    assert f"costs {level[deit]:.1f} times as much as at 224" in prose()
    assert abs(level[hire] - 1) < 0.02
    assert abs(level[mixer] - 1) < 0.001
    size = growth.params / 1e6
    assert f"from {size[mixer, 0]:.1f} to {size[mixer, 2]:.1f} million" in prose()
    assert f"Hire-MLP has {size[hire, 0]:.1f} million at every size" in prose()
    assert len(set(growth.params[hire])) == 1
    assert growth.fixed == [False, True, True]
    assert growth.macs[:, 0].max() < 1.25 * growth.macs[:, 0].min()  # "about the same"
    assert 3.9 < growth.factor("hire_mlp_small", 224, 448) < 4  # "a little less" than four times

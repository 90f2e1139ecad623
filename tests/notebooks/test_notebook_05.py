"""What notebook 05 says in prose holds for the bundled weights; its numbers are computed here."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch
from torch import nn

import hirelab as hl
from hirelab.analysis.growth import field_growth
from hirelab.analysis.pairs import paired_differences
from hirelab.analysis.receptive_field import receptive_field
from hirelab.training.runs import open_network

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_receptive_field.ipynb"
BLOCKS = [(i, j) for i, depth in enumerate((2, 2, 4, 2)) for j in range(depth)]


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return " ".join(c.source for c in cells if c.cell_type == "markdown").replace("*", "")


@pytest.fixture(scope="module")
def networks():
    return {
        "trained": hl.create("hire_mlp_pico", pretrained=True),
        "isolated": hl.create("hire_mlp_pico.imagenette_isolated", pretrained=True),
        "untrained": hl.create("hire_mlp_pico", seed=0),
    }


@pytest.fixture(scope="module")
def measured(networks):
    """Fields of the end of stage 3 on the notebook's images, kept."""
    x, _ = hl.samples(7, 128)
    kept = {}

    def measure(name, position="centre", paths="spatial"):
        key = name, position, paths
        if key not in kept:
            kept[key] = receptive_field(networks[name], x, "stages.2", position, paths)
        return kept[key]

    return measure


# ------------------------------------------------------------------ what does not hang on weights


def test_a_flat_field_needs_half_of_the_area():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    flat = receptive_field(network, torch.ones(1, 3, 128, 128), "0")
    assert flat.area(0.5)[0] == pytest.approx(0.5, abs=0.02)


def test_where_the_whole_image_is_reachable(networks, prose):
    share = {}
    for i, j in BLOCKS:
        point = f"stages.{i}.blocks.{j}"
        middle = (16 >> i, 16 >> i)  # of 32, 16, 8 and 4 tokens
        share[i, j] = hl.provenance(networks["untrained"], middle, point, "spatial", 128)
        share[i, j] = share[i, j].share("input")
    i, j = first = next(b for b in BLOCKS if share[b] == 1)
    assert f"After `stages.{i}.blocks.{j}` the whole image is reachable" in prose
    assert all(share[b] == 1 for b in BLOCKS[BLOCKS.index(first) :])
    assert f"After {BLOCKS.index(first) + 1} of {len(BLOCKS)} blocks" in prose
    assert len(BLOCKS) == sum(len(s.blocks) for s in networks["trained"].stages) == 10


def test_without_exchange_a_field_ends_where_regions_end(networks, measured):
    token = measured("isolated").position
    for name, paths in (("isolated", "spatial"), ("trained", "shift off")):
        pixels = hl.provenance(networks[name], token, "stages.2.out", paths, 128).pixels
        found = measured(name, paths=paths).map
        assert 0 < pixels.mean() < 1
        assert found[~pixels].sum() == 0  # "the gradient is exactly zero"


def test_nothing_wraps_round_the_border_to_the_corner_without_exchange(networks, measured):
    pixels = hl.provenance(networks["isolated"], (0, 0), "stages.2.out", "spatial", 128).pixels
    assert not pixels[72:].any()  # nearer round the border, from the cell's middle at 8
    assert not pixels[:, 72:].any()
    assert measured("isolated", "corner").wrapped_share == 0


# ------------------------------------------------------------------ what does


def test_the_square_with_half_of_the_mass(measured, prose):
    field = measured("trained", paths="full")
    assert field.grid == [8, 8]
    assert f"{field.half_mass_side:g} pixels: half of the mass is in" in prose
    share = field.area(0.5)[0]
    assert f"about an eighth of the image ({100 * share:.1f} %)" in prose
    assert round(1 / share) == 8
    assert "half of the mass stays in an eighth of it" in prose
    # "nearly every other pixel faintly"
    assert (field.map > 0).mean() > 0.99


def test_what_the_shift_and_training_widen(measured, prose):
    def pair(one, other, paths="spatial"):
        return measured(one, paths=paths), measured(other, paths=paths)

    pairs = {
        "exchange": pair("trained", "isolated"),
        "gate": pair("trained", "isolated", "full"),
        "training": pair("trained", "untrained"),
    }
    numbers = ("half-mass side", "99% side", "half-mass side, centroid")
    found = paired_differences(pairs, *numbers)
    mean, low, high = (
        {
            name: dict(zip(numbers, row, strict=True))
            for name, row in zip(pairs, values, strict=True)
        }
        for values in (found.mean, found.low, found.high)
    )
    half, most = numbers[:2]
    wider = f"{mean['exchange'][half]:.0f} pixels wider"
    ends = f"({low['exchange'][half]:.1f} to {high['exchange'][half]:.1f})"
    assert f"is {wider} {ends}" in prose
    assert f"with 99 % of it {mean['exchange'][most]:.0f} pixels" in prose
    assert low["exchange"][half] > 0
    gate = (mean["gate"][half], -low["gate"][half], high["gate"][half])
    assert "{:.0f} pixels, but anything from {:.0f} narrower to {:.0f} wider".format(*gate) in prose
    assert low["gate"][half] < 0  # "nothing is left that seven images could show"
    assert low["gate"][most] < 0 < high["gate"][most]
    tail, middle = mean["training"][most], mean["training"][half]
    assert f"by {tail:.0f} pixels, far more than the half, by {middle:.0f}:" in prose
    before, after = (measured(name).half_mass_side for name in ("untrained", "trained"))
    assert f"{before:g} of the {after:g} pixels were there before training" in prose
    around = (found.mean[:, 2] - found.mean[:, 0]) / found.mean[:, 0]
    assert abs(around).max() < 0.15  # "nearly as many"
    assert ((found.low[:, 2] > 0) == (found.low[:, 0] > 0)).all()


def test_what_narrows_the_field(measured):
    sides = {p: measured("trained", paths=p).half_mass_side for p in ("height", "width", "channel")}
    assert min(sides, key=sides.get) == "channel"


def test_the_mass_lies_up_and_left(measured):
    for name in ("trained", "isolated", "untrained"):
        field = measured(name)
        assert all(c < m for c, m in zip(field.centroid, field.centre, strict=True))
        assert field.half_around_centroid < field.half_mass_side


def test_what_reaches_the_trained_corner_round_the_border(measured, prose):
    flat = measured("trained", "corner").wrapped_share_uniform
    share = measured("trained", "corner").wrapped_share
    said = f"{100 * share:.0f} % of what changes its corner comes round the border"
    assert f"{said}, where a flat field would have {100 * flat:.0f} %" in prose
    trained, untrained = (measured(n, "corner").wrapped_share for n in ("trained", "untrained"))
    # "the three other corners are bright"
    assert trained > 0.1
    assert trained > 2 * untrained
    rows = measured("trained", "corner").map
    far = [rows[:32, -32:], rows[-32:, :32], rows[-32:, -32:]]
    assert min(part.mean() for part in far) > rows[48:80, 48:80].mean()


def test_the_gate_leaves_no_dark_part(measured):
    field = measured("trained", paths="full")
    assert field.map.min() > 1e-4 * field.map.max()  # the end of the colours


def test_what_the_shift_adds_is_mostly_a_tail(measured):
    (half, most), (cut_half, cut_most) = (
        measured("trained", paths=p).side(0.5, 0.99) for p in ("spatial", "shift off")
    )
    assert most / cut_most > half / cut_half
    assert most > 1.1 * cut_most
    # "and part of it comes round the border"
    assert (
        measured("trained", "corner").wrapped_share
        > measured("trained", "corner", "shift off").wrapped_share
    )


def test_the_mass_grows_where_the_grid_is_halved(networks):
    x, _ = hl.samples(7, 128)
    growth = field_growth(networks["trained"], x)
    sides = dict(zip(BLOCKS, zip(growth.half, growth.most, strict=True), strict=True))
    half = {block: pair[0] for block, pair in sides.items()}
    between = [half[i, 0] / half[i - 1, (2, 2, 4)[i - 1] - 1] for i in (1, 2, 3)]
    within = [half[i, j] / half[i, j - 1] for i, j in BLOCKS if j]
    assert min(between) > max(within)
    assert sides[2, 3][1] > 1.2 * sides[2, 0][1]  # "the blocks of `stages.2` do show"
    assert (growth.outside == 0).all()  # "exactly zero"


# ------------------------------------------------------------------ other designs


def test_a_resnet_that_was_trained_alike_sees_further(prose):
    x, _ = hl.samples(7, img_size=96)
    hire, resnet = (
        hl.receptive_field(open_network(name)[0], x)
        for name in ("hire_mlp_atto.imagenette", "resnet18.imagenette_narrow")
    )
    sides = [field.half_around_centroid for field in (resnet, hire)]
    assert "The ResNet's: {:.0f} pixels against {:.0f}.".format(*sides) in prose
    assert resnet.curve[-1] == pytest.approx(1)
    assert (resnet.map > 0).all()  # "reach the whole of so small an image"

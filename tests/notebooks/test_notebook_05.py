"""What notebook 05 says in prose holds for the bundled weights; its numbers are computed here."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest
import timm
import torch
from torch import nn

import hirelab as hl
from hirelab.analysis.receptive_field import receptive_field

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
    x, _ = hl.samples(6, 128)
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
    assert flat.area_under_curve == pytest.approx(1 / 3, abs=0.02)  # "about a third"


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


def test_opened_branches_reach_several_times_as_far(prose):
    x, _ = hl.samples(2, 128)
    for name, point, opened in (
        ("resnet18", "layer3", {"zero_init_last": False}),
        ("convnext_atto", "stages.2", {"ls_init_value": 1.0}),
    ):
        torch.manual_seed(0)
        closed = timm.create_model(name)
        if name == "resnet18":
            assert not any(m.bn2.weight.any() for m in closed.layer3)  # "with weight zero"
        else:
            gammas = [m.gamma for m in closed.stages[2].blocks]
            assert all(torch.allclose(g, torch.tensor(1e-6)) for g in gammas)  # "a millionth"
        torch.manual_seed(0)
        narrow = receptive_field(closed, x, point, call=0)
        wide = receptive_field(timm.create_model(name, **opened), x, point, call=0)
        assert narrow.grid == wide.grid == [8, 8]  # "a token stands for 16 x 16 pixels"
        assert wide.half_mass_side > 2 * narrow.half_mass_side
        if name == "resnet18":
            rows = narrow.map.any(1).nonzero()[0]
            wide_rows, side = np.ptp(rows) + 1, narrow.half_mass_side
            assert f"whole field is {wide_rows} pixels wide" in prose
            assert rows.mean() < narrow.centre[0]  # "up and left of the token's middle"
            assert side > wide_rows


# ------------------------------------------------------------------ what does


def test_the_square_with_half_of_the_mass(measured, prose):
    field = measured("trained", paths="full")
    assert field.grid == [8, 8]
    assert f"the answer is {field.half_mass_side:g} pixels" in prose
    share = field.area(0.5)[0]
    assert f"about an eighth of the image ({100 * share:.1f} %)" in prose
    assert round(1 / share) == 8
    # "nearly every other pixel faintly"
    assert (field.map > 0).mean() > 0.99


def test_training_widens_the_tail_most(measured, prose):
    (half, most), (first_half, first_most) = (
        measured(name).side(0.5, 0.99) for name in ("trained", "untrained")
    )
    assert f"already has {first_half:g} of {half:g} pixels" in prose
    wider = f"becomes {most / first_most:.1f} times as wide"
    assert f"{wider}, {most:g} pixels after {first_most:g}" in prose
    assert most / first_most > half / first_half


@pytest.mark.parametrize("paths", ["spatial", "full"])
def test_what_exchange_does_to_the_half_mass_side_image_by_image(measured, prose, paths):
    trained, isolated = (
        measured(name, paths=paths).by_image()["half-mass side"] for name in ("trained", "isolated")
    )
    wider = trained - isolated
    count = f"in {(wider > 0).sum()} of {len(wider)}"
    if paths == "spatial":
        assert f"{count} images, by {wider.min():g} to {wider.max():g} pixels" in prose
    else:
        assert f"{count}, and narrower by {-wider.min():g} in the other" in prose
        assert (wider < 0).sum() == 1


def test_the_untrained_branches_begin_small(networks, prose):
    hire = networks["untrained"].stages[2].blocks[1].hire
    weights = torch.cat([p.flatten() for n, p in hire.height.named_parameters() if p.dim() == 4])
    assert f"standard deviation {weights.std().item():.2f}" in prose


def test_what_reaches_the_trained_corner_round_the_border(measured, prose):
    flat = measured("trained", "corner").wrapped_share_uniform
    share = measured("trained", "corner").wrapped_share
    assert f"{100 * share:.0f} %, where a flat field would have {100 * flat:.0f} %" in prose
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
    x, _ = hl.samples(6, 128)
    sides = {
        (i, j): receptive_field(
            networks["trained"], x, f"stages.{i}.blocks.{j}", paths="spatial"
        ).side(0.5, 0.99)
        for i, j in BLOCKS
    }
    half = {block: pair[0] for block, pair in sides.items()}
    between = [half[i, 0] / half[i - 1, (2, 2, 4)[i - 1] - 1] for i in (1, 2, 3)]
    within = [half[i, j] / half[i, j - 1] for i, j in BLOCKS if j]
    assert min(between) > max(within)
    assert sides[2, 3][1] > 1.2 * sides[2, 0][1]  # "the blocks of `stages.2` do show"

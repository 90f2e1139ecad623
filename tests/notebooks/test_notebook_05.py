"""What notebook 05 says in prose holds for the weights that ship, and its figures and table too."""

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
from hirelab.viz import field as drawing

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
    x, _ = hl.samples(6, img_size=128)
    kept = {}

    def measure(name, position="centre", paths="spatial"):
        key = name, position, paths
        if key not in kept:
            kept[key] = receptive_field(networks[name], x, "stages.2", position, paths)
        return kept[key]

    return measure


# ------------------------------------------------------------------ what does not hang on weights


def test_a_flat_field_would_need_ninety_pixels(prose):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    flat = receptive_field(network, torch.ones(1, 3, 128, 128), "0")
    assert "a square of about 90 pixels" in prose
    assert flat.half_mass_side == pytest.approx(90, abs=2)
    assert "about a third for one that is flat" in prose
    assert flat.area_under_curve == pytest.approx(1 / 3, abs=0.02)


def test_where_the_whole_image_can_be_heard(networks, prose):
    share = {}
    for i, j in BLOCKS:
        point = f"stages.{i}.blocks.{j}"
        middle = (16 >> i, 16 >> i)  # of 32, 16, 8 and 4 tokens
        share[i, j] = hl.provenance(networks["untrained"], middle, point, "spatial", img_size=128)
        share[i, j] = share[i, j].share("input")
    assert "After the third block of stage 3 the whole image can be heard" in prose
    assert [b for b in BLOCKS if share[b] == 1] == BLOCKS[BLOCKS.index((2, 2)) :]
    assert "all ten blocks" in prose
    assert len(BLOCKS) == sum(len(s.blocks) for s in networks["trained"].stages) == 10


def test_without_exchange_a_field_ends_where_regions_end(networks, measured, prose):
    token = measured("isolated").position
    for name, paths in (("isolated", "spatial"), ("trained", "shift off")):
        pixels = hl.provenance(networks[name], token, "stages.2.out", paths, img_size=128).pixels
        found = measured(name, paths=paths).map
        assert 0 < pixels.mean() < 1
        assert found[~pixels].sum() == 0  # "lies exactly nothing"
    assert "beyond the straight edges of shifts cut and no exchange lies exactly nothing" in prose


def test_the_corner_hears_nothing_round_the_border_without_exchange(networks, measured, prose):
    pixels = hl.provenance(
        networks["isolated"], (0, 0), "stages.2.out", "spatial", img_size=128
    ).pixels
    assert not pixels[72:].any()  # nearer round the border, from the cell's middle at 8
    assert not pixels[:, 72:].any()
    assert measured("isolated", "corner").wrapped_share == 0
    assert "the share is exactly zero" in prose
    # at the other end padding does it
    last = hl.provenance(
        networks["isolated"], (7, 7), "stages.2.out", "spatial", img_size=128
    ).pixels
    assert last[:8, :].any()
    assert "At the opposite end they do: padding repeats the first rows" in prose


def test_opened_branches_hear_several_times_as_far(prose):
    x, _ = hl.samples(2, img_size=128)
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
    assert "their field becomes several times as wide" in prose


# ------------------------------------------------------------------ what does


def test_half_of_the_mass_covers_less_than_a_quarter(measured, prose):
    field = measured("trained", paths="full")
    assert field.grid == [8, 8]
    assert field.area(0.5)[0] < 0.25
    assert "covers less than a quarter of the image" in prose
    # "hardly a pixel is without any influence"
    assert (field.map > 0).mean() > 0.99


def test_training_widens_the_tail(measured, prose):
    trained, untrained = (measured(name).side(0.99)[0] for name in ("trained", "untrained"))
    assert trained > 1.5 * untrained
    assert "more than one and a half times as wide" in prose


def test_the_untrained_branches_begin_small(networks, prose):
    hire = networks["untrained"].stages[2].blocks[1].hire
    weights = torch.cat([p.flatten() for n, p in hire.height.named_parameters() if p.dim() == 4])
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert "standard deviation 0.02" in prose


def test_the_trained_corner_hears_more_round_the_border_than_the_isolated(measured):
    trained, untrained = (measured(n, "corner").wrapped_share for n in ("trained", "untrained"))
    # "the three other corners are bright"
    assert trained > 0.1
    assert trained > 2 * untrained
    rows = measured("trained", "corner").map
    far = [rows[:32, -32:], rows[-32:, :32], rows[-32:, -32:]]
    assert min(part.mean() for part in far) > rows[48:80, 48:80].mean()


def test_the_gate_leaves_no_dark_part(measured, prose):
    field = measured("trained", paths="full")
    assert field.map.min() > 1e-4 * field.map.max()  # the end of the colours
    assert "has no dark parts left" in prose


def test_what_the_shift_adds_is_mostly_a_tail(measured, prose):
    (half, most), (cut_half, cut_most) = (
        measured("trained", paths=p).side(0.5, 0.99) for p in ("spatial", "shift off")
    )
    assert most / cut_most > half / cut_half
    assert most > 1.1 * cut_most
    assert "what it adds is mostly a tail, and part of that tail comes round the border" in prose
    assert (
        measured("trained", "corner").wrapped_share
        > measured("trained", "corner", "shift off").wrapped_share
    )


def test_the_mass_grows_where_the_grid_is_halved(networks, prose):
    x, _ = hl.samples(6, img_size=128)
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
    assert "takes its steps where the grid is halved" in prose
    assert sides[2, 3][1] > 1.2 * sides[2, 0][1]
    assert "there the blocks of stage 3 do show" in prose


# ------------------------------------------------------------------ the figure


def test_the_border_runs_round_the_mask_and_nowhere_else():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:8] = True
    dark = np.zeros((9, 9, 3), np.uint8)
    drawn = drawing._bordered(dark, mask, fold=4)
    assert drawn.shape == (36, 36, 3)
    white = (drawn == 255).all(axis=2)
    assert set(np.unique(drawn)) == {0, 255}
    expected = np.zeros((36, 36), bool)
    expected[8:28, 12:32] = True
    expected[10:26, 14:30] = False  # half a pixel of four dots inside the mask's edge
    assert (white == expected).all()

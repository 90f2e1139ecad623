"""Token grids as images: every line is the token that the rearrangement puts there."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from hirelab.rearrange import CROSS_REGIONS, EMPTY, PADDINGS, Rearrangement
from hirelab.viz import grids, theme
from hirelab.viz.canvas import Canvas

SIZES = [(1, 1, 0), (1, 3, 1), (4, 2, 1), (5, 3, -1), (5, 2, 7), (7, 3, 2), (3, 5, 1)]
ALL = [
    Rearrangement(size, region, shift, padding, cross_region, restore)
    for (size, region, shift), padding, cross_region, restore in itertools.product(
        SIZES, PADDINGS, CROSS_REGIONS, (True, False)
    )
]
every = pytest.mark.parametrize("r", ALL, ids=str)
both = pytest.mark.parametrize("axis", ["height", "width"])


def tokens(size: int, k: int = 1, seed: int = 0) -> np.ndarray:
    """(size, size, k, k, 3) cells that all differ."""
    draw = np.random.default_rng(seed)
    return draw.integers(1, 256, (size, size, k, k, 3), dtype=np.uint8)


def line(cells: np.ndarray, axis: str, i: int) -> np.ndarray:
    return cells[i] if axis == "height" else cells[:, i]


def by_hand(cells: np.ndarray, r: Rearrangement, axis: str) -> tuple[list, list, list]:
    """The line-up, the mixed line-up and the result, in plain loops over the slots."""
    black = np.zeros_like(line(cells, axis, 0))
    lined, mixed = [], []
    for region in r.slots.tolist():
        members = [black if t == EMPTY else line(cells, axis, t) for t in region]
        mean = np.rint(sum(m.astype(np.float64) for m in members) / len(members))
        lined += members
        mixed += [mean] * len(members)
    result = [None] * r.size
    for position, token in enumerate(r.order.tolist()):  # position counts kept slots
        result[token if r.restore else position] = mixed[position]
    return lined, mixed, result


@both
@every
def test_images_of_the_line_up_the_mixture_and_the_result(r, axis):
    cells = tokens(r.size, k=2)
    kept = cells.copy()
    lined, mixed, result = by_hand(cells, r, axis)
    for found, expected in (
        (grids.arrange(cells, r.slots.ravel(), axis), lined),
        (grids.mixed(cells, r, axis), mixed),
        (grids.restored(cells, r, axis), result),
    ):
        assert found.dtype == np.uint8
        along = found.shape[0] if axis == "height" else found.shape[1]
        assert along == len(expected)
        for i, wanted in enumerate(expected):
            # halves may be rounded either way where float32 cannot say
            assert abs(line(found, axis, i).astype(int) - wanted).max() <= (found is not lined)
    assert (grids.arrange(cells, r.slots.ravel(), axis) == _stack(lined, axis)).all()
    assert (cells == kept).all()  # looking changes nothing


def _stack(lines: list, axis: str) -> np.ndarray:
    return np.stack(lines, axis=0 if axis == "height" else 1)


@both
def test_regions_of_one_mix_nothing(axis):
    cells = tokens(6)
    r = Rearrangement(6, 1, 2)
    assert (grids.restored(cells, r, axis) == cells).all()
    moved = grids.restored(cells, Rearrangement(6, 1, 2, restore=False), axis)
    assert (moved == np.roll(cells, 2, 0 if axis == "height" else 1)).all()


def test_zero_padding_is_black_and_darkens_its_region():
    cells = np.full((3, 3, 1, 1, 3), 200, np.uint8)
    r = Rearrangement(3, 2, padding="zero")
    assert grids.arrange(cells, r.slots.ravel(), "height")[3].max() == 0
    mixed = grids.mixed(cells, r, "height")
    assert (mixed[:2] == 200).all()
    assert (mixed[2:] == 100).all()


def test_two_axes_are_one_transposed():
    cells, r = tokens(7), Rearrangement(7, 3, 2, "reflect")
    turned = cells.swapaxes(0, 1)
    for draw in (grids.mixed, grids.restored):
        assert (draw(cells, r, "width") == draw(turned, r, "height").swapaxes(0, 1)).all()


@pytest.mark.parametrize("grid", [1, 7, 14, 56])
def test_a_token_has_the_mean_colour_of_its_pixels(grid):
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    found = grids.token_colors(Image.fromarray(pixels), grid)
    side = 224 // grid
    means = pixels.reshape(grid, side, grid, side, 3).mean((1, 3))
    assert found.shape == (grid, grid, 3)
    assert abs(found - means).max() <= 1


def test_cells_put_together_are_the_image():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    fine = grids.cells(image, 28, photograph=True)
    assert fine.shape == (28, 28, 8, 8, 3)
    assert (grids.assemble(fine) == pixels).all()
    coarse = grids.cells(image, 28, photograph=False)
    assert coarse.shape == (28, 28, 1, 1, 3)
    assert (coarse[:, :, 0, 0] == grids.token_colors(image, 28)).all()


# ------------------------------------------------------------------ drawing


@both
def test_lines_are_drawn_with_cuts_spines_and_padding(axis):
    r = Rearrangement(5, 2)
    cells = np.full((6, 5, 1, 1, 3), 40, np.uint8)
    cells = cells if axis == "height" else cells.swapaxes(0, 1)
    canvas = Canvas(200, 200)
    spine = [theme.region_color(i // 2) for i in range(6)]
    lines = grids.Lines(axis, spine, r.padded.ravel(), region=2, marks={3: theme.REACHED})
    grids.draw_lines(canvas, cells, lines, (40, 40, 120), slots=6)
    drawn = np.asarray(canvas.image)
    drawn = drawn if axis == "height" else drawn.swapaxes(0, 1)
    for i in range(6):
        y = int((40 + (i + 0.5) * 20) * 2)
        assert tuple(drawn[y, 63]) == theme.rgb(spine[i])
        inside = drawn[y, 82:278].astype(int)
        if i < 5:
            assert (inside == 40).all()
        else:  # pale and hatched: not the bare colour anywhere, and not even
            assert inside.min() > 40
            assert len(np.unique(inside)) > 1
    for cut in (2, 4):
        assert (drawn[(40 + cut * 20) * 2, 56:279] == 255).all()
    for whole in (1, 3):
        assert (drawn[(40 + whole * 20) * 2, 82:278] == 40).all()
    marked = [
        i for i in range(6) if tuple(drawn[(50 + i * 20) * 2, 290]) == theme.rgb(theme.REACHED)
    ]
    assert marked == [3]


def test_drawings_of_equal_slots_have_cells_of_equal_size():
    for rows in (3, 6):
        canvas = Canvas(200, 200)
        tokens = np.zeros((rows, 3, 1, 1, 3), np.uint8)
        grids.draw_lines(canvas, tokens, grids.Lines("height"), (20, 20, 120), slots=6)
        ys, xs = np.nonzero((np.asarray(canvas.image) == 0).all(-1))
        assert (ys.max() - ys.min() + 1, xs.max() - xs.min() + 1) == (rows * 40, 3 * 40)


def test_the_cone_is_the_table_of_who_is_heard():
    reached = np.random.default_rng(0).random((4, 9)) < 0.5
    canvas = Canvas(400, 200)
    grids.draw_cone(canvas, list(reached), ["a", "b", "c", "d"], 6, (100, 20, 370, 140))
    drawn = np.asarray(canvas.image)
    for row, column in itertools.product(range(4), range(9)):
        seen = drawn[(20 + row * 30 + 15) * 2, (100 + column * 30 + 15) * 2]
        wanted = theme.FOCUS if column == 6 else theme.REACHED if reached[row, column] else None
        assert tuple(seen) == theme.rgb(wanted or theme.UNREACHED)

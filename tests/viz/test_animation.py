"""The film of the rearrangement: what stands where at every moment, and the bytes of the GIF."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageSequence

import hirelab as hl
from hirelab.rearrange import CROSS_REGIONS, EMPTY, PADDINGS, Rearrangement
from hirelab.viz import animation, grids, theme
from hirelab.viz.animation import GAP, Moment

SIDE = 420
SETTINGS = [
    Rearrangement(size, region, shift, padding, cross_region, restore)
    for (size, region, shift), padding, cross_region, restore in itertools.product(
        [(7, 3, 2), (6, 2, -1), (6, 3, 0), (5, 7, 9), (1, 1, 1)],
        PADDINGS, CROSS_REGIONS, (True, False),
    )
]  # fmt: skip
every = pytest.mark.parametrize("r", SETTINGS, ids=str)


def tokens(size: int) -> np.ndarray:
    """(size, size, 3): every row of one colour of its own, so that a row is told by any pixel."""
    colors = np.random.default_rng(3).integers(0, 230, (size, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colors, (size, size, 3))


def pitch(r: Rearrangement) -> float:
    """The height of a row: all lines and all gaps fill the sheet."""
    return SIDE / (r.regions * r.region + GAP * (r.regions - 1))


def at(sheet: np.ndarray, y: float) -> tuple[int, ...]:
    return tuple(int(v) for v in sheet[int(y), 14])


def grid_of(r: Rearrangement, sheet: np.ndarray) -> list[tuple[int, ...]]:
    """The colours of the rows while the regions are together."""
    assert (sheet[round(r.size * pitch(r)) :] == 255).all()  # nothing below the grid
    return [at(sheet, (i + 0.5) * pitch(r)) for i in range(r.size)]


@pytest.mark.parametrize("restore", [True, False])
def test_a_round_goes_through_the_steps_smoothly(restore):
    film = animation.moments(restore)
    assert len(film) == 56
    assert film[0] == Moment(0, 0, 0, 0)
    assert film[-1] == (Moment(0, 0, 1, 5) if restore else Moment(1, 0, 1, 4))
    steps = [moment.step for moment in film]
    assert steps == sorted(steps)
    assert set(steps) == set(range(6 if restore else 5))
    assert max(steps) < len(animation.STEPS)
    for one, other in itertools.pairwise(film):
        moved = [abs(getattr(one, k) - getattr(other, k)) for k in ("shift", "gap", "mix")]
        assert sum(m > 0 for m in moved) <= 1  # one thing at a time
        assert max(moved) < 0.3
    # between two steps everything is whole
    for one, other in itertools.pairwise(film):
        if one.step != other.step:
            assert {one.shift, one.gap, one.mix} <= {0, 1}


@every
def test_the_first_frame_is_the_token_grid(r):
    image = tokens(r.size)
    sheet = animation.strips(image, r, animation.moments(r.restore)[0], SIDE)
    assert sheet.shape == (SIDE, SIDE + 12, 3)
    assert sheet.dtype == np.uint8
    assert grid_of(r, sheet) == [tuple(row[0].tolist()) for row in image]
    for i in range(r.size):
        home = theme.rgb(theme.region_color(i // r.region))
        assert tuple(sheet[int((i + 0.5) * pitch(r)), 3]) == home


@every
def test_the_last_frame_is_what_the_block_puts_out(r):
    image = tokens(r.size)
    sheet = animation.strips(image, r, animation.moments(r.restore)[-1], SIDE)
    result = grids.restored(image[:, :, None, None], r, "height")[:, 0, 0, 0]
    assert grid_of(r, sheet) == [tuple(row.tolist()) for row in result]


@pytest.mark.parametrize("shift", [-3, 0, 2, 9])
def test_regions_of_one_come_back_as_they_went(shift):
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    r = Rearrangement(6, 1, shift)
    film = animation.moments()
    first = animation.strips(image, r, film[0], SIDE)
    last = animation.strips(image, r, film[-1], SIDE)
    assert (first == last).all()
    # and it is the whole image, not one column of it
    p = pitch(r)
    for row, column in itertools.product(range(6), range(6)):
        seen = first[int((row + 0.5) * p), 12 + int((column + 0.5) * p)]
        assert tuple(seen) == tuple(image[row, column])


@every
def test_shifted_rows_stand_in_shifted_order(r):
    image = tokens(r.size)
    found = grid_of(r, animation.strips(image, r, Moment(1, 0, 0, 1), SIDE))
    assert found == [tuple(image[t, 0].tolist()) for t in r.order]


@pytest.mark.parametrize("shift", [1, -1])
def test_half_way_through_a_shift_the_row_that_leaves_also_comes_in(shift):
    image, r = tokens(6), Rearrangement(6, 2, shift)
    sheet = animation.strips(image, r, Moment(0.5, 0, 0, 1), SIDE)
    p = pitch(r)
    colors = [tuple(row[0].tolist()) for row in image]
    leaving = colors[-1] if shift > 0 else colors[0]
    for y in (0.1 * p, 0.4 * p, 5.6 * p, 5.9 * p):
        assert at(sheet, y) == leaving
    between = colors[:-1] if shift > 0 else colors[1:]
    for i, color in enumerate(between):
        assert at(sheet, (i + 0.6) * p) == at(sheet, (i + 1.4) * p) == color
    assert (sheet[round(6 * p) :] == 255).all()
    column = sheet[: round(6 * p), 14]
    assert not (column == 255).all(-1).any()  # no gap between the rows


@every
def test_while_regions_are_apart_every_slot_is_there(r):
    image = tokens(r.size)
    p, lines = pitch(r), [int(t) for t in r.slots.ravel()]
    apart = animation.strips(image, r, Moment(1, 1, 0, 2), SIDE)
    mixed = animation.strips(image, r, Moment(1, 1, 1, 3), SIDE)
    mixture = grids.mixed(image[:, :, None, None], r, "height")[:, 0, 0, 0]
    for line, token in enumerate(lines):
        y = (line + GAP * (line // r.region) + 0.5) * p
        content = np.zeros(3) if token == EMPTY else image[token, 0].astype(float)
        for sheet, color in ((apart, content), (mixed, mixture[line].astype(float))):
            pale = 255 + (color - 255) * 0.45 if line >= r.size else color
            assert abs(np.array(at(sheet, y)) - pale).max() <= 1
        if token != EMPTY:
            assert tuple(apart[int(y), 3]) == theme.rgb(theme.region_color(token // r.region))
    for region in range(1, r.regions):  # paper between the regions
        y = (region * r.region + GAP * (region - 1) + GAP / 2) * p
        assert (apart[int(y)] == 255).all()
    assert (apart[-2, 14] != 255).any()  # the sheet is filled to its end


@every
def test_every_moment_can_be_drawn(r):
    image = tokens(r.size)
    for moment in animation.moments(r.restore)[::3]:
        sheet = animation.strips(image, r, moment, 60)
        assert sheet.shape == (60, 72, 3)
        assert (sheet != 255).any()


def test_both_axes_of_a_frame_are_one_thing_transposed():
    image = np.random.default_rng(0).integers(0, 200, (7, 7, 3), dtype=np.uint8)
    r = Rearrangement(7, 3, 2)
    for moment in animation.moments()[::9]:
        maps = {"height": r, "width": r}
        drawn = np.asarray(animation.frame(image, maps, moment))
        turned = np.asarray(animation.frame(image.transpose(1, 0, 2), maps, moment))
        tall = drawn[82:422, 24:364]
        wide = turned[82:422, 394:734]
        assert (tall == wide.transpose(1, 0, 2)).all()
        assert (tall != 255).any()


# ------------------------------------------------------------------ GIF


@pytest.fixture(scope="module")
def made():
    player = hl.RearrangementPlayer(stage=3, region=3, shift=2)
    figure = player.animation()
    drawn = [np.asarray(player.moment(player.settings, i, scale=1)) for i in range(player.last + 1)]
    return player, figure, drawn


def test_a_gif_has_every_frame_for_its_time(made):
    _, figure, drawn = made
    gif = Image.open(io.BytesIO(figure.data))
    assert gif.format == "GIF"
    assert gif.info["loop"] == 0  # for ever
    assert gif.size == (760, 452)
    durations, shown = [], []
    for page in ImageSequence.Iterator(gif):
        durations.append(page.info["duration"])
        shown.append(np.asarray(page.convert("RGB")))
    assert sum(durations) == 56 * 100
    # equal neighbours are one page that stays longer
    on_screen = [
        page for page, time in zip(shown, durations, strict=True) for _ in range(time // 100)
    ]
    assert len(on_screen) == len(drawn) == 56
    changes = sum((a != b).any() for a, b in itertools.pairwise(drawn))
    assert len(shown) == changes + 1
    for seen, wanted in zip(on_screen, drawn, strict=True):
        assert abs(seen.astype(int) - wanted.astype(int)).mean() < 2
        white = (wanted == 255).all(-1)
        assert (seen[white] == 255).all()  # paper stays white in every frame
        ink = (wanted == theme.rgb(theme.INK)).all(-1)
        assert (seen[ink] == theme.rgb(theme.INK)).all()


def test_a_gif_shows_itself_and_is_small(made):
    player, figure, _ = made
    assert len(figure.data) < 700_000
    assert set(figure._repr_mimebundle_()) == {"image/png", "text/plain"}
    assert figure.text == f"animation of {player!r}"
    assert "0x" not in figure.text


def test_the_animation_obeys_the_settings(made):
    player, figure, _ = made
    player.set(cross_region="none")
    try:
        other = player.animation()
    finally:
        player.set(cross_region="shift")
    assert other.data != figure.data
    assert "'none'" in other.text

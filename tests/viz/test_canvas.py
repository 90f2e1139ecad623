"""The sheet: what is drawn lands where it shall, and what is saved keeps its colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hirelab.viz import theme
from hirelab.viz.canvas import Canvas, compact, jpeg, mime, palette_of, png, reduce


def pixels(canvas: Canvas) -> np.ndarray:
    return np.asarray(canvas.image)


def covered(canvas: Canvas) -> tuple[int, int, int, int]:
    """The box of all that is not paper, in pixels: left, top, right, bottom."""
    ys, xs = np.nonzero((pixels(canvas) != 255).any(-1))
    return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_rectangle_covers_its_box_and_nothing_else(scale):
    canvas = Canvas(40, 30, scale)
    assert canvas.image.size == (40 * scale, 30 * scale)
    canvas.rect((5, 6, 25, 16), fill=theme.BLUE)
    assert covered(canvas) == (5 * scale, 6 * scale, 25 * scale, 16 * scale)
    inside = pixels(canvas)[6 * scale : 16 * scale, 5 * scale : 25 * scale]
    assert (inside == theme.rgb(theme.BLUE)).all()


def test_an_outline_lies_inside():
    canvas = Canvas(40, 30)
    canvas.rect((5, 6, 25, 16), outline=theme.INK, width=2)
    assert covered(canvas) == (10, 12, 50, 32)
    assert (pixels(canvas)[20, 30] == 255).all()


def test_alpha_mixes_with_what_is_there():
    canvas = Canvas(10, 10)
    canvas.rect((0, 0, 10, 10), fill="#000000")
    canvas.rect((0, 0, 10, 10), fill="#ff0000", alpha=0.5)
    assert abs(pixels(canvas)[5, 5].astype(int) - (128, 0, 0)).max() <= 1


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (5, 9, 9, 5)])
def test_boxes_without_area_draw_nothing(box):
    canvas = Canvas(20, 20)
    canvas.rect(box, fill=theme.INK, outline=theme.INK)
    canvas.hatch(box)
    canvas.draw_image(np.zeros((2, 2, 3), np.uint8), box)
    assert (pixels(canvas) == 255).all()


def test_a_image_keeps_its_cells():
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    canvas = Canvas(50, 40)
    canvas.draw_image(array, (4, 5, 44, 29))  # 8 logical pixels a cell
    shown = pixels(canvas)[10:58, 8:88]
    assert (shown == array.repeat(16, 0).repeat(16, 1)).all()


@pytest.mark.parametrize(
    ("end", "box"), [((30, 10), (20, 14, 60, 26)), ((10, 30), (14, 20, 26, 60))]
)
def test_an_arrow_ends_where_it_points(end, box):
    canvas = Canvas(40, 40)
    canvas.arrow((10, 10), end, theme.INK)
    found = covered(canvas)
    assert np.abs(np.array(found[2:]) - np.array(box[2:])).max() <= 12
    assert max(found[2], found[3]) in (60, 61)


@pytest.mark.parametrize("anchor", ["la", "ma", "ra"])
def test_a_text_is_as_wide_as_it_says(anchor):
    canvas = Canvas(200, 40)
    canvas.text((100, 5), "48 regions", anchor=anchor)
    left, _, right, _ = covered(canvas)
    width = canvas.text_width("48 regions") * 2
    start = {"la": 200, "ma": 200 - width / 2, "ra": 200 - width}[anchor]
    assert abs(left - start) <= 4
    assert abs(right - (start + width)) <= 4


def test_swatches_stand_beside_each_other():
    canvas = Canvas(400, 40)
    nxt = canvas.swatch((10, 10), theme.GREEN, "one")
    canvas.rect((nxt, 0, nxt + 1, 40), fill=theme.INK)  # where the next may start is free
    assert (pixels(canvas)[:, round(nxt * 2) - 20 : round(nxt * 2) - 1] == 255).all()
    assert tuple(pixels(canvas)[42, 36]) == theme.rgb(theme.GREEN)


# ------------------------------------------------------------------ bytes


def crowded(seed: int = 0) -> Image.Image:
    """An image of colours that all but equal the theme's, with patches of the theme's own."""
    draw = np.random.default_rng(seed)
    near = np.array([theme.rgb(c) for c in theme.ALL])[draw.integers(0, len(theme.ALL), (160, 160))]
    image = np.clip(near + draw.integers(-3, 4, near.shape), 0, 254).astype(np.uint8)
    for i, color in enumerate(theme.ALL):
        image[10 * i : 10 * i + 5, :40] = theme.rgb(color)
    return Image.fromarray(image)


def test_theme_colours_survive_beside_a_photograph():
    image = crowded()
    for data in (png(image), png(crowded(1))):
        assert data == png(image if data == png(image) else crowded(1))
    shown = np.asarray(Image.open(io.BytesIO(png(image))).convert("RGB")).astype(int)
    drawn = np.asarray(image).astype(int)
    for i, color in enumerate(theme.ALL):
        assert (shown[10 * i : 10 * i + 5, :40] == theme.rgb(color)).all(), color
    assert abs(shown - drawn).max() <= 24
    white = (drawn == 255).all(-1)
    assert ((shown == 255).all(-1) == white).all()


def test_a_palette_has_room_for_the_theme():
    image = crowded()
    palette = palette_of(image, 40)
    colors = np.array(palette.getpalette()).reshape(-1, 3)
    assert [tuple(c) for c in colors[: len(theme.ALL)]] == [theme.rgb(c) for c in theme.ALL]
    assert len(colors) <= 256
    assert reduce(image, palette).mode == "P"
    assert len(reduce(image, palette).getcolors(256)) <= 40 + len(theme.ALL)


def test_a_photograph_keeps_most_of_its_colours():
    from hirelab.datasets.images import open_image

    image = open_image("cat")
    shown = np.asarray(Image.open(io.BytesIO(png(image))).convert("RGB")).astype(int)
    assert abs(shown - np.asarray(image).astype(int)).mean() < 6


def test_what_is_kept_keeps_every_colour_and_is_the_smaller_of_two():
    """Thousands of colours, none of which may be squeezed into a palette."""
    cells = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    flat = Image.fromarray(cells.repeat(24, 0).repeat(24, 1))
    data = compact(flat)
    assert mime(data) == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(flat))
    smooth = Image.fromarray(cells).resize((480, 480), Image.Resampling.BICUBIC)
    data = compact(smooth)
    assert mime(data) == "image/jpeg"
    lossless = io.BytesIO()
    smooth.save(lossless, "PNG")
    assert len(data) < len(lossless.getvalue())
    shown = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert abs(shown - np.asarray(smooth)).mean() < 3


def test_bytes_are_the_same_every_time():
    image = crowded()
    assert png(image) == png(image.copy())
    assert compact(image) == compact(image.copy())
    assert jpeg(image) == jpeg(image.copy())
    shown = np.asarray(Image.open(io.BytesIO(jpeg(Image.new("RGB", (64, 64), "#0072b2")))))
    assert abs(shown.astype(int) - theme.rgb("#0072b2")).max() <= 2

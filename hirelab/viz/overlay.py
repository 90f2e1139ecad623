"""Attributions drawn over images: what speaks for a class as heat, and the signed map beside it.

The positive part lies over the image in grey, so that a photograph's own colours are not taken
for evidence; a line runs around the places above half of the highest value, and says the same
without colour. Every map has its own scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._shared.errors import HirelabError
from . import theme
from .canvas import Box, Canvas, compact
from .figures import Figure

COLUMNS = 4  # images side by side in a row of a figure
_GAP, _TOP, _TITLE, _NOTE = 20, 104, 28, 26
_COLDEST = 80  # of the 256 colours of heat: darker ones would be taken for the image's own shadows


def spotlight(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: an image in grey with the positive part of a map (H, W) over it as heat.

    The more speaks for the class, the more the heat covers the image. A map without a positive
    value leaves the grey image.

    Raises:
        HirelabError: for a map of another size, or one that is not finite.
    """
    if image.shape[:2] != values.shape:
        raise HirelabError(
            f"The image has {image.shape[:2]} pixels and the map {values.shape}; upsample the "
            "map to the image's size first."
        )
    part = np.maximum(values, 0)
    top = float(part.max())
    if not np.isfinite(part).all():
        raise HirelabError("The map holds NaN or infinite values; there is no colour for them.")
    # the image is kept darker than the heat, so that this can be read without colour
    grey = image @ np.array([0.299, 0.587, 0.114]) * 0.55 + 25
    return _heated(grey, part / top if top > 0 else np.zeros_like(part))


def _heated(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: heat of 0 to 1 over grey levels; the more, the less grey is seen."""
    table = theme.color_table(theme.HEAT)
    heat = table[np.rint(_COLDEST + (255 - _COLDEST) * share).astype(int)]
    cover = (0.9 * share**0.6)[..., None]
    return (grey[..., None] * (1 - cover) + heat * cover).round().astype(np.uint8)


def draw_bar(canvas: Canvas, box: Box, ends: tuple[str, str]) -> None:
    """The colours of `spotlight` over a middle grey, from nothing to the highest value."""
    ramp = np.linspace(0, 1, 256)[None]
    _draw_ramp(canvas, _heated(np.full_like(ramp, 95.0), ramp), box, ends)


def draw_signed_bar(canvas: Canvas, box: Box, ends: tuple[str, str]) -> None:
    """The colours of `signed`, from what speaks most against to what speaks most for."""
    _draw_ramp(canvas, signed(np.linspace(-1, 1, 256)[None]), box, ends)


def _draw_ramp(canvas: Canvas, colors: np.ndarray, box: Box, ends: tuple[str, str]) -> None:
    canvas.draw_image(colors, box, smooth=True)
    canvas.rect(box, outline=theme.LINE)
    canvas.text((box[0], box[3] + 3), ends[0], 15, theme.MUTED)
    canvas.text((box[2], box[3] + 3), ends[1], 15, theme.MUTED, "ra")


def signed(values: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a signed map in two hues from white at zero, both ends at the same size.

    Blue speaks for, orange against; the larger of the two largest sizes is the end of the scale.

    Raises:
        HirelabError: for values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise HirelabError("The map holds NaN or infinite values; there is no colour for them.")
    size = np.abs(values).max() or 1.0
    share = np.abs(values / size)[..., None]
    ends = np.where(values[..., None] > 0, theme.rgb(theme.BLUE), theme.rgb(theme.ORANGE))
    return (255 + (ends - 255) * share).round().astype(np.uint8)


def draw_outline(
    canvas: Canvas,
    values: np.ndarray,
    box: tuple[float, float, float, float],
    color: str = theme.PAPER,
) -> None:
    """A line around the places of a map above half of its highest value, if that is positive."""
    if values.max() <= 0:
        return
    inside = values > values.max() / 2
    rows, cols = values.shape
    left, top, right, bottom = box
    wide, high = (right - left) / cols, (bottom - top) / rows
    for y, x in np.argwhere(inside[:, 1:] != inside[:, :-1]):
        at = left + (x + 1) * wide
        canvas.line([(at, top + y * high), (at, top + (y + 1) * high)], color, 2)
    for y, x in np.argwhere(inside[1:] != inside[:-1]):
        at = top + (y + 1) * high
        canvas.line([(left + x * wide, at), (left + (x + 1) * wide, at)], color, 2)


def draw_overlay(
    canvas: Canvas,
    image: np.ndarray,
    values: np.ndarray,
    box: tuple[float, float, float, float],
) -> None:
    """`spotlight` with its outline, stretched into a box."""
    canvas.draw_image(spotlight(image, values), box, smooth=True)
    draw_outline(canvas, values, box)
    canvas.rect(box, outline=theme.LINE)


def draw_signed(canvas: Canvas, values: np.ndarray, box: tuple[float, float, float, float]) -> None:
    """The signed map of `signed` in a box."""
    canvas.draw_image(signed(values), box, smooth=True)
    canvas.rect(box, outline=theme.LINE)


def positive(values: np.ndarray, window: int = 1) -> np.ndarray:
    """The positive part of maps (..., H, W), as means over windows of odd size.

    The edges are repeated beyond the image. A map with a value a pixel would be drawn as dust.
    """
    values = np.maximum(values, 0)
    for axis in (-2, -1) if window > 1 else ():
        pad = [(0, 0)] * values.ndim
        pad[axis] = (window // 2, window // 2)
        padded = np.pad(values, pad, mode="edge")
        values = np.lib.stride_tricks.sliding_window_view(padded, window, axis).mean(-1)
    return values


def overlay_figure(
    images: np.ndarray,
    values: np.ndarray,
    titles: Sequence[str],
    note: str,
    with_signed: bool = False,
    smooth: int = 1,
) -> Figure:
    """Images with their maps, a title each and a note above.

    Args:
        images: (N, H, W, 3) uint8.
        values: (N, H, W) signed maps.
        titles: N short texts.
        with_signed: a row of three for each image (the image, the positive part over it, the signed
            map) and not the positive parts alone, four in a row.
        smooth: the positive parts are drawn as means over so many pixels, an odd number; for maps
            with a value a pixel, which would be dust.
    """
    rows, cols = values.shape[1:]
    per_row = 3 if with_signed else min(COLUMNS, max(2, len(values)))
    side = (theme.WIDTH - 8 - _GAP * (per_row - 1)) / per_row
    side = min(side, 330 if with_signed else 260)
    high = side * rows / cols
    step = _TITLE + high + (_NOTE + _GAP)
    count = len(values) if with_signed else -(-len(values) // per_row)
    canvas = Canvas(theme.WIDTH, round(_TOP + count * step))
    canvas.text((4, 4), note, theme.TEXT, bold=True)
    words = (
        "bright, and inside the line (above half the highest value): speaks for the class; "
        "each map has its own scale"
    )
    if smooth > 1:
        words = f"means over {smooth} x {smooth} pixels; {words}"
    parts = positive(values, smooth)
    canvas.text((4, 32), words, theme.SMALL, theme.MUTED)
    draw_bar(canvas, (4, 60, 244, 72), ("0", "highest of the map"))
    if with_signed:
        draw_signed_bar(canvas, (294, 60, 534, 72), ("against", "for"))
    for i, (image, map_, part) in enumerate(zip(images, values, parts, strict=True)):
        row, column = (i, 0) if with_signed else divmod(i, per_row)
        top = _TOP + row * step
        boxes = []
        for at in range(column, column + (3 if with_signed else 1)):
            left = 4 + at * (side + _GAP)
            boxes.append((left, top + _TITLE, left + side, top + _TITLE + high))
        canvas.text((boxes[0][0], top), titles[i], theme.SMALL, bold=True)
        span = f"{map_.min():.2g} to {map_.max():.2g}"
        if not with_signed:
            draw_overlay(canvas, image, part, boxes[0])
            canvas.text((boxes[0][0], boxes[0][3] + 3), span, 15, theme.MUTED)
            continue
        canvas.draw_image(image, boxes[0], smooth=True)
        canvas.rect(boxes[0], outline=theme.LINE)
        draw_overlay(canvas, image, part, boxes[1])
        draw_signed(canvas, map_, boxes[2])
        for box, text in zip(
            boxes,
            ("the image", "what speaks for the class", f"for and against: {span}"),
            strict=True,
        ):
            canvas.text((box[0], box[3] + 3), text, 15, theme.MUTED)
    said = "; ".join(
        f"{title}: {map_.min():.2g} to {map_.max():.2g}"
        for title, map_ in zip(titles, values, strict=True)
    )
    return Figure(compact(canvas.image), f"{note}; {said}")


def maps_figure(
    image: np.ndarray, values: Sequence[np.ndarray], titles: Sequence[str], notes: Sequence[str]
) -> Figure:
    """One image once, and its signed maps beside it, each on a scale of its own.

    Args:
        image: (H, W, 3) uint8.
        values: signed maps (H, W); a line runs around what is above half of the highest value.
        titles, notes: a short text above each map, and one below before its range.
    """
    high, wide = image.shape[:2]
    side = min((theme.WIDTH - 8 - _GAP * len(values)) / (len(values) + 1), 230)
    tall = side * high / wide
    canvas = Canvas(theme.WIDTH, round(_TITLE + tall + 2 * _NOTE + 42))
    boxes = []
    for at in range(len(values) + 1):
        left = 4 + at * (side + _GAP)
        boxes.append((left, _TITLE, left + side, _TITLE + tall))
    canvas.draw_image(image, boxes[0], smooth=True)
    canvas.rect(boxes[0], outline=theme.LINE)
    canvas.text((boxes[0][0], 2), "the image", theme.SMALL, bold=True)
    said = []
    for box, map_, title, note in zip(boxes[1:], values, titles, notes, strict=True):
        canvas.draw_image(signed(map_), box, smooth=True)
        draw_outline(canvas, map_, box, theme.INK)
        canvas.rect(box, outline=theme.LINE)
        canvas.text((box[0], 2), title, theme.SMALL, bold=True)
        canvas.text((box[0], box[3] + 4), note, 15, theme.MUTED)
        span = f"{map_.min():.2g} to {map_.max():.2g}"
        canvas.text((box[0], box[3] + 24), span, 15, theme.MUTED)
        said.append(f"{title}: {note}, {span}")
    below = _TITLE + tall + 52
    draw_signed_bar(canvas, (4, below, 244, below + 12), ("against", "for"))
    words = "inside the line: above half of the highest value; each map has its own scale"
    canvas.text((274, below - 4), words, theme.SMALL, theme.MUTED)
    return Figure(compact(canvas.image), "; ".join(said))

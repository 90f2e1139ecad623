"""Which tokens of a map reach a token: yes or no for each, or the block after which it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import theme
from .canvas import Box, Canvas, png
from .figures import Figure

_COLUMNS = 4  # panels beside each other in `levels`


def block_colors(blocks: int) -> np.ndarray:
    """(blocks, 3) uint8: a colour for "reaches after block 1, 2, ...", dark to bright."""
    ends = np.linspace(0, 235, max(blocks, 2)).round().astype(int)  # the brightest is lost on white
    return theme.color_table()[ends[:blocks]]


def draw_cells(
    canvas: Canvas, colors: np.ndarray, box: Box, position: Sequence[int] | None = None
) -> Box:
    """A grid of (rows, columns, 3) uint8 cells in the upper left of a box, its proportions kept.

    The cell at ``position`` is filled in the colour of what the reader asks about, and ringed
    where cells are small. Returns the grid's own box.
    """
    left, top, right, bottom = box
    rows, columns = colors.shape[:2]
    cell = min((right - left) / columns, (bottom - top) / rows)
    area = (left, top, left + columns * cell, top + rows * cell)
    canvas.draw_image(np.ascontiguousarray(colors), area)
    if cell >= 6:  # hairlines between cells that are large enough to be told apart
        for row in range(1, rows):
            y = top + row * cell
            canvas.rect((left, y - 0.5, area[2], y + 0.5), fill=theme.PAPER)
        for column in range(1, columns):
            x = left + column * cell
            canvas.rect((x - 0.5, top, x + 0.5, area[3]), fill=theme.PAPER)
    canvas.rect(area, outline=theme.LINE)
    if position is not None:
        y, x = top + (position[0] + 0.5) * cell, left + (position[1] + 0.5) * cell
        half = max(cell / 2, 2)
        canvas.rect((x - half, y - half, x + half, y + half), fill=theme.FOCUS)
        if cell < 12:
            ring = half + 5
            canvas.rect((x - ring, y - ring, x + ring, y + ring), outline=theme.FOCUS, width=2)
    return area


def draw_legend(canvas: Canvas, colors: np.ndarray, y: float) -> None:
    """The colour of every number of blocks; the token; what does not reach it."""
    x = canvas.swatch((12, y), theme.FOCUS, "the token")
    x = canvas.swatch((x, y), theme.UNREACHED, "does not reach it")
    canvas.text((x, y), "reaches it after so many blocks", theme.SMALL, theme.MUTED)
    x += canvas.text_width("reaches it after so many blocks", theme.SMALL) + 12
    width = min(26.0, (canvas.width - 12 - x) / len(colors))
    every = int(20 / width) + 1  # numbers that would touch are left out
    for block, color in enumerate(colors, start=1):
        box = (x, y - 2, x + width, y + 12)
        canvas.rect(box, fill="#{:02x}{:02x}{:02x}".format(*color))
        if block % every == 0:
            canvas.text((x + width / 2, y + 15), str(block), 15, theme.MUTED, "ma")
        x += width


def yes_no(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool as colours: what reaches is dark, the rest pale."""
    colors = np.array([theme.rgb(theme.UNREACHED), theme.rgb(theme.REACHED)], np.uint8)
    return colors[mask.astype(int)]


def levels(
    maps: Mapping[str, np.ndarray],
    point: str,
    position: Sequence[int] | None,
    title: str,
    dark: str,
    text: str,
) -> Figure:
    """Maps of several points side by side, each (rows, columns) bool, in the order given.

    The point's own panel shows its position; under each map stands how many of its places are dark,
    and ``dark`` says what that means.
    """
    side, step, top = 232, 270, 44
    heights = [max(side * min(1.0, m.shape[0] / m.shape[1]), 24) for m in maps.values()]
    lines = -(-len(maps) // _COLUMNS)
    line = max(heights) + 66
    canvas = Canvas(theme.WIDTH, round(top + lines * line + 30))
    canvas.text((6, 6), title, theme.TITLE, bold=True)
    for i, (name, mask) in enumerate(maps.items()):
        left, y = 6 + i % _COLUMNS * step, top + i // _COLUMNS * line
        shown = "input (pixels)" if name == "input" else name
        canvas.text((left, y), shown, theme.SMALL, bold=name == point)
        box = (left, y + 24, left + side, y + 24 + max(heights))
        area = draw_cells(canvas, yes_no(mask), box, position if name == point else None)
        rows, columns = mask.shape
        note = f"{int(mask.sum())} of {rows} x {columns}"
        canvas.text((left, area[3] + 4), note, theme.SMALL, theme.MUTED)
    y = canvas.height - 28
    x = canvas.swatch((6, y), theme.REACHED, dark)
    x = canvas.swatch((x, y), theme.UNREACHED, "cannot")
    if position is not None:
        canvas.swatch((x, y), theme.FOCUS, f"{tuple(position)} of {point}")
    return Figure(png(canvas.image), text)

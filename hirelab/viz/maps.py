"""Heat maps and gate weights, drawn on a `Canvas`."""

from __future__ import annotations

import numpy as np

from .._shared.errors import HirelabError
from . import theme
from .canvas import Box, Canvas


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """(H, W) numbers to (H, W, 3) uint8 by the sequential colour map.

    ``low`` and ``high`` are the ends of the scale, by default the smallest and largest value. A
    map of one value only is drawn at the low end.

    Raises:
        HirelabError: for values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise HirelabError("The map holds NaN or infinite values; there is no colour for them.")
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    span = high - low or 1.0
    index = np.clip((values - low) / span * 255, 0, 255).astype(np.uint8)
    return theme.color_table()[index]


def draw_heat_map(
    canvas: Canvas, values: np.ndarray, box: Box, title: str, color: str | None = None
) -> Box:
    """A heat map with its name above and its own scale below; returns the map's own box.

    The map keeps its proportions inside the box, so a region grid is seen to be narrower than the
    token grid that it came from. ``color`` marks what the map belongs to.
    """
    left, top, right, bottom = box
    name = left
    if color:
        canvas.rect((left, top + 4, left + 12, top + 16), fill=color)
        name += 18
    canvas.text((name, top), title, theme.SMALL, bold=True)
    rows, cols = values.shape
    cell = min((right - left) / cols, (bottom - top - 44) / rows)
    area = (left, top + 24, left + cols * cell, top + 24 + rows * cell)
    canvas.draw_image(heat(values), area)
    canvas.rect(area, outline=theme.LINE)
    note = f"{values.min():.2g} to {values.max():.2g}"
    canvas.text((left, area[3] + 3), note, 15, theme.MUTED)
    return area


def draw_gate(canvas: Canvas, weights: np.ndarray, branches: tuple[str, ...], box: Box) -> None:
    """The gate's weights, (C, branches): a column a channel, sorted, the branches stacked.

    Equal shares are what an undecided gate gives to its branches.
    """
    left, top, right, bottom = box
    order = np.lexsort((weights[:, 0], weights.argmax(axis=1)))
    stacked = np.cumsum(weights[order], axis=1)
    width, height = (
        max(1, round((right - left) * canvas.scale)),
        max(1, round((bottom - top) * canvas.scale)),
    )
    column = np.minimum(np.arange(width) * len(order) // width, len(order) - 1)
    level = (np.arange(height)[:, None] + 0.5) / height  # 0 at the top
    index = (level[..., None] > stacked[column][None]).sum(axis=-1).clip(0, len(branches) - 1)
    palette = np.array([theme.rgb(theme.BRANCH[b]) for b in branches], dtype=np.uint8)
    canvas.draw_image(palette[index], box)
    canvas.rect(box, outline=theme.LINE)

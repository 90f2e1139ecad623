"""How many tokens reach a token in several networks: bars for every stage, or on an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from . import theme
from .canvas import Box, Canvas
from .figures import Figure, chart, finish


@dataclass(frozen=True)
class Bar:
    """A network in a stage.

    Attributes:
        name: of the network.
        shares: of the map that reaches a token after 0, 1, ... blocks, 0 to 1.
        image: share of the image that reaches the middle token at the end of the stage.
        until: blocks after which every token reaches every other, in words.
    """

    name: str
    shares: np.ndarray
    image: float
    until: str


def reach_bars(panels: Mapping[str, Sequence[Bar]], own: str, text: str) -> Figure:
    """A panel for each stage by its title, a bar for each network: how much of its map reaches a
    token, with a cut after every block; a diamond says how much of the image.

    The bar of the network whose name begins with ``own`` stands out.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    most = max(len(bars) for bars in panels.values())
    with chart(11, 1.2 + lines * (0.95 + 0.3 * most), **{"axes.grid": False}) as figure:
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, bars) in zip(grid.flat, panels.items(), strict=False):
            for y, bar in enumerate(bars):
                cuts = 100 * bar.shares
                color = theme.BLUE if bar.name.startswith(own) else theme.SLOTS[1]
                axes.barh(y, cuts[-1], 0.66, color=color)
                axes.vlines(cuts[1:-1], y - 0.33, y + 0.33, color=theme.PAPER, linewidth=1)
                axes.plot(
                    100 * bar.image,
                    y,
                    **{"marker": "D", "markersize": 5.5, "color": theme.ORANGE, "clip_on": False},
                    markeredgecolor=theme.INK,
                    zorder=3,
                )
                axes.annotate(
                    f"has {len(bar.shares) - 1}, needs {bar.until}",
                    (1.035, y),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize=10,
                )
            axes.annotate(
                "blocks until\nall hear all",
                (1.035, 1.0),
                xycoords="axes fraction",
                va="bottom",
                fontsize=9,
                color=theme.MUTED,
            )
            end = _end(bars)
            scale = "%" if end == 100 else f"%, this scale ends at {end}"
            axes.set(xlim=(0, end), ylim=(len(bars) - 0.5, -0.6), title=title, xlabel=scale)
            axes.set_xticks(range(0, end + 1, 20 if end == 100 else 5))
            axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
            axes.tick_params(axis="y", length=0, pad=9)  # a diamond at 0 does not touch a name
        figure.legend(
            handles=[
                Patch(color=theme.BLUE, label="of the map, through the stage's blocks (cuts)"),
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker="D",
                    color=theme.ORANGE,
                    markeredgecolor=theme.INK,
                    label="of the image, through all stages so far (middle token)",
                ),
            ],
            loc="outside lower center",
            ncols=2,
        )
        return finish(figure, text)


def _end(bars: Sequence[Bar]) -> int:
    """Where a panel's scale ends, in percent: at 100, or where all is small, at the next five."""
    most = 100 * max(max(bar.shares[-1], bar.image) for bar in bars)
    return 100 if most > 40 else 5 * int(most // 5 + 1)


def draw_reached(
    canvas: Canvas,
    image: Image.Image,
    steps: Sequence[np.ndarray],
    colors: np.ndarray,
    position: Sequence[int],
    box: Box,
) -> None:
    """A square image, paler, its tokens tinted by the block after which they reach a token.

    Args:
        steps: (rows, columns) bool after 0, 1, ... blocks.
        colors: (blocks, 3) uint8, for the first block, the second ...
        position: (row, column) of the token, which is filled and ringed.
    """
    rows, columns = steps[0].shape
    side = round((box[2] - box[0]) * canvas.scale)
    # paler, so that tints are seen; enough of its colours is left to tell it from a drawing when
    # it is encoded
    pale = ImageEnhance.Color(image).enhance(0.4).resize((side, side), Image.Resampling.BILINEAR)
    since = np.sum([~reached for reached in steps], axis=0)  # blocks that were not enough
    table = np.vstack([colors[:1], colors, np.full((1, 3), 255, np.uint8)])  # itself ... never
    tint = Image.fromarray(table[since]).resize((side, side), Image.Resampling.NEAREST)
    canvas.draw_image(np.asarray(Image.blend(pale, tint, 0.66)), box)
    canvas.rect(box, outline=theme.LINE)
    down, across = (box[3] - box[1]) / rows, (box[2] - box[0]) / columns
    y, x = box[1] + (position[0] + 0.5) * down, box[0] + (position[1] + 0.5) * across
    canvas.rect((x - across / 2, y - down / 2, x + across / 2, y + down / 2), fill=theme.FOCUS)
    if down < 12:  # found at once, also on a fine map
        ring = down / 2 + 5
        canvas.rect((x - ring, y - ring, x + ring, y + ring), outline=theme.FOCUS, width=2)


def draw_scale(canvas: Canvas, colors: np.ndarray, box: Box) -> None:
    """What the tints of `draw_reached` mean, one below the other."""
    left, y, _, bottom = box
    for color, what in ((theme.FOCUS, "the token"), (theme.UNREACHED, "not reached")):
        canvas.swatch((left, y), color, what)
        y += 30
    for line in ("reached after", "so many blocks"):
        canvas.text((left, y), line, theme.SMALL, theme.MUTED)
        y += 22
    y += 8
    height = min(24.0, (bottom - y) / len(colors))
    every = int(18 / height) + 1  # numbers that would touch are left out
    for block, color in enumerate(colors, start=1):
        fill = "#{:02x}{:02x}{:02x}".format(*color)
        canvas.rect((left, y, left + 26, y + height), fill=fill)
        if block % every == 0:
            canvas.text((left + 34, y + height / 2), str(block), 15, theme.MUTED, "lm")
        y += height

"""Receptive fields: a map in logarithmic colours, squares on it, and curves of mass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import maps, theme
from .canvas import Box, Canvas, png
from .figures import LINES, Figure, chart, finish

DECADES = 4  # powers of ten from the darkest colour to the brightest
_SHADES = 10  # colours a power of ten: as many as are told apart, and few enough for a palette
_COLUMNS = 5  # panels beside each other in `fields_figure`


def logarithm(values: np.ndarray, decades: int = DECADES) -> np.ndarray:
    """log10 of a map as a share of its largest value, from ``-decades`` to 0; for colours only."""
    values = np.asarray(values, dtype=np.float64)
    largest = values.max()
    if largest <= 0:
        return np.full(values.shape, -float(decades))
    return np.log10(np.maximum(values / largest, 10.0**-decades))


def _stepped(logs: np.ndarray) -> np.ndarray:
    """Logarithms as the colours have them."""
    return np.round(logs * _SHADES) / _SHADES


def square_box(centre: Sequence[float], side: float, image: Sequence[int]) -> Box:
    """Left, top, right, bottom in pixels of a square around a place, cut off at the image."""
    (down, right), half = centre, side / 2
    return (
        max(right - half, 0),
        max(down - half, 0),
        min(right + half, image[1]),
        min(down + half, image[0]),
    )


def draw_field(
    canvas: Canvas,
    values: np.ndarray,
    centre: Sequence[float],
    side: float,
    box: Box,
    reachable: np.ndarray | None = None,
) -> None:
    """The map in a box of its proportions, with the square of ``side`` pixels around ``centre``.

    ``reachable``, (H, W) bool: its border is drawn as a white line inside it.
    """
    left, top, right, bottom = box
    high, wide = values.shape
    colors = maps.heat(_stepped(logarithm(values)), -DECADES, 0)
    canvas.draw_image(colors if reachable is None else _bordered(colors, reachable), box)
    x, y = (right - left) / wide, (bottom - top) / high
    inner = square_box(centre, side, values.shape)
    frame = (left + inner[0] * x, top + inner[1] * y, left + inner[2] * x, top + inner[3] * y)
    wider = (frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1)
    canvas.rect(wider, outline=theme.PAPER, width=4)  # seen on dark and on bright
    canvas.rect(frame, outline=theme.FOCUS, width=2)
    canvas.rect(box, outline=theme.LINE)


def _bordered(colors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image at least four times as large, the mask's border a thin white line."""
    fold = max(4, 512 // max(mask.shape))  # of a map of few tokens each is many pixels
    mask = np.kron(mask, np.ones((fold, fold), bool))
    colors, pen = np.kron(colors, np.ones((fold, fold, 1), np.uint8)), 2
    padded = np.pad(mask, pen, constant_values=False)
    high, wide = mask.shape
    inner = mask.copy()
    for down, right in ((0, pen), (2 * pen, pen), (pen, 0), (pen, 2 * pen)):
        inner &= padded[down : down + high, right : right + wide]
    colors[mask & ~inner] = theme.rgb(theme.PAPER)
    return colors


def draw_scale(canvas: Canvas, box: Box, decades: int = DECADES) -> None:
    """The colours of `draw_field`, with their values."""
    left, _, right, bottom = box
    ramp = _stepped(np.linspace(-decades, 0, 1024))[None]
    canvas.draw_image(maps.heat(ramp, -decades, 0), box)
    canvas.rect(box, outline=theme.LINE)
    for step in range(decades + 1):
        x = left + (right - left) * step / decades
        canvas.line([(x, bottom), (x, bottom + 4)], theme.MUTED)
        label = "1" if step == decades else f"{10.0 ** (step - decades):g}"
        anchor = "la" if step == 0 else "ra" if step == decades else "ma"
        canvas.text((x, bottom + 6), label, 15, theme.MUTED, anchor)


def draw_curve(
    canvas: Canvas, sides: np.ndarray, curve: np.ndarray, half: float, longest: float, box: Box
) -> None:
    """Share of mass against the square's side; both axes linear, the side up to ``longest``."""
    left, top, right, bottom = box

    def at(side: float, share: float) -> tuple[float, float]:
        return left + (right - left) * side / longest, bottom - (bottom - top) * share

    for share in (0, 0.25, 0.5, 0.75, 1):
        canvas.line([at(0, share), at(longest, share)], theme.LINE)
        canvas.text((left - 8, at(0, share)[1]), f"{share:.0%}", 15, theme.MUTED, "rm")
    step = 50 if longest <= 250 else 100 * max(1, round(longest / 500))
    for side in range(0, int(longest) + 1, step):
        x, y = at(side, 0)
        canvas.line([(x, y), (x, y + 4)], theme.MUTED)
        canvas.text((x, y + 7), str(side), 15, theme.MUTED, "ma")
    inside = sides <= longest
    steps = np.repeat(np.concatenate([[0], sides[inside], [longest]]), 2)[1:-1]
    shares = np.repeat(np.concatenate([[0], curve[inside]]), 2)
    canvas.line([at(s, c) for s, c in zip(steps, shares, strict=True)], theme.BLUE, 3)
    if half <= longest:
        canvas.line([at(half, 0), at(half, 0.5), at(0, 0.5)], theme.FOCUS, 2)


def field_figure(
    values: np.ndarray,
    centre: Sequence[float],
    side: float,
    curves: tuple[np.ndarray, np.ndarray, np.ndarray],
    title: str,
    scale: str,
    text: str,
    decades: int = DECADES,
) -> Figure:
    """A receptive field beside its curve of mass.

    Args:
        values: (H, W) linear map.
        centre, side: of the half-mass square, in pixels; the place down first.
        curves: sides (S,), the average map's shares (S,), every image's (images, S).
        title, scale: words above and under the map.
        text: of the figure.
        decades: powers of ten in the colours.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    sides, curve, each = curves
    with chart(9, 4.2, **{"axes.grid": False}) as figure:
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
        figure.suptitle(title, x=0.015, ha="left", fontsize=12, fontweight="bold")
        high, wide = values.shape
        image = left.imshow(
            logarithm(values, decades),
            cmap=colormaps[theme.SEQUENTIAL].resampled(decades * _SHADES),
            vmin=-decades,
            vmax=0,
            extent=(0, wide, high, 0),
            interpolation="nearest",
        )
        box = square_box(centre, side, values.shape)
        across, down = box[2] - box[0], box[3] - box[1]
        for color, width in ((theme.PAPER, 4), (theme.FOCUS, 1.8)):
            left.add_patch(
                Rectangle(box[:2], across, down, fill=False, edgecolor=color, linewidth=width)
            )
        left.set(xlabel="pixels", ylabel="pixels")
        ticks = range(-decades, 1)
        bar = figure.colorbar(image, ax=left, ticks=ticks, shrink=0.85)
        bar.ax.set_yticklabels(["1" if k == 0 else f"$10^{{{k}}}$" for k in ticks])
        bar.set_label(f"{scale}, share of the largest", fontsize=9)
        right.grid(True)
        for row in each if len(each) > 1 else ():
            right.step(sides, row, where="post", color=theme.LINE, linewidth=0.8)
        right.step(sides, curve, where="post", color=theme.BLUE)
        right.plot([side, side, 0], [0, 0.5, 0.5], color=theme.FOCUS, linewidth=1.4)
        right.annotate(
            f"half within {side:g} px",
            (side, 0.5),
            (6, -4),
            textcoords="offset points",
            fontsize=10,
            va="top",
        )
        right.set(xlim=(0, sides[-1]), ylim=(0, 1.02))
        right.set(xlabel="side of the square, pixels", ylabel="share of the mass (linear map)")
        if len(each) > 1:
            right.set_title(f"mean of {len(each)}, and each image", fontsize=10)
        return finish(figure, text)


def fields_figure(
    panels: Sequence[tuple[str, np.ndarray, Sequence[float], float, np.ndarray | None]],
    scale: str,
    text: str,
) -> Figure:
    """Receptive fields side by side, each with its half-mass square and the same colours.

    Args:
        panels: name, (H, W) linear map, centre, side of the half-mass square in pixels, and
            (H, W) bool where a border is drawn, or None; all of one size.
        scale: what the colours say.
        text: of the figure.
    """
    lines = -(-len(panels) // _COLUMNS)
    columns = -(-len(panels) // lines)  # six are three and three, not five and one
    step = theme.WIDTH / max(columns, 3)  # two would fill more than a screen
    side = step - 18
    rows, wide = panels[0][1].shape
    high = side * rows / wide
    line = high + 62
    canvas = Canvas(theme.WIDTH, round(lines * line + 66))
    for i, (name, values, centre, half, mask) in enumerate(panels):
        left, top = 4 + i % columns * step, i // columns * line
        canvas.text((left, top + 4), name, theme.SMALL, bold=True)
        box = (left, top + 28, left + side, top + 28 + high)
        draw_field(canvas, values, centre, half, box, mask)
        canvas.text((left, top + 32 + high), f"half within {half:g} px", theme.SMALL, theme.MUTED)
    y = lines * line + 12
    draw_scale(canvas, (4, y, 364, y + 14))
    x = canvas.swatch((394, y - 4), theme.FOCUS, "holds half of the mass")
    if any(mask is not None for *_, mask in panels):
        x = canvas.swatch((x, y - 4), theme.PAPER, "border of what can reach it")
    note = f"{scale}, share of each map's largest; images of {rows} x {wide} pixels"
    canvas.text((394, y + 22), note, 15, theme.MUTED)
    return Figure(png(canvas.image), text)


def curves_figure(
    names: Sequence[str], relative: np.ndarray, curves: np.ndarray, text: str
) -> Figure:
    """Share of mass against side, as a share of the image's, a line for each name."""
    with chart(8, 3.8) as figure:
        axes = figure.subplots()
        dashes = [line["linestyle"] for line in LINES]
        for i, (name, curve) in enumerate(zip(names, curves, strict=True)):
            style = {**LINES[i % len(LINES)], "color": theme.CYCLE[i % len(theme.CYCLE)]}
            style["linestyle"] = dashes[i % len(dashes)]
            every = (5 * i % 25, 25)  # markers of different lines at different places
            axes.plot(relative, curve, label=name, markersize=5, markevery=every, **style)
        axes.axhline(0.5, color=theme.INK, linewidth=1)
        axes.set(xlabel="side of the square, share of the image's", ylabel="share of the mass")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return finish(figure, text)

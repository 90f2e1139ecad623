"""Detectors and segmenters: what they find on an image, and how they came to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import theme
from .canvas import Box, Canvas, compact
from .figures import LINES, Figure, chart, finish

_COVER = 0.45  # of a mask over the image
_GAP, _TITLE = 20, 30
_CAPTION = 15  # logical pixels
LEGEND_ROW = 26  # its height
MOST_ROWS = 20  # of a figure of classes
BACKGROUND = "background"  # the name of what has no colour

# ------------------------------------------------------------------ on an image


def class_colors(count: int) -> list[str]:
    """A colour for each class; beyond seven lighter ones, which names beside them tell apart."""
    light = [
        "#{:02x}{:02x}{:02x}".format(*((int(c) + 255) // 2 for c in theme.rgb(color)))
        for color in theme.CYCLE
    ]
    both = [*theme.CYCLE, *light]
    return [both[i % len(both)] for i in range(count)]


def draw_objects(
    canvas: Canvas,
    box: Box,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    captions: Sequence[str],
    masks: np.ndarray,
    chosen: int | None = None,
) -> None:
    """An image stretched into a box, with outlined objects, their masks and captions.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) in pixels; ``labels``: (N,), which decide the colours; ``captions``: N.
        masks: (N, H, W) bool, or none.
        chosen: the object that the reader asks about, drawn in the colour of focus.
    """
    height, width = image.shape[:2]
    colors = class_colors(int(labels.max(initial=0)) + 1)
    canvas.draw_image(_covered(image, masks, [colors[k] for k in labels]), box, smooth=True)
    across, down = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    order = [i for i in range(len(boxes)) if i != chosen] + ([] if chosen is None else [chosen])
    outlines: list[Box] = [
        (box[0] + x1 * across, box[1] + y1 * down, box[0] + x2 * across, box[1] + y2 * down)
        for x1, y1, x2, y2 in boxes.astype(float).tolist()
    ]
    for i in order:
        left, top, right, bottom = outlines[i]
        edge = theme.FOCUS if i == chosen else colors[labels[i]]
        canvas.rect((left - 1, top - 1, right + 1, bottom + 1), outline=theme.PAPER, width=4)
        canvas.rect((left, top, right, bottom), outline=edge, width=3 if i == chosen else 2)
    tabs: list[Box] = []
    for i in reversed(order):  # over all outlines; the chosen one has the first choice
        edge = theme.FOCUS if i == chosen else colors[labels[i]]
        others = [outline for j, outline in enumerate(outlines) if j != i]
        wide = canvas.text_width(captions[i], _CAPTION) + 8
        tabs.append(_place_tab(box, outlines[i], (wide, _CAPTION + 5), tabs, others))
        _tab(canvas, tabs[-1], captions[i], edge)
    canvas.rect(box, outline=theme.LINE)


def _covered(image: np.ndarray, masks: np.ndarray, colors: Sequence[str]) -> np.ndarray:
    """The image with colours over masks; grey under them, so that no colour is mixed."""
    covered = image.astype(float)
    grey = np.repeat((image @ np.array([0.299, 0.587, 0.114]))[..., None], 3, axis=2)
    for mask, color in zip(masks, colors, strict=False):
        covered[mask] = (1 - _COVER) * grey[mask] + _COVER * np.array(theme.rgb(color))
    return covered.round().astype(np.uint8)


def _place_tab(
    box: Box, own: Box, size: tuple[float, float], tabs: Sequence[Box], others: Sequence[Box]
) -> Box:
    """Where the caption of an object stands: above it, below, beside or inside, in the image and
    where it covers least of other captions and, after those, of other objects."""
    (left, top, right, bottom), (wide, high) = own, size
    corners = [(x, y) for y in (top - high, bottom) for x in (left, right - wide)]
    corners += [
        (right, top),
        (left - wide, top),
        (right, bottom - high),
        (left - wide, bottom - high),
    ]
    corners += [(left, top), (left, bottom - high)]  # inside, where nothing else is in the image
    places = []
    for x, y in corners:
        x = min(max(x, box[0]), max(box[0], box[2] - wide))
        if box[1] <= y <= box[3] - high:
            places.append((x, y, x + wide, y + high))
    if not places:
        places.append((left, box[1], left + wide, box[1] + high))

    def covered(place: Box) -> tuple[float, float]:
        return sum(_shared(place, tab) for tab in tabs), sum(_shared(place, o) for o in others)

    return min(places, key=covered)  # the first of equals


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes have in common."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(down, 0.0)


def _tab(canvas: Canvas, place: Box, words: str, color: str) -> None:
    """A caption on a ground of its object's colour."""
    canvas.rect(place, fill=color)
    light = np.dot(theme.rgb(color), (0.299, 0.587, 0.114)) > 140
    canvas.text((place[0] + 4, place[1] + 1), words, _CAPTION, theme.INK if light else theme.PAPER)


def draw_pixels(
    canvas: Canvas, box: Box, image: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> None:
    """An image under the colours of its pixels' classes, with a legend below the box.

    Args:
        labels: (H, W), an index into ``names``; what is beyond them, or called background, has
            no colour.
    """
    colored = [name for name in names if name != BACKGROUND]
    colors = dict(zip(colored, class_colors(len(colored)), strict=True))
    present = legend_of(labels, names)
    masks = np.array([labels == k for k in present]).reshape(-1, *labels.shape)
    canvas.draw_image(_covered(image, masks, [colors[names[k]] for k in present]), box)
    canvas.rect(box, outline=theme.LINE)
    x, y = box[0], box[3] + 6
    for k in present:
        if x > box[0] and x + 23 + canvas.text_width(names[k], theme.SMALL) > box[2]:
            x, y = box[0], y + LEGEND_ROW
        x = canvas.swatch((x, y), colors[names[k]], names[k])


def legend_of(labels: np.ndarray, names: Sequence[str]) -> list[int]:
    """The classes of a label map that are coloured, the largest first; a background is not."""
    present = [k for k in range(len(names)) if names[k] != BACKGROUND and (labels == k).any()]
    return sorted(present, key=lambda k: -int((labels == k).sum()))


def sheet(
    panels: Mapping[str, Callable[[Canvas, Box], None]],
    ratio: float,
    text: str,
    columns: int = 3,
    below: int = 0,
) -> Figure:
    """Panels of one size beside each other, each drawn by its function, with its title above.

    Args:
        ratio: height of a panel by its width.
        below: space under a panel, for a legend, in logical pixels.
    """
    columns = min(columns, len(panels))
    wide = min(520, (theme.WIDTH - 12 - _GAP * (columns - 1)) // columns)
    high, rows = round(wide * ratio), -(-len(panels) // columns)
    step = _TITLE + high + below + _GAP
    canvas = Canvas(12 + columns * wide + (columns - 1) * _GAP, rows * step)
    for i, (title, draw) in enumerate(panels.items()):
        left, top = 6 + i % columns * (wide + _GAP), i // columns * step
        canvas.text((left, top + 4), title, theme.SMALL, bold=True)
        draw(canvas, (left, top + _TITLE, left + wide, top + _TITLE + high))
    return Figure(compact(canvas.image), text)


# ------------------------------------------------------------------ in training


def results(
    groups: Sequence[str],
    curves: Sequence[Sequence[Sequence[Sequence[float]]]],
    classes: Sequence[str],
    by_class: np.ndarray,
    *,
    title: str,
    measure: str,
    text: str,
) -> Figure:
    """Left the measure against epochs, a thin line for each run; right each class's figure.

    Args:
        groups: names; ``curves``: of each group, of each run, (epochs, values).
        classes: K names; ``by_class``: (groups, K).
    """
    from matplotlib.ticker import MaxNLocator

    best = np.nan_to_num(by_class, nan=-1.0).max(0)
    kept = np.sort(np.argsort(-best, kind="stable")[:MOST_ROWS])  # eighty would fill two pages
    rows = kept[np.argsort(np.nan_to_num(by_class[0, kept], nan=-1.0), kind="stable")]
    few = len(rows) < len(classes)
    head = f"the best {len(rows)} of {len(classes)} classes" if few else "class by class"
    end = 100 if best.max() > 50 else 10 * (best.max() // 10 + 1)
    with chart(9, max(3.4, 0.26 * len(rows) + 1.4)) as figure:
        left, right = figure.subplots(1, 2)
        for group, runs, figures, line in zip(groups, curves, by_class, LINES, strict=False):
            for i, (epochs, values) in enumerate(runs):
                left.plot(epochs, values, markersize=4, label="" if i else group, **line)
            style = {"color": line["color"], "marker": line["marker"], "linestyle": "none"}
            right.plot(figures[rows], np.arange(len(rows)), markersize=6, **style)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(xlabel="epochs", ylabel=f"{measure}, val", title="while they train")
        left.set_ylim(bottom=0)
        left.set_xlim(left=0)
        left.legend(loc="best")
        right.hlines(np.arange(len(rows)), 0, end, color=theme.LINE, linewidth=0.8, zorder=0)
        right.set_yticks(np.arange(len(rows)), [classes[k] for k in rows])
        right.set(xlim=(-0.02 * end, 1.02 * end))
        right.set_xlabel(f"{measure.replace('mean ', '')}, mean over seeds")
        right.set_title(f"at the end, {head}")
        right.grid(visible=False)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return finish(figure, text)


def padding(
    networks: Sequence[str], maps: Sequence[Sequence[np.ndarray]], pad: int, *, text: str
) -> Figure:
    """How much each place of each stage's map changes beside empty canvas, a row for each network.

    One step of the colour scale is a factor of ten; below a thousandth it ends.
    """
    from matplotlib.colors import LogNorm

    stages = len(maps[0])
    low = 1e-3
    width = 1.75 * stages + 1.6
    with chart(width, 1.75 * len(networks) + 0.9, **{"axes.grid": False}) as figure:
        grid = np.atleast_2d(figure.subplots(len(networks), stages))
        for name, row, axes_row in zip(networks, maps, grid, strict=True):
            for stage, (found, axes) in enumerate(zip(row, axes_row, strict=True)):
                shown = axes.imshow(
                    np.maximum(found, low), norm=LogNorm(low, 1), cmap=theme.SEQUENTIAL,
                    interpolation="nearest",
                )  # fmt: skip
                axes.set_xticks([])
                axes.set_yticks([])
                if name == networks[0]:
                    axes.set_title(f"stage {stage}")
            axes_row[0].set_ylabel(name)
        bar = figure.colorbar(shown, ax=grid, shrink=0.8, pad=0.02)
        bar.set_ticks([0.001, 0.01, 0.1, 1], labels=["0.1 %", "1 %", "10 %", "100 %"])
        bar.set_label("change of a place")
        figure.suptitle(f"{pad} pixels of canvas to the right and below", x=0.01, ha="left")
        return finish(figure, text)


def parts(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    *,
    unit: str,
    text: str,
) -> Figure:
    """Horizontal bars: for each column a panel, for each row a bar; the first row is the whole.

    Args:
        values: (rows, columns), NaN where there is nothing to say.
    """
    with chart(2.5 * len(columns) + 1.6, 0.42 * len(rows) + 1.3) as figure:
        axes_row = np.atleast_1d(figure.subplots(1, len(columns), sharey=True))
        places = np.arange(len(rows))
        for j, (name, axes) in enumerate(zip(columns, axes_row, strict=True)):
            colors = [theme.MUTED, *[theme.BLUE] * (len(rows) - 1)]
            shown = np.nan_to_num(values[:, j])
            axes.barh(places, shown, color=colors, height=0.62)
            axes.axvline(shown[0], color=theme.MUTED, linewidth=1, linestyle=":")
            for y, value in zip(places, values[:, j], strict=True):
                words = "none of this size" if value != value else f"{value:.1f}"
                axes.text(
                    np.nan_to_num(value) + 1.5,
                    y,
                    words,
                    va="center",
                    fontsize=10,
                    bbox={"facecolor": theme.PAPER, "linewidth": 0, "pad": 1},
                )
            axes.set(xlim=(0, 118), xlabel=unit, title=name)
            axes.set_xticks([0, 50, 100])
            axes.grid(visible=False)
        axes_row[0].set_yticks(places, rows)
        axes_row[0].invert_yaxis()
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return finish(figure, text)


def sides(
    groups: Mapping[str, Mapping[str, float]], boxes: np.ndarray, *, unit: str, text: str
) -> Figure:
    """How wide maps see, on the scale of how wide the objects are: a panel for each group of maps.

    Args:
        groups: {title: {map: side of the square that holds half of what a place hears, pixels}}.
        boxes: (N,) sides of the objects' boxes, the root of their area, in pixels.
    """
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    every = [side for levels in groups.values() for side in levels.values()]
    low, high = min(boxes.min(), *every) / 1.3, max(boxes.max(), *every) * 2.2
    with chart(9, 2.0 * len(groups) + 0.8) as figure:
        rows = np.atleast_1d(figure.subplots(len(groups), 1, sharex=True))
        for axes, (title, levels) in zip(rows, groups.items(), strict=True):
            edges = np.geomspace(boxes.min() / 1.05, boxes.max() * 1.05, 13)
            counts, _, _ = axes.hist(boxes, edges, color=theme.LINE, edgecolor=theme.PAPER)
            top = counts.max() * (1.15 + 0.24 * len(levels))
            for i, ((name, side), line) in enumerate(zip(levels.items(), LINES, strict=False)):
                height = top * (0.97 - 0.15 * i)
                axes.vlines(side, 0, height, color=line["color"], linestyle=line["linestyle"])
                words = f"{name}: {side:g} px"
                axes.text(side * 1.03, height, words, va="top", color=line["color"])
            axes.set(xscale="log", xlim=(low, high), ylim=(0, top), ylabel=unit, title=title)
            axes.grid(visible=False)
        last = rows[-1]
        last.set_xlabel(
            "side of a box (bars), and of what a place hears (lines), pixels, log scale"
        )
        last.set_xticks([s for s in (4, 8, 16, 32, 64, 128, 256, 512) if low <= s <= high])
        last.xaxis.set_major_formatter(ScalarFormatter())
        last.xaxis.set_minor_formatter(NullFormatter())
        return finish(figure, text)

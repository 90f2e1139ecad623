"""What activation patching finds: effects against depth, and place by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import overlay, theme
from .canvas import Box, Canvas, compact
from .figures import Figure, chart, finish

_SIDE, _GAP, _HEAD, _WORDS = 334, 33, 66, 92  # logical pixels
_BRANCHES = {
    f".hire.{name}.": {"color": color, "linestyle": "-", "marker": marker}
    for (name, color), marker in zip(theme.BRANCH.items(), "o^s", strict=True)
}
# of points that belong to no branch: other colours, and other dashes
_OTHERS: tuple[dict[str, Any], ...] = (
    {"color": theme.VERMILION, "linestyle": "--", "marker": "s"},
    {"color": theme.PURPLE, "linestyle": "-.", "marker": "^"},
    {"color": theme.INK, "linestyle": ":", "marker": "D"},
    {"color": theme.SKY, "linestyle": "--", "marker": "v"},
)


def effects_figure(
    points: Sequence[str],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    title: str,
    text: str,
) -> Figure:
    """Effects against depth: a line for each kind of point, a place on the axis for each block.

    Args:
        points: names in the order of the network; of a block's point, what stands before its own
            name is the block.
        mean, low, high: (points,).
    """
    places = list(dict.fromkeys(_block(name) for name in points))
    kinds = list(dict.fromkeys(_kind(name) for name in points))
    others = iter(_OTHERS * len(kinds))
    with chart(8.6, 3.8) as figure:
        axes = figure.subplots()
        for end in (0, 1):
            axes.axhline(end, color=theme.INK, linewidth=1)
        for kind in kinds:
            mine = [i for i, name in enumerate(points) if _kind(name) == kind]
            at = [places.index(_block(points[i])) for i in mine]
            own = next((look for part, look in _BRANCHES.items() if part in f".{kind}."), None)
            look: dict[str, Any] = own or next(others)
            axes.plot(at, mean[mine], label=kind, markersize=5, **look)
            if np.isfinite(low[mine]).any():
                axes.fill_between(at, low[mine], high[mine], color=look["color"], alpha=0.15,
                                  linewidth=0)  # fmt: skip
        axes.set_xticks(range(len(places)), [_short(place) for place in places])
        axes.set(ylabel="effect on the answer\n(mean and 95 % interval)", xlabel="stage.block")
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return finish(figure, text)


def _block(name: str) -> str:
    """The block or module that a point belongs to: stages.2.blocks.1, stages.2, stem."""
    parts = name.split(".")
    return ".".join(parts[:4] if "blocks" in parts else parts[:2] if "stages" in parts else parts)


def _kind(name: str) -> str:
    """A point's name inside its block; of others "other"."""
    return ".".join(name.split(".")[4:]) if ".blocks." in name else "between blocks"


def _short(place: str) -> str:
    return place.removeprefix("stages.").replace(".blocks.", ".").removesuffix(".out")


def places_figure(
    point: str,
    images: np.ndarray,
    others: np.ndarray,
    effects: np.ndarray,
    whole: np.ndarray,
    answers: Sequence[tuple[str, str]],
    text: str,
) -> Figure:
    """A row for each pair: the image, the other, and the effect of every place."""
    step = _SIDE + _WORDS
    canvas = Canvas(theme.WIDTH, _HEAD + len(images) * step)
    canvas.text((6, 6), f"What each place of {point} decides", theme.TITLE, bold=True)
    lefts = [6 + column * (_SIDE + _GAP) for column in range(3)]
    heads = ("the image", "the other, whose tensor is put in", "effect of each place")
    for left, head in zip(lefts, heads, strict=True):
        canvas.text((left, 38), head, theme.SMALL, bold=True)
    for row, (image, other, values) in enumerate(zip(images, others, effects, strict=True)):
        top = _HEAD + row * step
        boxes = [(left, top, left + _SIDE, top + _SIDE) for left in lefts]
        for box, shown in zip(boxes, (image, other), strict=False):
            canvas.draw_image(shown, box, smooth=True)
            _draw_places(canvas, box, values.shape)
            canvas.rect(box, outline=theme.LINE)
        canvas.draw_image(overlay.signed(values), boxes[2])
        canvas.rect(boxes[2], outline=theme.LINE)
        under = top + _SIDE + 6
        for left, answer in zip(lefts, answers[row], strict=False):
            canvas.text((left, under), f"answer: {answer}", theme.SMALL, theme.MUTED)
        size = float(np.abs(values).max())
        bar = (lefts[2], under, lefts[2] + _SIDE, under + 10)
        overlay.draw_signed_bar(canvas, bar, (f"{-size:.2g} away", f"{size:.2g} to the other"))
        words = (f"one by one, summed: {values.sum():+.2f}", f"all at once: {whole[row]:+.2f}")
        for line, said in enumerate(words):
            canvas.text((lefts[2], under + 30 + 18 * line), said, 15, theme.MUTED)
    return Figure(compact(canvas.image), text)


def _draw_places(canvas: Canvas, box: Box, shape: tuple[int, ...]) -> None:
    """Thin lines between the places on an image, where that leaves something of it to see."""
    left, top, right, bottom = box
    rows, columns = shape
    if max(rows, columns) > 16:
        return
    for row in range(1, rows):
        y = top + row * (bottom - top) / rows
        canvas.line([(left, y), (right, y)], theme.PAPER, 0.5)
    for column in range(1, columns):
        x = left + column * (right - left) / columns
        canvas.line([(x, top), (x, bottom)], theme.PAPER, 0.5)

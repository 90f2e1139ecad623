"""A Hire block as a diagram: its points as maps, joined in the order of the computation.

Three lanes, one a branch, run from the norm to the fusion; lines show what is added again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from . import maps, theme
from .canvas import Box, Canvas

HEIGHT = 622  # of the sheet, in logical pixels

# where a point stands, (column, row); what goes in has the name of the point that it comes from
_COLUMNS = {"shifted": 1, "regions": 2, "mixed": 3, "out": 4}
_ROWS = {"height": 0, "width": 1, "channel": 2}
_PLACES = {
    "hire.input": (0, 1),
    **{f"hire.{branch}.{leaf}": (column, _ROWS[branch])
       for branch in ("height", "width") for leaf, column in _COLUMNS.items()},
    "hire.channel.out": (4, 2),
    "hire.gate.out": (5, 0), "hire.fused": (5, 1), "hire.out": (5, 2),
    "mid": (6, 0), "mlp.out": (6, 1), "out": (6, 2),
}  # fmt: skip
_INPUT, _GATE = (0, 0), (5, 0)
_LEFT, _TOP, _STEP, _ROW = 8, 104, 152, 172  # of the first box, and from one to the next
_HEAD, _NAME = 22, 22  # a lane's heading, a box's name
_WIDE, _HIGH = 106, 84  # of a map, at most
_TEXT = 15


@dataclass(frozen=True, eq=False)
class PointMap:
    """A point as the diagram shows it.

    Attributes:
        values: (rows, columns) numbers.
        shape: its whole shape in words.
        regions: {axis of ``values``: the region of every row (0) or column (1)}; lines are drawn
            where regions meet.
    """

    values: np.ndarray
    shape: str
    regions: Mapping[int, np.ndarray] = field(default_factory=dict)


def draw_block(
    canvas: Canvas,
    points: Mapping[str, PointMap],
    source: str,
    lanes: Mapping[str, str],
    weights: np.ndarray,
) -> None:
    """Draw a block on a sheet of `HEIGHT`, below 100 pixels of heading.

    Args:
        points: by their names inside the block, such as "hire.height.out", and the block's input
            under ``source``.
        lanes: of each branch that the block has, what it does in a few words.
        weights: (C, branches) shares of the gate, (C, 0) where there is none.
    """
    for branch in _ROWS:
        words = lanes.get(branch, "this network has none")
        _draw_lane(canvas, branch, words)
    areas = {}
    for name, shown in points.items():
        column, row = _INPUT if name == source else _PLACES[name]
        lines = [
            shown.shape,
            _short(source).removesuffix(".out") if name == source else _scale(shown.values),
        ]
        title = "x" if name == source else _short(name)
        areas[name] = _draw_point(canvas, title, shown, lines, (column, row))
    if weights.shape[1]:
        _draw_gate(canvas, weights, tuple(lanes))
    _draw_lines(canvas, areas, source, tuple(lanes), gated=bool(weights.shape[1]))


def _short(name: str) -> str:
    """A point's name where there is little room: of another block without its stage, of a point in
    a lane without the lane's."""
    if name.startswith("stages."):
        return name.split(".", 2)[-1]
    return name.rsplit(".", 1)[-1] if name.count(".") > 1 else name


def _scale(values: np.ndarray) -> str:
    """The ends of a map's own scale."""

    def end(value: float) -> str:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}" if 0 < abs(value) < 1e-3 else f"{value:.2g}"

    return f"{end(values.min())} to {end(values.max())}"


def _corner(column: int, row: int) -> tuple[float, float]:
    """Left and top of a map."""
    return _LEFT + column * _STEP, _TOP + row * _ROW + _HEAD + _NAME


def _middle(row: int) -> float:
    """The height at which a row's maps are joined."""
    return _corner(0, row)[1] + _HIGH / 2


def _draw_lane(canvas: Canvas, branch: str, words: str) -> None:
    left, top = _LEFT + _STEP - 12, _TOP + _ROWS[branch] * _ROW
    box = (left, top - 2, _LEFT + 5 * _STEP - 32, top + _ROW - 8)
    canvas.rect(box, fill=theme.BRANCH[branch], alpha=0.09)
    canvas.rect((left, box[1], left + 5, box[3]), fill=theme.BRANCH[branch])
    canvas.text((left + 12, top), f"hire.{branch}", theme.SMALL, bold=True)
    x = left + 12 + canvas.text_width(f"hire.{branch}", theme.SMALL, bold=True) + 10
    canvas.text((x, top), words, _TEXT, theme.MUTED)


def _draw_point(
    canvas: Canvas, title: str, shown: PointMap, lines: list[str], place: tuple[int, int]
) -> Box:
    """A map with its name above it and lines of text below; returns the map's box."""
    values = shown.values
    left, top = _corner(*place)
    canvas.text((left, top - _NAME), title, theme.SMALL, bold=True)
    rows, cols = values.shape
    cell = min(_WIDE / cols, _HIGH / rows)
    wide, high = cols * cell, rows * cell
    # a flat map lies in the middle of its row, where the arrows run
    area = (left, top + (_HIGH - high) / 2, left + wide, top + (_HIGH + high) / 2)
    canvas.draw_image(maps.heat(values), area)
    canvas.rect(area, outline=theme.LINE)
    for axis, regions in shown.regions.items():
        for border in (np.flatnonzero(np.diff(regions)) + 1) * cell:
            y, x = area[1] + border, area[0] + border
            ends = [(area[0], y), (area[2], y)] if axis == 0 else [(x, area[1]), (x, area[3])]
            canvas.line(ends, theme.PAPER, 2)
    for number, text in enumerate(lines):
        canvas.text((left, top + _HIGH + 2 + 17 * number), text, _TEXT, theme.MUTED)
    return area


def _draw_gate(canvas: Canvas, weights: np.ndarray, branches: tuple[str, ...]) -> None:
    left, top = _corner(*_GATE)
    canvas.text((left, top - _NAME), "hire.gate.out", theme.SMALL, bold=True)
    maps.draw_gate(canvas, weights, branches, (left, top, left + _WIDE, top + _HIGH))
    canvas.text((left, top + _HIGH + 2), "by channel", _TEXT, theme.MUTED)
    means = " : ".join(f"{100 * mean:.0f}" for mean in weights.mean(axis=0))
    canvas.text((left, top + _HIGH + 19), f"{means} %", _TEXT, theme.MUTED)


# ------------------------------------------------------------------ what feeds what


def _draw_lines(
    canvas: Canvas, areas: Mapping[str, Box], source: str, lanes: tuple[str, ...], gated: bool
) -> None:
    def line(*points: tuple[float, float]) -> None:
        canvas.line(list(points), theme.MUTED, 2)

    def arrow(x: float, end: str) -> None:
        """From x to the left side of a map, at the middle of its row."""
        y = _middle(_PLACES[end][1])
        canvas.arrow((x, y), (areas[end][0] - 3, y), theme.MUTED)

    def down(column: int, row: int, words: str) -> None:
        """From a box to the one below it."""
        left, top = _corner(column, row)
        start, end = top + _HIGH + 38, _corner(column, row + 1)[1] - _NAME - 1
        canvas.arrow((left + 12, start), (left + 12, end), theme.MUTED)
        canvas.text((left + 26, (start + end) / 2), words, _TEXT, theme.MUTED, "lm")

    def right(name: str) -> float:
        return areas[name][2] + 4

    # into the lanes along one rail, through them, and out along another
    down(0, 0, "norm1")
    rail = _LEFT + _STEP - 30
    rows = [_middle(_ROWS[branch]) for branch in lanes]
    line((right("hire.input"), _middle(1)), (rail, _middle(1)))
    line((rail, min(*rows, _middle(1))), (rail, max(*rows, _middle(1))))
    out = _LEFT + 5 * _STEP - 22
    for branch in lanes:
        steps = [f"hire.{branch}.{leaf}" for leaf in _COLUMNS]
        at: float = rail
        for name in (step for step in steps if step in areas):
            arrow(at, name)
            at = right(name)
        line((at, _middle(_ROWS[branch])), (out, _middle(_ROWS[branch])))
    ends = [*rows, _middle(1), *([_middle(0)] if gated else [])]
    line((out, min(ends)), (out, max(ends)))
    if gated:
        gate = (_corner(*_GATE)[0] - 3, _middle(0))
        canvas.arrow((out, _middle(0)), gate, theme.MUTED)
        down(*_GATE, "shares")
    else:
        left, top = _corner(*_GATE)
        canvas.text((left, top + _HIGH), "no gate:", _TEXT, theme.MUTED)
        canvas.text((left, top + _HIGH + 18), "a plain sum", _TEXT, theme.MUTED)
    arrow(out, "hire.fused")
    down(5, 1, "proj" if gated else "as it is")
    # the block's two sums: what the hire module and the MLP make is added to what went in
    first, above = _LEFT + 6 * _STEP - 24, _TOP - 16
    line((right("hire.out"), _middle(2)), (first, _middle(2)))
    canvas.arrow((first, _middle(2)), (first, _middle(0) + 12), theme.MUTED)
    x = areas[source][0] + 60
    line((x, areas[source][1] - 3), (x, above), (first, above))
    canvas.arrow((first, above), (first, _middle(0) - 12), theme.MUTED)
    words = "x + hire(norm1(x))"
    canvas.text((first - 14, above - 3), words, _TEXT, theme.MUTED, "rs")
    _draw_plus(canvas, (first, _middle(0)))
    arrow(first + 10, "mid")
    down(6, 0, "norm2, mlp")
    second = _LEFT + 6 * _STEP + _WIDE + 26
    line((right("mid"), _middle(0)), (second, _middle(0)))
    canvas.arrow((second, _middle(0)), (second, _middle(1) - 12), theme.MUTED)
    line((right("mlp.out"), _middle(1)), (second - 10, _middle(1)))
    _draw_plus(canvas, (second, _middle(1)))
    line((second, _middle(1) + 10), (second, _middle(2)))
    canvas.arrow((second, _middle(2)), (areas["out"][2] + 3, _middle(2)), theme.MUTED)


def _draw_plus(canvas: Canvas, xy: tuple[float, float]) -> None:
    """The sign of a sum."""
    x, y = xy
    canvas.disc(xy, 10, theme.PAPER, theme.MUTED)
    canvas.line([(x - 5, y), (x + 5, y)], theme.INK, 2)
    canvas.line([(x, y - 5), (x, y + 5)], theme.INK, 2)

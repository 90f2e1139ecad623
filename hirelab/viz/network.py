"""A whole network at a glance: from the image through every block to the classes, left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import maps, theme
from .canvas import Box, Canvas

_NAMES, _SHAPES, _MAPS = 0, 20, 46  # from the top of the strip to a stage's name, its shape, maps
_WIDEST, _GAP, _GATE = 54, 5, 44  # of a map; between maps; height of a gate's bar
_TEXT = 15

OVERVIEW_HEIGHT = _MAPS + _WIDEST + 22 + _GATE


@dataclass(frozen=True, eq=False)
class StageView:
    """A stage as the overview shows it.

    Attributes:
        name, shape: in words.
        maps: (rows, columns) of what goes into the first block and what comes out of every block.
        shares: of every block, (branches,) the gate's mean shares; empty where there is no gate.
    """

    name: str
    shape: str
    maps: Sequence[np.ndarray]
    shares: Sequence[np.ndarray]


def draw_overview(
    canvas: Canvas,
    box: Box,
    image: np.ndarray,
    stages: Sequence[StageView],
    branches: Sequence[str],
    chosen: tuple[int, int],
) -> None:
    """The image, and of every stage its maps with the gates' shares below, in a strip of
    `OVERVIEW_HEIGHT`; the block at ``chosen``, (stage, block), is ringed."""
    left, top, right, _ = box
    cells = 1 + sum(len(stage.maps) for stage in stages)
    step = min(_WIDEST + _GAP, (right - left - 10 * len(stages)) / cells)
    side = step - _GAP
    y = top + _MAPS
    canvas.line([(left, y + side / 2), (right, y + side / 2)], theme.LINE, 2)
    canvas.draw_image(image, (left, y, left + side, y + side), smooth=True)
    if side > 44:
        canvas.text((left, y + side + 2), "image", _TEXT, theme.MUTED)
    every = 1 if step > 24 else 2  # neighbouring numbers would run into each other
    x = left + step
    for number, stage in enumerate(stages):
        x += 10
        head = (
            (stage.name, _NAMES, theme.SMALL, theme.INK),
            (stage.shape, _SHAPES, _TEXT, theme.MUTED),
        )
        for words, down, size, color in head:  # where they leave the neighbour's room alone
            if canvas.text_width(words, size, bold=down == _NAMES) <= step * len(stage.maps):
                canvas.text((x, top + down), words, size, color, bold=down == _NAMES)
        for at, values in enumerate(stage.maps):
            area = (x, y, x + side, y + side)
            canvas.draw_image(maps.heat(values), area)
            canvas.rect(area, outline=theme.LINE)
            label = str(at - 1) if at else "in"
            if side > 20 or (at - 1) % every == 0 < at:
                canvas.text((x, y + side + 2), label, _TEXT, theme.MUTED)
            if at:
                low = y + side + 22
                _draw_shares(
                    canvas, stage.shares[at - 1], branches, (x, low, x + side, low + _GATE)
                )
                if (number, at) == (0, 1):
                    _name_branches(canvas, branches, (left, low, x - _GAP, low + _GATE))
                if (number, at - 1) == chosen:
                    ring = (x - 3, y - 3, x + side + 3, low + _GATE + 3)
                    canvas.rect(ring, outline=theme.FOCUS, width=3)
            x += step
    canvas.arrow((right - 14, y + side / 2), (right, y + side / 2), theme.MUTED)


def _draw_shares(canvas: Canvas, shares: np.ndarray, branches: Sequence[str], box: Box) -> None:
    left, top, right, bottom = box
    for branch, share in zip(branches if len(shares) else (), shares, strict=True):
        low = top + share * (bottom - box[1])
        canvas.rect((left, top, right, low), fill=theme.BRANCH[branch])
        top = low
    # the frame lies outside, or it would hide a small share
    canvas.rect((left - 1, box[1] - 1, right + 1, bottom + 1), outline=theme.LINE)


def _name_branches(canvas: Canvas, branches: Sequence[str], box: Box) -> None:
    """What the colours of the gates mean, in the room below the image where that is enough."""
    left, top, right, bottom = box
    line = (bottom - top) / max(len(branches), 1)
    wide = max((canvas.text_width(branch, _TEXT) for branch in branches), default=0)
    if wide + 16 > right - left:
        return
    for number, branch in enumerate(branches):
        y = top + number * line
        canvas.rect((left, y + 2, left + 10, y + 12), fill=theme.BRANCH[branch])
        canvas.text((left + 16, y - 1), branch, _TEXT, theme.MUTED)


def draw_answers(canvas: Canvas, box: Box, names: Sequence[str], shares: Sequence[float]) -> None:
    """Classes with their probabilities as bars, one below the other."""
    left, top, right, bottom = box
    line = (bottom - top) / max(len(names), 1)
    for number, (name, share) in enumerate(zip(names, shares, strict=True)):
        y = top + number * line
        percent = f"{share:.0%}" if share >= 0.01 else "< 1%"
        room = right - left - canvas.text_width(percent, _TEXT) - 10
        canvas.text((left, y), _cut(canvas, name, room), _TEXT)
        canvas.text((right, y), percent, _TEXT, theme.MUTED, "ra")
        bar = (left, y + 19, right, y + 24)
        canvas.rect(bar, fill=theme.UNREACHED)
        canvas.rect((*bar[:2], left + share * (right - left), bar[3]), fill=theme.REACHED)


def _cut(canvas: Canvas, text: str, room: float) -> str:
    """As much of a text as there is room for."""
    if canvas.text_width(text, _TEXT) <= room:
        return text
    while text and canvas.text_width(text + "...", _TEXT) > room:
        text = text[:-1]
    return text + "..."


def reached_part(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: an image that is pale where ``pixels``, (H, W) bool, is False."""
    pale = 255 - (255 - image.astype(float)) * 0.22
    return np.where(pixels[..., None], image, pale).round().astype(np.uint8)

"""Groups of images with their maps, a row and a heading for each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import overlay, theme
from .canvas import Canvas, compact
from .figures import Figure

_SIDE, _GAP, _HEAD, _WORDS = 256, 16, 34, 50  # logical pixels


class Group(NamedTuple):
    """Images that belong together.

    Attributes:
        head: what they have in common.
        images: (N, H, W, 3) uint8.
        values: (N, H, W) signed maps; the positive part is drawn.
        words: two short lines below each image.
    """

    head: str
    images: np.ndarray
    values: np.ndarray
    words: Sequence[tuple[str, str]]


def groups_figure(groups: Sequence[Group], text: str) -> Figure:
    """A row for each group, of at most four images; groups without images are left out."""
    full = [group for group in groups if len(group.images)]
    step = _HEAD + _SIDE + _WORDS
    canvas = Canvas(theme.WIDTH, len(full) * step)
    for row, group in enumerate(full):
        top = row * step
        canvas.text((4, top + 6), group.head, theme.TEXT, bold=True)
        parts = overlay.positive(group.values)
        for i, (image, part, lines) in enumerate(
            zip(group.images, parts, group.words, strict=True)
        ):
            left, high = 4 + i * (_SIDE + _GAP), top + _HEAD
            overlay.draw_overlay(canvas, image, part, (left, high, left + _SIDE, high + _SIDE))
            for n, line in enumerate(lines):
                at = (left, high + _SIDE + 3 + 20 * n)
                canvas.text(at, line, theme.SMALL, theme.MUTED if n else theme.INK)
    return Figure(compact(canvas.image), text)

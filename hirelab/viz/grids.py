"""Token grids: what a stage sees of an image, its regions as bands, and which tokens reach which.

Every function takes the index map that the network runs by (`Rearrangement`) and computes no index
of its own, so an image cannot say something else than the network does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..rearrange import EMPTY, Rearrangement
from . import theme
from .canvas import Box, Canvas


def token_colors(image: Image.Image, grid: int) -> np.ndarray:
    """(grid, grid, 3) uint8: the mean colour of the pixels behind every token of a square image.

    A token of the network is a vector of C numbers; the mean colour of its pixels stands for it,
    so that the reader can follow it by eye.
    """
    return np.asarray(image.resize((grid, grid), Image.Resampling.BOX).convert("RGB"))


def cells(image: Image.Image, grid: int, photograph: bool, cell: int = 8) -> np.ndarray:
    """(grid, grid, k, k, 3) uint8: what is drawn for each token: its piece of the photograph
    (k = ``cell`` pixels) or its mean colour (k = 1)."""
    if not photograph:
        return token_colors(image, grid)[:, :, None, None]
    whole = np.asarray(image.convert("RGB").resize((grid * cell,) * 2, Image.Resampling.BICUBIC))
    return whole.reshape(grid, cell, grid, cell, 3).transpose(0, 2, 1, 3, 4)


def assemble(rows: np.ndarray) -> np.ndarray:
    """(R, W, k, k, 3) cells to one (R*k, W*k, 3) image."""
    r, w, k, _, _ = rows.shape
    return rows.transpose(0, 2, 1, 3, 4).reshape(r * k, w * k, 3)


def arrange(tokens: np.ndarray, lines: np.ndarray, axis: str) -> np.ndarray:
    """Pick lines of cells along an axis: rows for "height", columns for "width".

    ``lines`` holds token indices, `EMPTY` for zero padding, which is drawn black: zeros are what
    the network sees there.
    """
    along = 0 if axis == "height" else 1
    picked = np.take(tokens, np.maximum(lines, 0), axis=along)
    moved = np.moveaxis(picked, along, 0)  # a view: writing into it writes into `picked`
    moved[lines == EMPTY] = 0
    return picked


def mixed(tokens: np.ndarray, r: Rearrangement, axis: str) -> np.ndarray:
    """Every slot's line replaced by the mean over its region: the simplest mixing there is.

    Returns the padded, shifted line-up, (regions*region lines). The network learns another
    mixture for every channel; which tokens take part is the same.
    """
    along = 0 if axis == "height" else 1
    lined = np.moveaxis(arrange(tokens, r.slots.ravel(), axis), along, 0).astype(np.float32)
    grouped = lined.reshape(r.regions, r.region, *lined.shape[1:])
    means = grouped.mean(axis=1, keepdims=True).round()
    spread = np.broadcast_to(means, grouped.shape).reshape(lined.shape)
    return np.moveaxis(spread, 0, along).astype(np.uint8)


def restored(tokens: np.ndarray, r: Rearrangement, axis: str) -> np.ndarray:
    """`mixed`, cropped and carried back to where the network puts it."""
    along = 0 if axis == "height" else 1
    return np.take(mixed(tokens, r, axis), r.landing, axis=along)


@dataclass(frozen=True)
class Lines:
    """The lines of a token grid along an axis: rows for "height", columns for "width".

    Attributes:
        axis: "height" or "width".
        colors: of every line, drawn as a bar beside it.
        padded: whether a line is padding, drawn pale and hatched.
        region: lines in a region; a cut is drawn after every so many lines, none for 0.
        marks: colours of short bars on the far side of some lines.
    """

    axis: str
    colors: Sequence[str] = ()
    padded: Sequence[bool] | np.ndarray = ()
    region: int = 0
    marks: Mapping[int, str] = field(default_factory=dict)


def draw_lines(
    canvas: Canvas,
    tokens: np.ndarray,
    lines: Lines,
    square: tuple[float, float, float],
    slots: int | None = None,
) -> None:
    """Draw a token grid with its lines marked.

    Args:
        tokens: cells as from `cells` or `arrange`; one axis may be longer by its padding. Pieces of
            a photograph are drawn smooth, under a tint of their line's colour.
        square: left, top and side of where to draw.
        slots: lines that the square is divided into; the longest side of ``tokens`` by default.
            Drawings beside each other with equal ``slots`` have cells of equal size.
    """
    left, top, side = square
    axis, photograph = lines.axis, tokens.shape[2] > 1
    rows, cols = tokens.shape[:2]
    cell = side / (slots or max(rows, cols))
    right, bottom = left + cols * cell, top + rows * cell
    canvas.draw_image(assemble(tokens), (left, top, right, bottom), smooth=photograph)

    def stripe(first: float, last: float, near: float, far: float) -> Box:
        """Lines ``first`` to ``last``, from ``near`` to ``far`` across them."""
        if axis == "height":
            return (left + near, top + first * cell, left + far, top + last * cell)
        return (left + first * cell, top + near, left + last * cell, top + far)

    across = right - left if axis == "height" else bottom - top
    for line, color in enumerate(lines.colors):
        if photograph:
            canvas.rect(stripe(line, line + 1, 0, across), fill=color, alpha=0.22)
        canvas.rect(stripe(line, line + 1, -13, -4), fill=color)
    for line, pad in enumerate(lines.padded):
        if pad:
            canvas.rect(stripe(line, line + 1, 0, across), fill=theme.PAPER, alpha=0.45)
            canvas.hatch(stripe(line, line + 1, 0, across))
    count = rows if axis == "height" else cols
    for first in range(lines.region, count, lines.region) if lines.region else ():
        half = 1.25 / cell
        canvas.rect(stripe(first - half, first + half, -13, across), fill=theme.PAPER)
    for line, color in lines.marks.items():
        canvas.rect(stripe(line + 0.1, line + 0.9, across + 4, across + 16), fill=color)
        if color == theme.FOCUS:  # found at once, also on a fine grid
            half = max(0.5, 2.5 / cell)
            canvas.rect(
                stripe(line + 0.5 - half, line + 0.5 + half, 0, across), outline=color, width=2.5
            )


def draw_cone(
    canvas: Canvas,
    steps: Sequence[np.ndarray],
    labels: Sequence[str],
    token: int,
    box: Box,
) -> None:
    """Which tokens of a line reach a token after each block: one row per block, one column per
    token.

    ``steps[b]`` is (size,) bool, True for the input tokens that can have changed ``token`` after
    b blocks.
    """
    left, top, right, bottom = box
    size, height = len(steps[0]), (bottom - top) / len(steps)
    width = (right - left) / size
    for row, (reached, label) in enumerate(zip(steps, labels, strict=True)):
        y = top + row * height
        canvas.text((left - 10, y + height / 2), label, theme.SMALL, theme.MUTED, "rm")
        for t in range(size):
            color = theme.FOCUS if t == token else theme.REACHED if reached[t] else theme.UNREACHED
            x = left + t * width
            canvas.rect((x + 0.75, y + 1, x + width - 0.75, y + height - 1), fill=color)
    canvas.text((left, bottom + 3), "token 0", theme.SMALL, theme.MUTED)
    canvas.text((right, bottom + 3), str(size - 1), theme.SMALL, theme.MUTED, "ra")

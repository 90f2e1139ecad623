"""The rearrangement as a moving image: shift, cut and pad, mix, crop, shift back.

A frame is a pure function of a token grid, the index maps of both axes and a `Moment`, so the same
frames serve a live Play control, a frozen page and a GIF.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..rearrange import EMPTY, Rearrangement
from . import theme
from .canvas import Canvas, palette_of, reduce
from .grids import mixed

GAP = 0.6  # between regions when they are apart, in tokens


@dataclass(frozen=True)
class Moment:
    """How far each step has gone, 0 to 1, and what is happening."""

    shift: float
    gap: float
    mix: float
    step: int


STEPS = (
    "the token grid",
    "shift",
    "cut into regions, pad",
    "mix inside regions",
    "crop",
    "restore",
)


def moments(restore: bool = True) -> tuple[Moment, ...]:
    """The moments of one round, 56 of them; the pace is even and every step ends in a rest."""

    def ramp(frames: int) -> list[float]:
        t = np.linspace(0, 1, frames + 1)[1:]
        return list(t * t * (3 - 2 * t))  # starts and ends at rest

    round_: list[Moment] = [Moment(0, 0, 0, 0)] * 5
    round_ += [Moment(t, 0, 0, 1) for t in ramp(10)] + [Moment(1, 0, 0, 1)] * 2
    round_ += [Moment(1, t, 0, 2) for t in ramp(7)] + [Moment(1, 1, 0, 2)] * 2
    round_ += [Moment(1, 1, t, 3) for t in ramp(7)] + [Moment(1, 1, 1, 3)] * 2
    round_ += [Moment(1, 1 - t, 1, 4) for t in ramp(6)]
    back = [Moment(1 - t, 0, 1, 5) for t in ramp(10)] + [Moment(0, 0, 1, 5)] * 5
    return tuple(round_ + (back if restore else [Moment(1, 0, 1, 4)] * 15))


def strips(tokens: np.ndarray, r: Rearrangement, moment: Moment, side: int) -> np.ndarray:
    """(side, side + 12, 3) uint8: the token rows of a (size, W, 3) grid at a moment.

    The bar on the left of every row has the colour of its home region. Rows that leave at one end
    while they shift come in at the other.
    """
    lines = r.regions * r.region
    pitch = side / (lines + GAP * (r.regions - 1))
    width = round(pitch * tokens.shape[1])
    sheet = np.full((side, side + 12, 3), 255, np.uint8)
    column = np.minimum((np.arange(width) / pitch).astype(int), tokens.shape[1] - 1)
    after = mixed(tokens[:, :, None, None], r, "height")[:, :, 0, 0].astype(float)
    for line, token in enumerate(r.slots.ravel()):
        padded = line >= r.size
        if padded and moment.gap == 0:
            continue
        before = np.zeros_like(after[0]) if token == EMPTY else tokens[token].astype(float)
        color = before + (after[line] - before) * moment.mix
        if padded:  # padding comes in pale and stays pale
            color = 255 + (color - 255) * 0.45 * moment.gap
        home = line if padded else int(r.order[line])
        if r.cross_region == "shift" and not padded:
            at = [(home + r.shift * moment.shift) % r.size]
            at += [at[0] - r.size] if at[0] > r.size - 1 else []
        else:
            at = [home + (line - home) * moment.shift]
        spine = theme.PAPER if token == EMPTY else theme.region_color(int(token) // r.region)
        for position in at:
            top = (position + GAP * moment.gap * (line // r.region)) * pitch
            first, last = max(round(top), 0), max(round(top + pitch), 0)
            limit = round(r.size * pitch) if moment.gap == 0 else side
            last = min(last, limit)
            sheet[first:last, 12 : 12 + width] = color[column].round()
            sheet[first:last, :8] = theme.rgb(spine)
    return sheet


def frame(
    tokens: np.ndarray, maps: dict[str, Rearrangement], moment: Moment, scale: int = 1
) -> Image.Image:
    """One frame, 760 x 452 logical pixels: both axes side by side, and what is happening.

    ``tokens`` is (grid, grid, 3) uint8; ``maps`` holds an index map for "height" and "width".
    """
    canvas = Canvas(760, 452, scale)
    caption = {
        1: f"shift by {maps['height'].shift:+d}",
        5: f"restore: shift by {-maps['height'].shift:+d}",
    }.get(moment.step, STEPS[moment.step])
    if maps["height"].cross_region == "shuffle":
        caption = caption.replace("shift by", "shuffle by").split(" by")[0]
    canvas.text((20, 8), caption, theme.TITLE, bold=True)
    for dot in range(len(STEPS)):
        color = theme.INK if dot <= moment.step else theme.LINE
        canvas.rect((620 + dot * 21, 16, 636 + dot * 21, 24), fill=color)
    side = 340 * scale
    for left, axis in ((24, "height"), (394, "width")):
        seen = tokens if axis == "height" else tokens.transpose(1, 0, 2)
        sheet = strips(seen, maps[axis], moment, side)
        if axis == "width":
            sheet = sheet.transpose(1, 0, 2)
        canvas.text((left, 46), f"along {axis}", theme.TEXT, theme.MUTED)
        # the bars of home regions stand outside, so that both maps begin at one height
        x, y = (left - 12, 82) if axis == "height" else (left, 70)
        canvas.image.paste(Image.fromarray(sheet), (x * scale, y * scale))
    if moment.gap > 0 and any(r.pad for r in maps.values()):
        canvas.text((740, 428), "pale: padding", theme.SMALL, theme.MUTED, "ra")
    return canvas.image


def gif(frames: Sequence[Image.Image], milliseconds: int = 100, colors: int = 220) -> bytes:
    """The frames as an endless GIF with one palette for all, so that colours do not flicker."""
    palette = palette_of(_joint(frames), colors)
    pages = [reduce(f, palette) for f in frames]
    buffer = io.BytesIO()
    pages[0].save(
        buffer, "GIF", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0
    )
    return buffer.getvalue()


def _joint(frames: Sequence[Image.Image]) -> Image.Image:
    """A few frames on one sheet, to choose colours from."""
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, 9).astype(int)]
    sheet = Image.new("RGB", (chosen[0].width, sum(f.height for f in chosen)))
    for i, image in enumerate(chosen):
        sheet.paste(image, (0, i * image.height))
    return sheet

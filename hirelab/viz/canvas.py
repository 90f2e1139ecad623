"""A canvas to draw on, in logical pixels, sharp on screens of double density.

Pillow and not matplotlib, because explorers redraw while a slider moves: an image is drawn and
compressed in a few hundredths of a second.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .._shared.errors import HirelabError
from . import theme

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Canvas:
    """A white area of ``width`` x ``height`` logical pixels; y grows downwards."""

    def __init__(self, width: int, height: int, scale: int = 2) -> None:
        self.width, self.height, self.scale = width, height, scale
        self.image = Image.new("RGB", (width * scale, height * scale), theme.PAPER)
        self._draw = ImageDraw.Draw(self.image, "RGBA")  # RGBA: colours with alpha blend

    def _px(self, xy: tuple[float, float]) -> tuple[int, int]:
        return round(xy[0] * self.scale), round(xy[1] * self.scale)

    def _box_px(self, box: Box) -> tuple[int, int, int, int]:
        return (*self._px(box[:2]), *self._px(box[2:]))

    def text(
        self,
        xy: tuple[float, float],
        text: str,
        size: int = theme.TEXT,
        color: str = theme.INK,
        anchor: str = "la",
        bold: bool = False,
    ) -> None:
        """Write; ``anchor`` is Pillow's: l, m, r for left to right, a, m, s for top to baseline."""
        font = theme.font(size * self.scale, bold)
        self._draw.text(self._px(xy), text, fill=color, font=font, anchor=anchor)

    def text_width(self, text: str, size: int = theme.TEXT, bold: bool = False) -> float:
        """How wide a text would be, in logical pixels."""
        return self._draw.textlength(text, font=theme.font(size * self.scale, bold)) / self.scale

    def rect(
        self,
        box: Box,
        fill: str | None = None,
        alpha: float = 1.0,
        outline: str | None = None,
        width: float = 1,
    ) -> None:
        """A rectangle, filled or outlined (the outline lies inside the box)."""
        left, top, right, bottom = self._box_px(box)
        if right <= left or bottom <= top:
            return
        color = (*theme.rgb(fill), round(255 * alpha)) if fill else None
        pen = max(1, round(width * self.scale)) if outline else 0
        self._draw.rectangle(
            (left, top, right - 1, bottom - 1), fill=color, outline=outline, width=pen
        )

    def line(self, points: list[tuple[float, float]], color: str, width: float = 1) -> None:
        """A polyline."""
        flat = [self._px(p) for p in points]
        self._draw.line(flat, fill=color, width=max(1, round(width * self.scale)), joint="curve")

    def arrow(self, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
        """A horizontal or vertical arrow."""
        self.line([start, end], color, 2)
        (x0, y0), (x1, y1) = start, end
        dx, dy = np.sign(x1 - x0), np.sign(y1 - y0)
        tip = [(x1, y1), (x1 - 8 * dx - 5 * dy, y1 - 8 * dy - 5 * dx)]
        tip.append((x1 - 8 * dx + 5 * dy, y1 - 8 * dy + 5 * dx))
        self._draw.polygon([self._px(p) for p in tip], fill=color)

    def disc(self, xy: tuple[float, float], radius: float, fill: str, outline: str) -> None:
        """A filled circle with a line around it."""
        x, y = xy
        box = self._box_px((x - radius, y - radius, x + radius, y + radius))
        self._draw.ellipse(box, fill=fill, outline=outline, width=2 * self.scale)

    def hatch(self, box: Box, color: str = theme.PADDING) -> None:
        """Diagonal lines over a box: the sign for padding, also without colour."""
        left, top, right, bottom = self._box_px(box)
        if right > left and bottom > top:
            mask = _hatch_mask(right - left, bottom - top, self.scale)
            self.image.paste(color, (left, top), mask)

    def draw_image(self, array: np.ndarray, box: Box, smooth: bool = False) -> None:
        """A uint8 (H, W, 3) array stretched into a box: cells stay sharp unless ``smooth``."""
        left, top, right, bottom = self._box_px(box)
        if right <= left or bottom <= top:
            return
        way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        patch = Image.fromarray(array).resize((right - left, bottom - top), way)
        self.image.paste(patch, (left, top))

    def swatch(
        self, xy: tuple[float, float], color: str | Sequence[str], text: str, hatched: bool = False
    ) -> float:
        """A legend entry of one colour or several, its left top at ``xy``; returns the x where the
        next may start."""
        x, y = xy
        box = (x, y + 3, x + 16, y + 19)
        colors = (color,) if isinstance(color, str) else tuple(color)
        for i, part in enumerate(colors):
            height = 16 / len(colors)
            self.rect((x, y + 3 + i * height, x + 16, y + 3 + (i + 1) * height), fill=part)
        self.rect(box, outline=theme.MUTED)
        if hatched:
            self.hatch(box)
        self.text((x + 23, y), text, theme.SMALL, theme.MUTED)
        return x + 23 + self.text_width(text, theme.SMALL) + 22


@lru_cache(maxsize=128)
def _hatch_mask(width: int, height: int, scale: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    lines = (x + y) % (7 * scale) < 1.5 * scale
    return Image.fromarray((lines * 190).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """Bytes for a live view: a tenth of the time that a PNG of the same image takes.

    Quality 92 with full colour resolution; at double density its traces cannot be seen.
    """
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def palette_of(image: Image.Image, colors: int = 224) -> Image.Image:
    """A palette of the theme's colours and of ``colors`` of the image's own.

    The theme's come first, so that a small coloured mark keeps its colour beside a photograph.
    """
    own = _colors(image.quantize(colors, method=Image.Quantize.MEDIANCUT))[: 3 * colors]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for color in theme.ALL for part in theme.rgb(color)] + own)
    return palette


def _colors(image: Image.Image) -> list[int]:
    """The palette of an image that has one: red, green, blue of every colour."""
    palette = image.getpalette()
    assert palette is not None
    return palette


def reduce(image: Image.Image, palette: Image.Image) -> Image.Image:
    """The image in the colours of a palette of `palette_of`; the theme's stay exact.

    Pillow looks colours up in steps of four levels, so a theme's colour could fall to a neighbour
    that a photograph brought along: they are put in place by hand.
    """
    index = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    red, green, blue = np.asarray(image, dtype=np.uint32).transpose(2, 0, 1)
    codes = red << 16 | green << 8 | blue
    for number, color in enumerate(theme.ALL):
        index[codes == int(color[1:], 16)] = number
    exact = Image.fromarray(index, "P")
    exact.putpalette(_colors(palette))
    return exact


def png(image: Image.Image) -> bytes:
    """Bytes for an image of lines and few colours: a palette, no metadata, the same every time."""
    buffer = io.BytesIO()
    reduce(image, palette_of(image)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def compact(image: Image.Image) -> bytes:
    """Bytes for an image that is kept, in true colour: PNG, or JPEG where that is smaller, as it is
    for photographs. At double density the JPEG's coarser colours cannot be seen."""
    lossless, photograph = io.BytesIO(), io.BytesIO()
    image.save(lossless, "PNG")
    image.save(photograph, "JPEG", quality=75, subsampling=2, optimize=True, progressive=True)
    return min(lossless.getvalue(), photograph.getvalue(), key=len)


_MIME = {b"\xff\xd8\xff": "image/jpeg"}


def mime(data: bytes) -> str:
    """The type under which a notebook keeps an image's bytes.

    JPEG has its own. All else goes as PNG, GIFs too: browsers look at the bytes and not at the
    type, so a GIF under image/png plays, and that type survives every notebook viewer, which
    image/gif does not.
    """
    return _MIME.get(data[:3], "image/png")


def encode(image: Image.Image, path: str | Path, as_jpeg: bytes | None = None) -> bytes:
    """Bytes for a file, in the format of its suffix, PNG for none; whole colours in every one.

    ``as_jpeg``: the image as a JPEG, where it was one already.

    Raises:
        HirelabError: for a suffix that Pillow does not write.
    """
    suffix = Path(path).suffix.lower() or ".png"
    if suffix in (".jpg", ".jpeg"):
        return as_jpeg or jpeg(image)
    buffer = io.BytesIO()
    try:
        image.save(buffer, Image.registered_extensions()[suffix], quality=92)
    except (KeyError, OSError, ValueError):
        raise HirelabError(
            f"{str(path)!r} ends in {suffix!r}; an image is written to a .png, .jpg or .webp."
        ) from None
    return buffer.getvalue()

"""Figures: image bytes that show themselves, and what all charts with matplotlib share."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._shared.files import write_atomic
from . import theme
from .canvas import encode, mime, png

# Lines differ in colour, in dash and in marker, so that they also differ in black and white.
LINES: tuple[dict[str, Any], ...] = (
    {"color": theme.BLUE, "linestyle": "-", "marker": "o"},
    {"color": theme.VERMILION, "linestyle": "--", "marker": "s"},
    {"color": theme.GREEN, "linestyle": "-.", "marker": "^"},
    {"color": theme.MUTED, "linestyle": ":", "marker": "D"},
    {"color": theme.PURPLE, "linestyle": (0, (6, 1.5, 1, 1.5, 1, 1.5)), "marker": "v"},
)


@dataclass(frozen=True)
class Figure:
    """Image bytes that show themselves in a notebook, with a kernel or without.

    Attributes:
        data: a PNG, a JPEG where photographs are, or a GIF.
        text: what the image says, in words or numbers; it stands where images cannot, and is
            what a test of the notebook compares.
        figure: the matplotlib figure behind it, for those who want to change it; else None.
    """

    data: bytes = field(repr=False)
    text: str
    figure: Any = field(default=None, repr=False, compare=False)

    def save(self, path: str | Path) -> None:
        """Write the image; a JPEG in the format that the suffix says (.png, .jpg, .webp).

        Raises:
            HirelabError: for a suffix that no image has.
        """
        data = self.data
        if mime(data) == "image/jpeg":
            data = encode(Image.open(io.BytesIO(data)), path, data)
        write_atomic(Path(path), data)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        image = base64.b64encode(self.data).decode("ascii")
        return {mime(self.data): image, "text/plain": self.text}


class Chart(Figure):
    """A figure of matplotlib, encoded when its bytes are asked for first: a live view that shows
    ``image`` never does.

    Attributes:
        image: its pixels.
    """

    image: Image.Image

    def __init__(self, image: Image.Image, text: str, figure: Any) -> None:
        vars(self).update(image=image, text=text, figure=figure)  # it is frozen

    @cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """A PNG with a palette: lines and stepped colours need no more, and in true colour a chart
        would be two or three times as large."""
        return png(self.image)


@contextmanager
def chart(width: float, height: float, **settings: Any) -> Iterator[Any]:
    """An empty matplotlib figure of ``width`` x ``height`` inches; while it is drawn, matplotlib
    has the project's style and these settings (``**{"axes.grid": False}``).

    Typed as Any: matplotlib's hints are narrower than what it takes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # no pyplot: nothing global, nothing to close

    style: Any = {**theme.RC, **settings}
    with rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def finish(sheet: Any, text: str) -> Chart:
    """The drawn chart as a `Figure`; call it while the chart's style is set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(sheet)
    canvas.draw()
    return Chart(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), text, sheet)

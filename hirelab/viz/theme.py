"""One visual language: the colours and type sizes of every image.

The colours are Okabe and Ito's (Color Universal Design, 2008), which stay apart for colour-blind
readers; images that use them also say in words or by position what the colour says.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFont

INK = "#1f2328"  # text and axes
MUTED = "#5f6670"  # secondary text; 5.8 : 1 on white
LINE = "#c9ced6"  # hairlines and frames
PAPER = "#ffffff"
ORANGE, SKY, GREEN, YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
BLUE, VERMILION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
# neighbours differ, also as colour-blind readers see them
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)

# What a colour means wherever it appears:
BRANCH = {"height": BLUE, "width": ORANGE, "channel": GREEN}
FOCUS = VERMILION  # the token that the reader asks about
REACHED = "#39424e"  # tokens whose content reaches it
UNREACHED = "#e8ebef"
SLOTS = ("#39424e", "#9aa3af", "#6b7480", "#c9ced6")  # places inside a region, numbered as well
PADDING = MUTED
ALL = tuple(dict.fromkeys((INK, MUTED, LINE, PAPER, REACHED, UNREACHED, *SLOTS, *CYCLE)))

WIDTH = 1080  # of a full-width image, in logical pixels
TITLE, TEXT, SMALL = 21, 18, 16  # type sizes in logical pixels, legible at half size

HEAT = "inferno"  # over photographs: no hue of it is a grey's, and it is monotone in lightness
SEQUENTIAL = "cividis"  # for amounts; made for colour-blind readers, and monotone in lightness


def rgb(color: str) -> tuple[int, int, int]:
    """ "#rrggbb" as three numbers of 0 to 255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def region_color(index: int) -> str:
    """The colour of a region, or of a slot in a region; colours repeat after seven."""
    return CYCLE[index % len(CYCLE)]


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as it ships with matplotlib, so that text looks the same on every machine."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), size)


@cache
def color_table(name: str = SEQUENTIAL) -> np.ndarray:
    """(256, 3) uint8 lookup table of a matplotlib colour map."""
    from matplotlib import colormaps

    return (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


RC: dict[str, Any] = {  # matplotlib settings, for `with matplotlib.rc_context(theme.RC)`
    "figure.dpi": 144,  # double density for screens, nearly
    "figure.facecolor": PAPER,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "svg.hashsalt": "hirelab",
}

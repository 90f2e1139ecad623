"""Mean curves with their intervals, in the project's style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import theme
from .figures import LINES, Figure, chart, finish


def _draw(axes: Any, x: np.ndarray, lines: Mapping[str, np.ndarray], markers: bool) -> None:
    for (name, (mean, low, high)), style in zip(lines.items(), LINES, strict=False):
        look = style if markers else {k: v for k, v in style.items() if k != "marker"}
        axes.plot(x, mean, label=name, markersize=5, **look)
        if np.isfinite(low).any():
            axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def curves(
    x: np.ndarray,
    panels: Sequence[tuple[str, Mapping[str, np.ndarray]]],
    xlabel: str,
    ylabel: str,
    text: str,
) -> Figure:
    """Panels side by side on one scale; each line is (3, len(x)): mean, low, high."""
    with chart(4.3 * len(panels), 3.8) as figure:
        every = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axes, (title, lines) in zip(every, panels, strict=True):
            _draw(axes, x, lines, markers=False)
            axes.set(xlabel=xlabel)
            axes.set_title(title)
            axes.margins(x=0)
        every[0].set(ylabel=f"{ylabel}\n(mean and 95 % interval)")
        every[0].set_ylim(bottom=0)
        handles, names = every[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return finish(figure, text)


def cascade(
    names: Sequence[str],
    lines: Mapping[str, np.ndarray],
    chance: tuple[float, float],
    text: str,
) -> Figure:
    """Similarity after each replacement, the replaced things by name; ``chance`` is the
    interval of random maps, drawn as a grey band."""
    with chart(8.6, 4.2) as figure:
        axes = figure.subplots()
        x = np.arange(len(names))
        if np.isfinite(chance).all():
            axes.axhspan(*chance, color=theme.LINE, alpha=0.7, linewidth=0, label="random maps")
        _draw(axes, x, lines, markers=True)
        axes.axhline(0, color=theme.INK, linewidth=1)
        axes.set_xticks(x, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set(
            ylabel="rank correlation with the first map\n(mean and 95 % interval)",
            ylim=(min(-0.5, chance[0]), 1.05),
        )
        axes.set(xlabel="weights replaced by noise, from left to right")
        axes.legend(loc="upper right")
        return finish(figure, text)

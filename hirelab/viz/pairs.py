"""Paired differences: a dot for every image, a bar for what their mean is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import theme
from .figures import Figure, chart, finish


def differences_figure(
    names: Sequence[str],
    numbers: Sequence[str],
    each: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    text: str,
) -> Figure:
    """A panel for each number, a row for each comparison.

    Args:
        each: (names, numbers, images) differences.
        low, high: (names, numbers) interval of the mean.
        text: of the figure.
    """
    with chart(9, 0.9 + 0.55 * len(names)) as figure:
        grid = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
        for column, (axes, number) in enumerate(zip(grid, numbers, strict=True)):
            axes.axvline(0, color=theme.INK, linewidth=1)
            for row in range(len(names)):
                values = each[row, column]
                # equal values stand above each other, so that none is hidden
                lift = [int((values[:i] == v).sum()) for i, v in enumerate(values)]
                axes.plot(values, row - 0.13 - 0.09 * np.array(lift), "o", color=theme.ORANGE,
                          markersize=4)  # fmt: skip
                ends = [low[row, column], high[row, column]]
                axes.plot(ends, [row + 0.12] * 2, color=theme.BLUE, linewidth=5,
                          solid_capstyle="butt")  # fmt: skip
                axes.plot(values.mean(), row + 0.12, "d", color=theme.INK, markersize=6)
            axes.set(title=number, xlabel="difference, pixels")
            axes.grid(False, axis="y")
        grid[0].set_yticks(range(len(names)), names)
        grid[0].set_ylim(len(names) - 0.5, -0.75)
        return finish(figure, text)

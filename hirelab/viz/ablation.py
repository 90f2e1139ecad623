"""Differences with their intervals beside what a paper printed, and what was learnt of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import theme
from .figures import Figure, chart, finish

# A verdict is a sign and words; the colour says nothing that they do not.
SIGNS: Mapping[str, tuple[str, str]] = {
    "confirmed": ("\u2713", theme.GREEN),
    "contradicted": ("\u2717", theme.VERMILION),
    "not resolved": ("?", theme.MUTED),
    "not judged": ("\u2013", theme.MUTED),
}
ROW, LINE = 0.34, 0.25  # inches of a row of dots, and of a line of words

_MEAN: dict[str, Any] = {"marker": "o", "color": theme.BLUE, "markersize": 8, "linestyle": "none"}
_BAR: dict[str, Any] = {"color": theme.BLUE, "linewidth": 2.6, "solid_capstyle": "butt"}
_SEED: dict[str, Any] = {"marker": "o", "color": theme.SKY, "markersize": 4, "linestyle": "none"}
_PAPER: dict[str, Any] = {
    "marker": "D", "color": theme.VERMILION, "markersize": 7, "markerfacecolor": "none",
    "markeredgewidth": 1.8, "linestyle": "none",
}  # fmt: skip


def differences(
    names: Sequence[str],
    ours: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    paper: np.ndarray,
    *,
    title: str,
    xlabel: str,
    text: str,
    seeds: Sequence[Sequence[float]] = (),
    reference: int | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    verdicts: Sequence[tuple[str, str]] = (),
    empty: str = "not trained yet",
) -> Figure:
    """A row for each name: our difference with its interval, and the paper's on the same scale.

    Args:
        ours, low, high, paper: (rows,) differences; NaN where there is none. An interval so wide
            that nothing else could be seen is cut, with an arrow where it goes on.
        seeds: of each row the differences of single trainings, drawn small and pale.
        reference: the row that is held against itself, in bold; its difference is 0.
        columns: words at the right of each row, by their heading; ``empty`` stands where a row
            has none.
        verdicts: (one of `SIGNS`, what it is about), lines below.
    """
    rows, columns = len(names), columns or {}
    heights = [1.25 + ROW * rows, 0.1 + LINE * len(verdicts)]
    with chart(10, sum(heights), **{"axes.grid": False}) as figure:
        upper, lower = figure, None
        if verdicts:
            upper, lower = figure.subfigures(2, 1, height_ratios=heights)
        axes = upper.subplots()
        axes.set(ylim=(rows - 0.4, -0.6), xlim=_limits(ours, low, high, paper, seeds))
        axes.axvline(0, color=theme.INK, linewidth=1.2, zorder=1)
        for row in range(rows):
            axes.axhline(row, color=theme.LINE, linewidth=0.6, zorder=0)
        for row, values in enumerate(seeds):
            axes.plot(values, [row] * len(values), zorder=2, **_SEED)
        for row in range(rows):
            _bar(axes, row, float(low[row]), float(high[row]))
        axes.plot(paper, range(rows), zorder=4, **_PAPER)
        axes.plot(ours, range(rows), zorder=5, **_MEAN)
        axes.set_yticks(range(rows), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        if reference is not None:
            axes.get_yticklabels()[reference].set_fontweight("bold")
        _words(axes, columns, empty)
        axes.set_xlabel(xlabel)
        upper.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _legend(upper, bool(np.isfinite(paper).any()), any(map(len, seeds)))
        if lower is not None:
            _verdicts(lower, verdicts, heights[1])
        return finish(figure, text)


def _limits(
    ours: np.ndarray, low: np.ndarray, high: np.ndarray, paper: np.ndarray, seeds: Any
) -> tuple[float, float]:
    """From the leftmost to the rightmost: of dots wholly, of bars as far as dots can be seen."""
    dots = np.concatenate([[0.0], ours, paper, *map(np.asarray, seeds)])
    first, last = float(np.nanmin(dots)), float(np.nanmax(dots))
    span = max(last - first, 0.1)
    ends = np.concatenate([[first, last], low, high])
    first = max(float(np.nanmin(ends)), first - 1.5 * span)
    last = min(float(np.nanmax(ends)), last + 1.5 * span)
    room = 0.04 * (last - first) or 0.1
    return first - room, last + room


def _bar(axes: Any, row: int, low: float, high: float) -> None:
    if np.isnan(low):
        return
    left, right = axes.get_xlim()
    axes.plot([max(low, left), min(high, right)], [row, row], zorder=3, **_BAR)
    for end, cut, marker, at in ((low, low < left, "<", left), (high, high > right, ">", right)):
        if cut:
            axes.plot(at, row, marker=marker, color=theme.BLUE, markersize=8, clip_on=False)
        else:
            axes.plot(end, row, marker="|", color=theme.BLUE, markersize=9, markeredgewidth=2)


def _words(axes: Any, columns: Mapping[str, Sequence[str]], empty: str) -> None:
    """Columns of words to the right of the axes, right-aligned, a heading above each."""
    place = axes.get_yaxis_transform()  # x in widths of the axes, y in rows
    look: dict[str, Any] = {"transform": place, "va": "center", "fontsize": 10}
    for number, (heading, words) in enumerate(columns.items(), 1):
        x = 1.02 + number * 0.11
        axes.text(x, -0.85, heading, color=theme.MUTED, ha="right", **look)
        for row, word in enumerate(words):
            axes.text(x, row, word, ha="right", **look)
    for row, words in enumerate(zip(*columns.values(), strict=True)):
        if not any(words):
            axes.text(1.03, row, empty, style="italic", color=theme.MUTED, **look)


def _legend(figure: Any, paper: bool, seeds: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label="ours: mean and 95 % interval", **{**_MEAN, **_BAR})]
    handles[0].set_linestyle("-")
    if seeds:
        handles.append(Line2D([], [], label="one training", **_SEED))
    if paper:
        handles.append(Line2D([], [], label="the paper's (ImageNet)", **_PAPER))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10)


def _verdicts(figure: Any, verdicts: Sequence[tuple[str, str]], inches: float) -> None:
    for number, (word, about) in enumerate(verdicts):
        sign, color = SIGNS[word]
        y = 1 - (number + 0.5) * LINE / inches
        look: dict[str, Any] = {"va": "center", "fontsize": 10}
        figure.text(0.012, y, sign, color=color, fontweight="bold", **look)
        figure.text(0.033, y, word, color=color, fontweight="bold", **look)
        figure.text(0.145, y, about, **look)

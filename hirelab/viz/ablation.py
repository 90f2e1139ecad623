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
        upper = figure
        if verdicts:
            upper, lower = figure.subfigures(2, 1, height_ratios=heights)
            _verdicts(lower, verdicts, heights[1])
        axes = upper.subplots()
        axes.set(ylim=(rows - 0.4, -0.6), xlim=_limits(ours, low, high, paper, seeds))
        axes.axvline(0, color=theme.INK, linewidth=1.2, zorder=1)
        for row, values in enumerate(seeds):
            # a little below the bar, which would hide them
            axes.plot(values, [row + 0.24] * len(values), zorder=2, **_SEED)
        for row in range(rows):
            axes.axhline(row, color=theme.LINE, linewidth=0.6, zorder=0)
            _bar(axes, row, float(low[row]), float(high[row]))
        axes.plot(ours, range(rows), zorder=4, **_MEAN)
        axes.plot(paper, range(rows), zorder=5, **_PAPER)
        axes.set_yticks(range(rows), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        if reference is not None:
            axes.get_yticklabels()[reference].set_fontweight("bold")
        _words(axes, columns, empty)
        axes.set_xlabel(xlabel)
        upper.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _legend(upper, *(np.isfinite(one).any() for one in (ours, low, paper)), any(map(len, seeds)))
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
    """Columns of words beside the axes, a heading above each: verdicts after their signs, all
    else right-aligned."""

    def write(row: float, points: float, word: str, **look: Any) -> None:
        axes.annotate(
            word, (1, row), (points, 0), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", va="center", fontsize=10, annotation_clip=False, **look,
        )  # fmt: skip

    for number, (heading, words) in enumerate(columns.items(), 1):
        signs = [SIGNS[word] for word in words if word in SIGNS]
        at, look = (24, {"ha": "left"}) if signs else (62 * number + 8, {"ha": "right"})
        write(-0.85, at, heading, color=theme.MUTED, **look)
        for row, word in enumerate(words):
            write(row, at, word, **look)
        for row, (sign, color) in enumerate(signs):
            write(row, at - 14, sign, color=color, fontweight="bold", **look)
    for row, all_words in enumerate(zip(*columns.values(), strict=True)):
        if not any(all_words):
            write(row, 14, empty, style="italic", color=theme.MUTED)


def _legend(figure: Any, ours: bool, bars: bool, paper: bool, seeds: bool) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if ours:
        label = "ours: mean and 95 % interval" if bars else "ours: mean"
        handles.append(Line2D([], [], label=label, **_MEAN))
        if bars:
            handles[0].set(linestyle="-", linewidth=_BAR["linewidth"])
    if seeds:
        handles.append(Line2D([], [], label="one training", **_SEED))
    if paper:
        handles.append(Line2D([], [], label="the paper's (ImageNet)", **_PAPER))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=10)


def _verdicts(figure: Any, verdicts: Sequence[tuple[str, str]], inches: float) -> None:
    look: dict[str, Any] = {"va": "center", "fontsize": 10}
    for number, (word, about) in enumerate(verdicts):
        sign, color = SIGNS[word]
        y = 1 - (number + 0.5) * LINE / inches
        figure.text(0.012, y, sign, color=color, fontweight="bold", **look)
        figure.text(0.033, y, word, fontweight="bold", **look)
        figure.text(0.145, y, about, **look)

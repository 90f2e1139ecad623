"""Differences with their intervals beside what a paper printed, and what was learnt of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import theme
from .figures import Chart, Figure, chart, finish

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
) -> Chart:
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
    heights = [1.45 + ROW * rows, 0.1 + LINE * len(verdicts)]
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
        axes.tick_params(axis="y", length=0, pad=10)  # room for the arrow of a bar that is cut
        axes.spines["left"].set_visible(False)
        if reference is not None:
            axes.get_yticklabels()[reference].set_fontweight("bold")
        _words(axes, columns, empty)
        axes.set_xlabel(xlabel)
        axes.locator_params(axis="x", nbins=6)
        upper.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        _legend(upper, ours, low, paper, any(map(len, seeds)))
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


def _legend(figure: Any, ours: np.ndarray, low: np.ndarray, paper: np.ndarray, seeds: bool) -> None:
    """Of what is there."""
    from matplotlib.lines import Line2D

    handles = []
    if np.isfinite(low).any():
        bar = {**_MEAN, "linestyle": "-", "linewidth": _BAR["linewidth"]}
        handles.append(Line2D([], [], label="ours: mean and 95 % interval", **bar))
    elif np.isfinite(ours).any():
        handles.append(Line2D([], [], label="ours: mean", **_MEAN))
    if seeds:
        handles.append(Line2D([], [], label="one training", **_SEED))
    if np.isfinite(paper).any():
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


# ------------------------------------------------------------------ diagnostics


def learnt(
    names: Sequence[str],
    stages: Sequence[Sequence[str]],
    questions: Sequence[str],
    accuracy: Sequence[np.ndarray],
    bound: Sequence[np.ndarray],
    text: str,
) -> Figure:
    """What the stages of some networks got right of each question, beside what is possible.

    A row for each network, a panel for each of its stages: bars reach up to the bound, dots are
    trainings.

    Args:
        names: of the networks.
        stages: for each network the title of every stage.
        questions: "-6" to "+6" for distances in tokens, and words.
        accuracy: for each network (seeds, stages, questions) percent, NaN where there is none.
        bound: for each network (stages, questions) percent.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # words stand apart from the distances, and one distance (0) is not asked for
    numbers = [int(one) for one in questions if one[0] in "+-"]
    words = [one for one in questions if one[0] not in "+-"]
    places = np.array([*numbers, *(max(numbers, default=0) + 2 + 2 * i for i in range(len(words)))])
    columns = max(map(len, stages))
    with chart(10, 0.9 + 1.75 * len(names), **{"axes.grid": False}) as figure:
        grid = figure.subplots(len(names), columns, sharex=True, sharey=True, squeeze=False)
        for row, name in enumerate(names):
            grid[row, 0].set_ylabel(name, fontsize=10)
            for column in range(len(stages[row])):
                axes = grid[row, column]
                axes.bar(places, bound[row][column], 0.82, color=theme.LINE)
                for seed in accuracy[row][:, column]:
                    axes.plot(places, seed, zorder=3, **{**_SEED, "color": theme.BLUE})
                axes.set(ylim=(0, 104), yticks=(0, 50, 100))
                axes.set_title(stages[row][column], fontsize=10)
        ticks = [n for n in numbers if n % 3 == 0] + list(places[len(numbers) :])
        shown = [f"{n:+}" for n in numbers if n % 3 == 0] + [word[0].upper() for word in words]
        for axes in grid[-1]:
            axes.set_xticks(ticks, shown, fontsize=9)
        figure.supxlabel(
            "distance in tokens; " + ", ".join(f"{word[0].upper()}: {word}" for word in words),
            fontsize=10,
        )
        figure.supylabel("right answers, %", fontsize=10)
        figure.legend(
            handles=[
                Patch(color=theme.LINE, label="possible, by the index maps"),
                Line2D([], [], label="learnt, one training", **{**_SEED, "color": theme.BLUE}),
            ],
            loc="outside upper right",
            ncols=2,
            fontsize=10,
        )
        return finish(figure, text)

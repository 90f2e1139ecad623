"""What answers do when the image changes: moved by some pixels, or corrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import theme
from .canvas import Canvas, compact
from .figures import LINES, Figure, chart, finish


def translation_figure(
    names: Sequence[str],
    offsets: np.ndarray,
    means: np.ndarray,
    ends: np.ndarray,
    ways: Sequence[str],
    reductions: Sequence[int],
    axis: str,
    text: str,
) -> Figure:
    """Change of probability above, share of other first answers below; a column for each way.
    Intervals are drawn of one or two networks; those of more would hide each other.

    A ruler at the bottom of each panel has a mark wherever the offset is a multiple of one of the
    network's strides, the longer the coarser the stride.

    Args:
        offsets: (D,) pixels.
        means: (2, names, ways, D) of the two numbers, 0..1; ``ends``: (..., 2) their intervals.
        reductions: strides in pixels.
    """
    titles = {"roll": "rolled around the border", "crop": "a window over a larger image"}
    labels = ("change of the first answer's\nprobability, percentage points",
              "images with another\nfirst answer, %")  # fmt: skip
    steps = sorted(r for r in reductions if r > 2)  # every second pixel would be no mark
    # no line over offsets that were left out
    apart = np.diff(offsets)
    gaps = np.flatnonzero(apart > 4 * np.median(np.append(apart, 1))) + 1
    offsets = np.insert(offsets.astype(float), gaps, np.nan)
    means, ends = np.insert(means, gaps, np.nan, axis=3), np.insert(ends, gaps, np.nan, axis=3)
    with chart(10, 6.4) as figure:
        grid = figure.subplots(2, len(ways), sharex=True, sharey="row", squeeze=False)
        for row, label in enumerate(labels):
            for column in range(len(ways)):
                axes = grid[row, column]
                for i, name in enumerate(names):
                    look = _look(i)
                    axes.plot(offsets, means[row, i, column], label=name, markersize=3.5, **look)
                    if len(names) <= 2:
                        axes.fill_between(
                            offsets, *ends[row, i, column].T, color=look["color"], alpha=0.13,
                            linewidth=0,
                        )  # fmt: skip
                axes.set_ylim(bottom=0)
                axes.grid(False, axis="x")
                axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f}")
                _ruler(axes, steps, int(offsets[-1]))
            grid[row, 0].set_ylabel(label)
        for axes, way in zip(grid[0], ways, strict=True):
            axes.set_title(titles.get(way, way))
        where = {"width": "to the right", "height": "down"}.get(axis, axis)
        for axes in grid[1]:
            axes.set_xlabel(f"pixels moved {where}")
        title = "mean over the images"
        if len(names) <= 2:
            title = "mean and 95 % interval over the images"
        if steps:
            title += f"; marks: multiples of {', '.join(map(str, steps))} pixels, the strides"
        handles = grid[0, 0].get_legend_handles_labels()
        beside = 3 if 3 * max(map(len, names)) < 85 else 2
        figure.legend(
            *(handles if any(names) else ([], [])),
            loc="outside lower center", ncols=min(len(names), beside), handlelength=3.5,
            title=title, title_fontsize=9.5,
        )  # fmt: skip
        return finish(figure, text)


def _ruler(axes: Any, steps: Sequence[int], last: int) -> None:
    """Marks at the bottom of a panel; where strides coincide, the longest shows."""
    for i, step in enumerate(steps):
        at = np.arange(step, last + 1, step)
        axes.vlines(at, 0, 0.03 * (i + 1), transform=axes.get_xaxis_transform(),
                    color=theme.MUTED, linewidth=1, zorder=0)  # fmt: skip
    tick = max((s for s in (4, 8, 16, 32) if last // s >= 3), default=1)
    axes.set_xticks(np.arange(0, last + 1, tick))
    axes.set_xlim(0, last + 0.5)


def corruptions_figure(
    kinds: Sequence[str], notes: Sequence[str], images: np.ndarray, values: np.ndarray
) -> Figure:
    """Corrupted images: a column for each kind, a row for each strength, the weakest above.

    Args:
        notes: a word or two to each kind, what its ``values`` (kinds, strengths) are.
        images: (kinds, strengths, H, W, 3) uint8.
    """
    gap, head, line = 8, 52, 24
    rows, columns = images.shape[1], len(kinds)
    side = (theme.WIDTH - gap * (columns + 1)) / columns
    high = side * images.shape[2] / images.shape[3]
    canvas = Canvas(theme.WIDTH, round(head + rows * (high + line + gap)))
    for k, (kind, note) in enumerate(zip(kinds, notes, strict=True)):
        left = gap + k * (side + gap)
        canvas.text((left, 4), kind, theme.TEXT, bold=True)
        canvas.text((left, 28), note, theme.SMALL, theme.MUTED)
        for row in range(rows):
            top = head + row * (high + line + gap)
            box = (left, top, left + side, top + high)
            canvas.draw_image(images[k, row], box)  # every pixel as it is
            canvas.rect(box, outline=theme.LINE)
            words = f"strength {row + 1}: {values[k, row]:g}"
            canvas.text((left, top + high + 3), words, theme.SMALL)
    said = "; ".join(
        f"{kind}: {note} {', '.join(map('{:g}'.format, row))}"
        for kind, note, row in zip(kinds, notes, values, strict=True)
    )
    return Figure(compact(canvas.image), said)


def robustness_figure(
    names: Sequence[str],
    kinds: Sequence[str],
    accuracy: np.ndarray,
    ends: np.ndarray,
    text: str,
) -> Figure:
    """Accuracy against strength, a panel for each kind of corruption, a line for each network.

    Args:
        accuracy: (names, kinds, 1 + strengths) in percent, the first without corruption.
        ends: (..., 2) of their intervals.
    """
    columns = 3
    panels = [*kinds, "all kinds"]
    shares = np.concatenate([accuracy, accuracy.mean(1, keepdims=True)], axis=1)
    rows = -(-len(panels) // columns)
    with chart(10, 1 + 2.6 * rows) as figure:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        x = np.arange(accuracy.shape[2])
        for k, (axes, kind) in enumerate(zip(grid.ravel(), panels, strict=False)):
            for i, name in enumerate(names):
                look = _look(i)
                axes.plot(x, shares[i, k], label=name, markersize=4.5, **look)
                if k < len(kinds):  # the mean has no interval of its own here
                    between = ends[i, k].T
                    axes.fill_between(x, *between, color=look["color"], alpha=0.18, linewidth=0)
            axes.set(title=kind, ylim=(0, 100))
            axes.set_xticks(x, ["clean", *map(str, x[1:])])
        for axes in grid.ravel()[len(panels) :]:
            axes.set_axis_off()
        for axes in grid[-1]:
            axes.set_xlabel("strength")
        for axes in grid[:, 0]:
            axes.set_ylabel("top-1, %")
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
            handlelength=3.5, title="bands: 95 % interval over the images (none under all kinds)",
            title_fontsize=9.5,
        )  # fmt: skip
        return finish(figure, text)


def comparison_figure(
    first: str,
    second: str,
    kinds: Sequence[str],
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    text: str,
) -> Figure:
    """Differences of two networks, a row for each kind; left of accuracy on corrupted images, right
    of what corruption takes. The arrays are (2, kinds) percentage points."""
    titles = ("on corrupted images", "corrupted minus clean")
    with chart(10, 1.3 + 0.42 * len(kinds), **{"axes.grid": False}) as figure:
        both = figure.subplots(1, 2, sharey=True)
        rows = np.arange(len(kinds))
        for axes, title, *numbers in zip(both, titles, mean, low, high, strict=True):
            axes.axvline(0, color=theme.INK, linewidth=1.2)
            axes.hlines(rows, numbers[1], numbers[2], color=theme.BLUE, linewidth=3)
            axes.plot(numbers[0], rows, "o", color=theme.BLUE, markersize=7)
            axes.set(title=title, xlabel="difference of top-1, percentage points")
            axes.set_yticks(rows, kinds)
            axes.set_ylim(len(kinds) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
        both[0].get_yticklabels()[-1].set_fontweight("bold")
        figure.suptitle(f"{first} minus {second}", fontsize=12, fontweight="bold")
        return finish(figure, text)


def _look(i: int) -> dict[str, Any]:
    return LINES[i % len(LINES)]

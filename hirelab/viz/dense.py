"""Detectors and segmenters in training: curves of groups of runs, and class by class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import theme
from .figures import LINES, Figure, chart, finish


def results(
    groups: Sequence[str],
    curves: Sequence[Sequence[Sequence[Sequence[float]]]],
    classes: Sequence[str],
    by_class: np.ndarray,
    *,
    title: str,
    measure: str,
    text: str,
) -> Figure:
    """Left the measure against epochs, a thin line for each run; right each class's figure.

    Args:
        groups: names; ``curves``: of each group, of each run, (epochs, values).
        classes: K names; ``by_class``: (groups, K).
    """
    from matplotlib.ticker import MaxNLocator

    rows = np.argsort(np.nan_to_num(by_class[0], nan=-1.0), kind="stable")
    with chart(9, max(3.4, 0.26 * len(classes) + 1.4)) as figure:
        left, right = figure.subplots(1, 2)
        for group, runs, figures, line in zip(groups, curves, by_class, LINES, strict=False):
            for i, (epochs, values) in enumerate(runs):
                left.plot(epochs, values, markersize=4, label="" if i else group, **line)
            style = {"color": line["color"], "marker": line["marker"], "linestyle": "none"}
            right.plot(figures[rows], np.arange(len(rows)), markersize=6, **style)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(xlabel="epochs", ylabel=f"{measure}, val", title="while they train")
        left.set_ylim(bottom=0)
        left.set_xlim(left=0)
        left.legend(loc="lower right")
        right.hlines(np.arange(len(rows)), 0, 100, color=theme.LINE, linewidth=0.8, zorder=0)
        right.set_yticks(np.arange(len(rows)), [classes[k] for k in rows])
        right.set(xlim=(-2, 102), xlabel=f"{measure.replace('mean ', '')}, mean over seeds")
        right.set_title("at the end, class by class")
        right.grid(visible=False)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        return finish(figure, text)


def padding(
    networks: Sequence[str], maps: Sequence[Sequence[np.ndarray]], pad: int, *, text: str
) -> Figure:
    """How much each place of each stage's map changes beside empty canvas, a row for each network.

    One step of the colour scale is a factor of ten; below a thousandth it ends.
    """
    from matplotlib.colors import LogNorm

    stages = len(maps[0])
    low = 1e-3
    width = 1.75 * stages + 1.6
    with chart(width, 1.75 * len(networks) + 0.9, **{"axes.grid": False}) as figure:
        grid = np.atleast_2d(figure.subplots(len(networks), stages))
        for name, row, axes_row in zip(networks, maps, grid, strict=True):
            for stage, (found, axes) in enumerate(zip(row, axes_row, strict=True)):
                shown = axes.imshow(
                    np.maximum(found, low), norm=LogNorm(low, 1), cmap=theme.SEQUENTIAL,
                    interpolation="nearest",
                )  # fmt: skip
                axes.set_xticks([])
                axes.set_yticks([])
                if name == networks[0]:
                    axes.set_title(f"stage {stage}")
            axes_row[0].set_ylabel(name)
        bar = figure.colorbar(shown, ax=grid, shrink=0.8, pad=0.02)
        bar.set_ticks([0.001, 0.01, 0.1, 1], labels=["0.1 %", "1 %", "10 %", "100 %"])
        bar.set_label("change of a place")
        figure.suptitle(f"{pad} pixels of canvas to the right and below", x=0.01, ha="left")
        return finish(figure, text)

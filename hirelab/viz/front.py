"""Accuracy against speed: which networks no other one beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import theme
from .figures import Chart, chart, finish

_OURS: dict[str, Any] = {"color": theme.BLUE, "marker": "o", "markersize": 9, "linewidth": 2.4}
_OTHERS: dict[str, Any] = {"color": theme.MUTED, "marker": "s", "markersize": 5, "linewidth": 1.0}
_SPAN: dict[str, Any] = {  # in the legend: a bar that stands
    "color": theme.MUTED, "marker": "|", "markersize": 16, "markeredgewidth": 1.6, "linestyle": "",
}  # fmt: skip
_FRONT: dict[str, Any] = {"color": theme.ORANGE, "linewidth": 7, "alpha": 0.45, "zorder": 0}


@dataclass(frozen=True)
class Panel:
    """Networks of one comparison.

    Attributes:
        title, xlabel, ylabel: of the panel.
        speed, accuracy: of every network, by its name; more is better.
        families: {label: names from small to large}, each joined by a line; every network is in
            one. The label stands at the first.
        ours: the labels of families that stand out.
        spans: (lowest, highest) accuracy of single trainings, where there are several.
    """

    title: str
    xlabel: str
    ylabel: str
    speed: Mapping[str, float]
    accuracy: Mapping[str, float]
    families: Mapping[str, Sequence[str]]
    ours: Sequence[str] = ()
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def front_of(speed: Mapping[str, float], accuracy: Mapping[str, float]) -> list[str]:
    """The names that no other is faster than and as accurate, or as fast and more accurate; from
    the fastest on."""

    def beaten(name: str) -> bool:
        mine = (speed[name], accuracy[name])
        others = ((speed[one], accuracy[one]) for one in speed)
        return any(s >= mine[0] and a >= mine[1] and (s, a) != mine for s, a in others)

    return sorted((name for name in speed if not beaten(name)), key=lambda name: -speed[name])


def speed_fronts(panels: Sequence[Panel], text: str) -> Chart:
    """The panels side by side, speed on a scale of factors; the front is the broad pale line."""
    from matplotlib.lines import Line2D

    with chart(10, 5.4) as figure:
        widths = [5 + len(panel.families) for panel in panels]
        row = figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            _draw(axes, panel)
        handles = [Line2D([], [], **_FRONT), Line2D([], [], **_SPAN)]
        words = ["no network is faster and more accurate", "lowest to highest training"]
        figure.legend(handles, words, loc="outside lower center", ncols=2)
        figure.draw_without_rendering()  # from here on it is known where things stand
        for axes, panel in zip(row, panels, strict=True):
            _label(axes, panel)
        return finish(figure, text)


def _label(axes: Any, panel: Panel) -> None:
    """Every family's name beside its first network, at the side where it covers least."""
    from matplotlib.patheffects import withStroke

    spots = [axes.transData.transform((panel.speed[n], panel.accuracy[n])) for n in panel.speed]
    taken = [(x - 9, y - 9, x + 9, y + 9) for x, y in spots]
    frame = axes.get_window_extent()
    for label, names in sorted(panel.families.items(), key=lambda one: one[0] not in panel.ours):
        own, best = label in panel.ours, None
        for offset, align in (((8, 0), "left"), ((-8, 0), "right"), ((0, 12), "center"),
                              ((0, -12), "center")):  # fmt: skip
            text = axes.annotate(
                label, (panel.speed[names[0]], panel.accuracy[names[0]]), offset,
                textcoords="offset points", ha=align, va="center", fontsize=11,
                color=theme.BLUE if own else theme.INK, fontweight="bold" if own else "normal",
                path_effects=[withStroke(linewidth=3, foreground=theme.PAPER)], zorder=4,
            )  # fmt: skip
            text.set_in_layout(False)
            box = text.get_window_extent().extents
            outside = box[0] < frame.x0 or box[2] > frame.x1
            cost = sum(_overlap(box, other) for other in taken) + 1e6 * outside
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = cost, text, box
            else:
                text.remove()
        assert best is not None
        taken.append(tuple(best[2]))


def _overlap(one: Any, other: Any) -> float:
    """Common area of two boxes (left, bottom, right, top)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _draw(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    best = front_of(panel.speed, panel.accuracy)
    axes.plot([panel.speed[n] for n in best], [panel.accuracy[n] for n in best], **_FRONT)
    for label, names in panel.families.items():
        own = label in panel.ours
        style = _OURS if own else _OTHERS
        xs, ys = ([values[n] for n in names] for values in (panel.speed, panel.accuracy))
        for x, name in zip(xs, names, strict=True):
            if name in panel.spans:
                axes.plot([x, x], panel.spans[name], color=style["color"], linewidth=1.4)
        axes.plot(xs, ys, zorder=3 if own else 2, **style)
    axes.set(title=panel.title, xlabel=panel.xlabel, ylabel=panel.ylabel, xscale="log")
    speeds = np.array(list(panel.speed.values()))
    axes.set_xlim(speeds.min() / 1.15, speeds.max() * (speeds.max() / speeds.min()) ** 0.28 * 1.1)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    ticks = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
    axes.set_xticks([t for t in ticks if speeds.min() / 1.15 <= t <= speeds.max() * 1.3])

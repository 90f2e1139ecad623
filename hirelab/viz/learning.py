"""Curves of learning: accuracy while networks train, beside what they could know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import theme
from .figures import LINES, Figure, chart, finish


def learning_curves(
    names: Sequence[str],
    distances: Sequence[int],
    moments: np.ndarray,
    accuracy: np.ndarray,
    possible: np.ndarray,
    chance: float,
    unit: str,
) -> Figure:
    """A panel for each network, and in it a line for each distance.

    Args:
        moments: (M,) training steps.
        accuracy: (names, M, distances) share of right answers, 0..1, NaN where nothing is known.
        possible: (names, distances) the most that can be right, drawn at the right edge.
        chance: share of right answers of a guess.
        unit: what distances are counted in.
    """
    with chart(9, 3.8) as figure:
        grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        last = moments[-1]
        for axes, name, shares, best in zip(grid, names, accuracy, possible, strict=True):
            axes.axhline(chance, color=theme.MUTED, linewidth=1)
            axes.annotate("guessing", (last, chance), (0, -4), textcoords="offset points",
                          fontsize=9, color=theme.MUTED, ha="right", va="top")  # fmt: skip
            for i, distance in enumerate(distances):
                look = {**LINES[i % len(LINES)], "color": theme.CYCLE[i % len(theme.CYCLE)]}
                known = ~np.isnan(shares[:, i])
                label = f"{distance} {unit if distance > 1 else unit.removesuffix('s')}"
                axes.plot(moments[known], shares[known, i], label=label, markersize=4, **look)
                axes.plot([last * 1.02, last * 1.09], [best[i]] * 2, color=look["color"],
                          linewidth=3, clip_on=False, solid_capstyle="butt")  # fmt: skip
            axes.set(xlim=(0, last * 1.1), ylim=(0, 1.04), title=name, xlabel="training steps")
            axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        grid[0].set_ylabel("right on fresh images")
        figure.legend(
            *grid[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=len(distances),
            title="copied from so far away; a bar at the right edge: all that is possible",
            title_fontsize=9,
            handlelength=3.5,
        )
        said = "; ".join(
            f"{name}: " + ", ".join(map("{:.0%} from {}".format, one[-1], distances))
            for name, one in zip(names, accuracy, strict=True)
            if not np.isnan(one).any()
        )
        return finish(figure, said or "nothing learnt yet")

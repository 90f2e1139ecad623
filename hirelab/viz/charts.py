"""Curves and matrices with matplotlib, in the project's style."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from . import theme
from .canvas import Still

# Lines differ in colour, in dash and in marker, so that they also differ in black and white.
_LINES = (
    {"color": theme.BLUE, "linestyle": "-", "marker": "o"},
    {"color": theme.VERMILION, "linestyle": "--", "marker": "s"},
    {"color": theme.GREEN, "linestyle": "-.", "marker": "^"},
    {"color": theme.MUTED, "linestyle": ":", "marker": "D"},
)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # no pyplot: nothing global, nothing to close

    return Figure(figsize=(width, height), layout="constrained")


def _still(figure, text: str) -> Still:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return Still(buffer.getvalue(), text, figure)


def reach_growth(
    names: Sequence[str], heard: np.ndarray, tokens: int, title: str, text: str
) -> Still:
    """Mean tokens heard against blocks, a line for each name; ``heard`` is (names, blocks + 1)."""
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    with rc_context(theme.RC):
        figure = _figure(8, 3.6)
        axes = figure.subplots()
        blocks = np.arange(heard.shape[1])
        for name, row, line in zip(names, heard, _LINES, strict=False):
            axes.plot(blocks, row, label=name, markersize=5, **line)
        axes.axhline(tokens, color=theme.INK, linewidth=1)
        axes.annotate("all of them", (0, tokens), (0, 4), textcoords="offset points", fontsize=10)
        axes.set(xlabel="blocks", ylabel="tokens heard of (mean)", ylim=(0, tokens * 1.12))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _still(figure, text)


def training_curves(
    losses: dict[str, tuple[Sequence[float], Sequence[float]]],
    accuracies: dict[str, tuple[Sequence[float], Sequence[float]]],
) -> Still:
    """Training loss, and top-1 accuracy on validation pictures (%), against epochs.

    Both are {name of a run: (epochs, values)}; the text says how each run ended.
    """
    from matplotlib import rc_context
    from matplotlib.ticker import MaxNLocator

    with rc_context(theme.RC):
        figure = _figure(8, 3.4)
        left, right = figure.subplots(1, 2)
        for (name, (epochs, values)), line in zip(losses.items(), _LINES, strict=False):
            left.plot(epochs, values, **{**line, "marker": ""})
            right.plot(*accuracies[name], label=name, markersize=4, **line)
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(xlabel="epochs", ylabel="loss, augmented pictures", title="training")
        right.set(xlabel="epochs", ylabel="top-1, %", title="validation")
        if len(losses) > 1:
            right.legend(loc="lower right")
        said = [
            f"{name or 'the run'}: loss {values[-1]:.2f}"
            + (f", top-1 {accuracies[name][1][-1]:.1f} %" if accuracies[name][1] else "")
            for name, (_, values) in losses.items()
        ]
        return _still(figure, "; ".join(said))


def reach_matrices(matrices: dict[str, np.ndarray]) -> Still:
    """Who hears whom, a square each: row = who hears, column = who is heard.

    The text counts the pairs and those of them that are not mutual.
    """
    from matplotlib import rc_context
    from matplotlib.patches import Patch

    with rc_context({**theme.RC, "axes.grid": False}):
        figure = _figure(3.3 * len(matrices), 4.0)
        said = []
        for axes, (name, matrix) in zip(
            np.atleast_1d(figure.subplots(1, len(matrices))), matrices.items(), strict=True
        ):
            colors = np.array([theme.rgb(theme.UNHEARD), theme.rgb(theme.HEARD)], np.uint8)
            picture = colors[matrix.astype(int)]
            one_way = matrix & ~matrix.T
            picture[one_way] = theme.rgb(theme.ORANGE)
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(name)
            axes.set(xlabel="token heard", ylabel="token that hears")
            said.append(f"{name}: {int(matrix.sum())} pairs, {int(one_way.sum())} one-way")
        figure.legend(
            handles=[
                Patch(color=theme.HEARD, label="hears, and is heard"),
                Patch(color=theme.ORANGE, label="hears a padded copy, and is not heard"),
            ],
            loc="outside lower center",
            ncols=2,
        )
        return _still(figure, "; ".join(said))

"""Curves and matrices with matplotlib, in the project's style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import theme
from .figures import LINES, Figure, chart, finish


def reach_growth(
    names: Sequence[str], reached: np.ndarray, tokens: int, title: str, text: str
) -> Figure:
    """How many tokens reach a token on average, against blocks, a line for each name.

    ``reached`` is (names, blocks + 1).
    """
    from matplotlib.ticker import MaxNLocator

    with chart(8, 3.6) as figure:
        axes = figure.subplots()
        blocks = np.arange(reached.shape[1])
        for name, row, line in zip(names, reached, LINES, strict=False):
            axes.plot(blocks, row, label=name, markersize=5, **line)
        axes.axhline(tokens, color=theme.INK, linewidth=1)
        axes.annotate("all of them", (0, tokens), (0, 4), textcoords="offset points", fontsize=10)
        axes.set(xlabel="blocks", ylabel="tokens that reach one (mean)", ylim=(0, tokens * 1.12))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return finish(figure, text)


def training_curves(
    losses: dict[str, tuple[Sequence[float], Sequence[float]]],
    accuracies: dict[str, tuple[Sequence[float], Sequence[float]]],
) -> Figure:
    """Training loss, and top-1 accuracy on validation images (%), against epochs.

    Both are {name of a run: (epochs, values)}; the text says how each run ended.
    """
    from matplotlib.ticker import MaxNLocator

    with chart(8, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        for (name, (epochs, values)), line in zip(losses.items(), LINES, strict=False):
            left.plot(epochs, values, **{**line, "marker": ""})
            right.plot(*accuracies[name], label=name, markersize=4, **line)
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set(xlabel="epochs", ylabel="loss, augmented images", title="training")
        right.set(xlabel="epochs", ylabel="top-1, %", title="validation")
        if len(losses) > 1:
            right.legend(loc="lower right")
        said = [
            f"{name or 'the run'}: loss {values[-1]:.2f}"
            + (f", top-1 {accuracies[name][1][-1]:.1f} %" if accuracies[name][1] else "")
            for name, (_, values) in losses.items()
        ]
        return finish(figure, "; ".join(said))


def reach_matrices(matrices: dict[str, np.ndarray]) -> Figure:
    """Which token reaches which, a square each: column = from, row = to.

    The text counts the pairs and those of them that are not mutual.
    """
    from matplotlib.patches import Patch

    with chart(3.3 * len(matrices), 4.0, **{"axes.grid": False}) as figure:
        said = []
        for axes, (name, matrix) in zip(
            np.atleast_1d(figure.subplots(1, len(matrices))), matrices.items(), strict=True
        ):
            colors = np.array([theme.rgb(theme.UNREACHED), theme.rgb(theme.REACHED)], np.uint8)
            image = colors[matrix.astype(int)]
            one_way = matrix & ~matrix.T
            image[one_way] = theme.rgb(theme.ORANGE)
            axes.imshow(image, interpolation="nearest")
            axes.set_title(name)
            axes.set(xlabel="from token", ylabel="to token")
            said.append(f"{name}: {int(matrix.sum())} pairs, {int(one_way.sum())} one-way")
        figure.legend(
            handles=[
                Patch(color=theme.REACHED, label="both ways"),
                Patch(color=theme.ORANGE, label="one way, through a padded copy"),
            ],
            loc="outside lower center",
            ncols=2,
        )
        return finish(figure, "; ".join(said))


def cost_shares(
    networks: Sequence[str], parts: Sequence[str], params: np.ndarray, macs: np.ndarray
) -> Figure:
    """Where parameters and multiply-adds sit: a bar a network, cut into parts.

    ``params`` and ``macs`` are shares, (networks, parts), each row summing to 1.
    """
    from matplotlib.patches import Patch

    looks: tuple[dict[str, Any], ...] = (
        {"facecolor": theme.LINE, "hatch": ""},
        {"facecolor": theme.SKY, "hatch": "//"},
        {"facecolor": theme.GREEN, "hatch": "\\\\"},
        {"facecolor": theme.PAPER, "hatch": ".."},
        {"facecolor": theme.ORANGE, "hatch": ""},
        {"facecolor": theme.PAPER, "hatch": ""},
    )
    with chart(
        10, 1.5 + 0.42 * len(networks), **{"axes.grid": False, "hatch.linewidth": 0.6}
    ) as figure:
        both = figure.subplots(1, 2, sharey=True)
        titles = ("parameters, % of all", "multiply-adds, % of all")
        for axes, shares, title in zip(both, (params, macs), titles, strict=True):
            ends = 100 * np.cumsum(shares, axis=1)
            for i, look in zip(range(len(parts)), looks, strict=False):
                widths = 100 * shares[:, i]
                axes.barh(networks, widths, 0.78, ends[:, i] - widths, edgecolor=theme.INK, **look)
                for row, width in enumerate(widths):
                    if width >= 4.5:  # narrower ones have no room for two digits
                        at = (ends[row, i] - width / 2, row)
                        box = {"facecolor": theme.PAPER, "edgecolor": "none", "pad": 1.0}
                        axes.text(*at, f"{width:.0f}", ha="center", va="center", bbox=box)
            axes.set(xlim=(0, 100), title=title)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        both[0].invert_yaxis()
        figure.legend(
            handles=[
                Patch(edgecolor=theme.INK, label=part, **look)
                for part, look in zip(parts, looks, strict=False)
            ],
            loc="outside lower center",
            ncols=3,
            handlelength=2.4,
        )
        said = [
            f"{name}: "
            + ", ".join(
                f"{part} {100 * p:.0f} and {100 * m:.0f} %"
                for part, p, m in zip(parts, params[i], macs[i], strict=True)
            )
            for i, name in enumerate(networks)
        ]
        return finish(figure, "of parameters and of multiply-adds; " + "; ".join(said))


def cost_growth(networks: Sequence[str], sides: np.ndarray, macs: np.ndarray) -> Figure:
    """Multiply-adds of an image against its pixels, and of a pixel against the side.

    ``macs`` is (networks, sides). Linear cost is a straight line left and a level one right.
    """
    with chart(10, 4.0) as figure:
        left, right = figure.subplots(1, 2)
        for name, row, line in zip(networks, macs, LINES, strict=False):
            left.plot(sides**2 / 1e6, row / 1e9, label=name, markersize=6, **line)
            right.plot(sides, row / sides**2 / 1e3, markersize=6, **line)
        left.set(xlabel="pixels of the image, millions", ylabel="multiply-adds, billions")
        left.set(xlim=0, ylim=0, title="an image")
        room = (sides.max() - sides.min()) / 9
        ticks: list[int] = []
        for side in sorted(sides):  # a number wherever it stands clear of the one before
            if not ticks or side - ticks[-1] > room:
                ticks.append(side)
        right.set(xlabel="side of the image, pixels", ylabel="multiply-adds, thousands")
        right.set(ylim=0, title="a pixel", xticks=ticks)
        figure.legend(loc="outside lower center", ncols=len(networks), handlelength=3.5)
        factors = macs[:, -1] / macs[:, 0]
        said = [f"{n} {f:.1f} times" for n, f in zip(networks, factors, strict=True)]
        pixels = (sides[-1] / sides[0]) ** 2
        return finish(figure, f"{pixels:.1f} times the pixels cost: {', '.join(said)}")


def feature_pyramid(
    input_size: tuple[int, int],
    dims: np.ndarray,
    sizes: np.ndarray,
    pixels: np.ndarray,
    region: np.ndarray,
    padded: np.ndarray,
) -> Figure:
    """Every stage's grid laid over the image, cut into regions along height and along width.

    Args:
        input_size: (height, width) of the image in pixels.
        dims, pixels: (stages,) channels, and pixels from one token to the next.
        sizes: (stages, 2) rows and columns of tokens.
        region, padded: (stages, 2) tokens in a region and padded slots, along height and width;
            no region (0) where the network has no branch along that axis.
    """
    from matplotlib.patches import Patch, Rectangle

    far = ((sizes + padded) * pixels[:, None]).max(0)  # pixels, down and across
    height = 1.5 + 2 * (2.2 * min(max(far[0] / far[1], 0.5), 1.6) + 0.5)
    with chart(2.7 * len(dims), height, **{"axes.grid": False, "hatch.linewidth": 0.8}) as figure:
        grid = figure.subplots(2, len(dims), sharex=True, sharey=True, squeeze=False)
        said = []
        for (row, stage), axes in np.ndenumerate(grid):
            step, h = int(pixels[stage]), int(region[stage, row])
            tokens, pad = sizes[stage], int(padded[stage, row])

            def strip(start: int, stop: int, row=row, tokens=tokens, step=step, **look):
                """Tokens ``start`` to ``stop`` of the axis in question, all of the other."""
                length, across = (stop - start) * step, int(tokens[1 - row]) * step
                corner = (0, start * step) if row == 0 else (start * step, 0)
                sides = (across, length) if row == 0 else (length, across)
                return Rectangle(corner, *sides, linewidth=0.8, edgecolor=theme.INK, **look)

            size = int(tokens[row])
            for n, start in enumerate(range(0, size, h or size)):
                fill = theme.UNREACHED if n % 2 else theme.LINE
                stop = min(start + (h or size), size)
                axes.add_patch(strip(start, stop, facecolor=fill))
            for slot in range(size, size + pad):
                axes.add_patch(strip(slot, slot + 1, facecolor=theme.PAPER, hatch="////"))
            frame: dict[str, Any] = {"fill": False, "edgecolor": theme.VERMILION, "linestyle": "--"}
            axes.add_patch(Rectangle((0, 0), input_size[1], input_size[0], linewidth=1.8, **frame))
            axes.set(xlim=(-6, far[1] + 6), ylim=(far[0] + 6, -6), aspect="equal")
            kind = "row" if row == 0 else "column"
            count = -(-size // h) if h else 0
            what = f"{pad} {kind}{'s' * (pad > 1)} padded" if pad else "none padded"
            note = f"{count} regions of {h}, {what}" if h else "no branch"
            axes.set_xlabel(note.replace(", ", ",\n"), fontsize=10)
            axes.tick_params(labelsize=9)
            if row == 0:
                title = f"stages.{stage}: {tokens[0]} x {tokens[1]}"
                axes.set_title(f"{title}\n{dims[stage]} channels", fontsize=11)
            if stage == 0:
                axes.set_ylabel(f"cut along {'height' if row == 0 else 'width'}\npixels")
            said.append(f"stages.{stage} {'height' if row == 0 else 'width'}: {note}")
        figure.legend(
            handles=[
                Patch(facecolor=theme.LINE, edgecolor=theme.INK, label="regions, in turn pale"),
                Patch(facecolor=theme.PAPER, edgecolor=theme.INK, hatch="////", label="padding"),
                Patch(fill=False, edgecolor=theme.VERMILION, linestyle="--", label="the image"),
            ],
            loc="outside lower center",
            ncols=3,
        )
        return finish(figure, "; ".join(said))

"""Where information can come from and go to: exact reachability in a network, without gradients.

`provenance` follows one token of any point back to the image, `descendants` follows a token or a
pixel on to the end, along the wiring of `hirelab.models.wiring`. `hirelab.analysis.reach` counts
reach through blocks in a row without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from .._shared.checks import check_choice, check_position
from .._shared.errors import HirelabError
from ..models.hire_mlp import BRANCHES, HireMLP
from ..models.wiring import Wiring, full_name, propagate, wire
from ..results import Result
from .paths import PATHS

LAST = "features"
"""The point of a Hire-MLP's last map."""


@dataclass(frozen=True, eq=False)
class Provenance(Result):
    """Which tokens and pixels are connected with one position, at every point of a network.

    ``result[name]`` is the map of a point, (rows, columns) bool, True where information can have
    come from (`provenance`) or can get to (`descendants`); a region grid has one entry for each
    region, gates and vectors are 1 x 1, and "input" has one entry for each pixel.

    Attributes:
        point: the name of the point that the position belongs to.
        position: (row, column) in that point's own grid; None for gates and vectors.
        paths: a name of `hirelab.analysis.paths.PATHS`.
        direction: "back" for `provenance`, "forward" for `descendants`.
        names: the points that were passed, in the order of the network, ``point`` included.
        shapes: (names, 2) rows and columns of every map.
        flat: all maps one after the other, bool.
    """

    point: str
    position: tuple[int, int] | None
    paths: str
    direction: str
    names: list[str]
    shapes: np.ndarray
    flat: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        at = self.names.index(full_name(name, self.names, "The result lists its points in names."))
        sizes = self.shapes.prod(axis=1)
        start = int(sizes[:at].sum())
        return self.flat[start : start + int(sizes[at])].reshape(self.shapes[at])

    @property
    def pixels(self) -> np.ndarray:
        """(height, width) bool: the map of the image's pixels."""
        return self["input"]

    @property
    def levels(self) -> list[str]:
        """The pixels, the token grid that goes into every stage and the one that comes out of it,
        as far as they were passed, and the point itself."""
        between = ("input", "stem.out", "stages.*.downsample.out", "features")
        return [
            name
            for name in self.names
            if name == self.point
            or any(fnmatchcase(name, pattern) for pattern in between)
            or (fnmatchcase(name, "stages.*.out") and name.count(".") == 2)
        ]

    def share(self, name: str) -> float:
        """The part of a point's map that is connected, 0 to 1."""
        return float(self[name].mean())

    def __repr__(self) -> str:
        counts = ", ".join(f"{n}: {int(self[n].sum())} of {self[n].size}" for n in self.levels)
        return f"{self._what()} ({self.paths} paths): {counts}"

    def _what(self) -> str:
        what = "pixel" if self.point == "input" else "token"
        where = self.point if self.position is None else f"{what} {self.position} of {self.point}"
        return f"What reaches {where}" if self.direction == "back" else f"What {where} reaches"

    def plot(self):
        """The maps of the levels side by side, a `hirelab.viz.canvas.Figure`."""
        from ..viz import reach

        maps = {name: self[name] for name in self.levels}
        return reach.levels(
            maps,
            self.point,
            self.position,
            f"{self._what()}, {self.paths} paths",
            "can reach it" if self.direction == "back" else "can be reached from it",
            repr(self),
        )


def provenance(
    model: HireMLP,
    position: Sequence[int] | None,
    point: str | None = None,
    paths: str = "full",
    img_size: int | Sequence[int] = 224,
) -> Provenance:
    """The exact set of tokens, at every earlier point, and of pixels that can reach a position.

    From the current index maps of the built model (region, shift, padding, cross-region mode and
    restore of every single branch, kernels and strides of the convolutions); nothing is run. "Can"
    is for a network in evaluation mode: no other weights could let anything else through. In
    training, BatchNorm's averages join everything with everything.

    Args:
        model: a Hire-MLP of this library.
        position: (row, column) in the point's own grid; in a region grid the region's place. None
            for gates and vectors, which have no tokens.
        point: the name of a point of the model, or of a module with a result; "input" for pixels;
            the network's last map for None.
        paths: what a block lets through beside its residual connections: "full"; "spatial", all
            but the gate; "height", "width" or "channel", this branch alone; "shift off", spatial
            with every shift 0. It says what enters ``fused``: a point inside a branch, and a gate,
            reads what it reads.
        img_size: of the input in pixels, (height, width), or one number for a square.

    Raises:
        UnknownPoint: for a point that the model has not; the message suggests near names.
        HirelabError: for something else than a Hire-MLP of this library, an impossible position,
            size or choice of paths, naming it.
    """
    point = LAST if point is None else point
    return _follow(model, position, point, paths, img_size, back=True)


def descendants(
    model: HireMLP,
    position: Sequence[int] | None,
    point: str = "input",
    paths: str = "full",
    img_size: int | Sequence[int] = 224,
) -> Provenance:
    """The exact set of tokens, at every later point, that a token or a pixel can reach.

    The other direction of `provenance`, with its arguments and errors; not its mirror image,
    because a padded copy of a token may reach a region that does not reach the token.
    """
    return _follow(model, position, point, paths, img_size, back=False)


def _follow(
    model: HireMLP,
    position: Sequence[int] | None,
    point: str,
    paths: str,
    img_size: int | Sequence[int],
    back: bool,
) -> Provenance:
    """The maps of all points on the way from one position, back or forward."""
    check_choice("choice of paths", paths, PATHS)
    chosen = PATHS[paths]
    wiring = wire(model, img_size, shifts=not chosen.shift_off)
    if paths in BRANCHES and f"stages.0.blocks.0.hire.{paths}.out" not in wiring.kinds:
        raise HirelabError(f"The network was built without {paths} branches; choose other paths.")
    name = full_name(point, wiring.names, "model.points() lists them all.")
    place = _place(wiring, name, position)
    maps = {n: np.zeros(grid, dtype=bool) for n, grid in wiring.grids.items()}
    maps[name][place or (0, 0)] = True
    propagate(wiring.without(chosen.cut).edges, maps, back)
    at = wiring.names.index(name)
    names = wiring.names[: at + 1] if back else wiring.names[at:]
    return Provenance(
        name,
        place,
        paths,
        "back" if back else "forward",
        names,
        np.array([wiring.grids[n] for n in names]),
        np.concatenate([maps[n].ravel() for n in names]),
    )


def _place(wiring: Wiring, name: str, position: Sequence[int] | None) -> tuple[int, int] | None:
    """The position in its point's grid; None for gates and vectors, which have no tokens."""
    kind = wiring.kinds[name]
    if kind not in ("gate", "vector"):
        what = "regions" if kind == "region grid" else "pixels" if name == "input" else "tokens"
        return check_position(position, wiring.grids[name], name, what)
    if position is not None:
        raise HirelabError(
            f"position is {position!r}; {name} is a {kind} and has no tokens: give position=None."
        )
    return None

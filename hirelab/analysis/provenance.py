"""Who can have heard of whom: exact reachability, from index maps and without gradients.

`provenance` follows one token of any point of a network back to the image, `descendants` follows
a token or a pixel on to the end; `reach_growth` counts, for all tokens of one stage at once, how
far they hear through several blocks in a row.

In a block a token hears along its height branch, along its width branch, and keeps itself (channel
branch and residual connection). The gate averages over the whole map, so through it everything
reaches everything at once; it is therefore counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from operator import index
from typing import Any

import numpy as np
from torch import nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError, unknown
from ..hooks.points import UnknownPoint, probes
from ..models.hire_mlp import BRANCHES, AxisBranch, ConvNormAct, HireBlock, HireMLP
from ..rearrange import Rearrangement
from ..results import Result

MANNERS = {
    "shift and restore": {},
    "shift, no restore": {"restore": False},
    "shuffle": {"cross_region": "shuffle"},
    "none": {"cross_region": "none"},
}

# What may enter a block's `fused`, for each choice of paths. Residual connections are always open.
PATHS = {
    "full": ("height", "width", "channel", "gate"),
    "spatial": ("height", "width", "channel"),
    "height": ("height",),
    "width": ("width",),
    "channel": ("channel",),
    "shift off": ("height", "width", "channel"),  # spatial, every shift taken as 0
}


# ------------------------------------------------------------------ through a network


@dataclass(frozen=True, eq=False)
class Provenance(Result):
    """Which tokens and pixels are connected with one token, at every point of a network.

    ``result[name]`` is the map of a point, (rows, columns) bool, True where information can have
    come from (`provenance`) or can get to (`descendants`); a region grid has an entry a region,
    gates and vectors are 1 x 1, and "input" has an entry a pixel.

    Attributes:
        point: the name of the token's point.
        token: (row, column) in that point's own grid; None for gates and vectors.
        paths: one of `PATHS`.
        direction: "back" for `provenance`, "forward" for `descendants`.
        names: the points that were passed, in the order of the network, ``point`` included.
        shapes: (names, 2) rows and columns of every map.
        flat: all maps one after the other, bool.
    """

    point: str
    token: tuple[int, int] | None
    paths: str
    direction: str
    names: list[str]
    shapes: np.ndarray
    flat: np.ndarray

    def __post_init__(self) -> None:
        if self.token is not None:  # JSON knows no tuples
            object.__setattr__(self, "token", tuple(self.token))

    def __getitem__(self, name: str) -> np.ndarray:
        at = self.names.index(_named(name, self.names, "the result has it in names."))
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
        place = "pixel" if self.point == "input" else "token"
        where = self.point if self.token is None else f"{place} {self.token} of {self.point}"
        return f"What {where} hears" if self.direction == "back" else f"What hears {where}"

    def plot(self):
        """The maps of the levels side by side, a `hirelab.viz.canvas.Still`."""
        from ..viz import reach

        maps = {name: self[name] for name in self.levels}
        return reach.levels(
            maps,
            self.point,
            self.token,
            f"{self._what()}, {self.paths} paths",
            "can reach it" if self.direction == "back" else "can be reached from it",
            repr(self),
        )


def provenance(
    model: HireMLP,
    token: Sequence[int] | None,
    point: str,
    paths: str = "full",
    size: int | Sequence[int] = 224,
) -> Provenance:
    """The exact set of tokens, at every earlier point, and of pixels that can reach a token.

    From the index maps in force on the built model (region, shift, padding, cross-region manner and
    restore of every single branch, kernels and strides of the convolutions); nothing is run. "Can"
    is for a network in evaluation mode: no other weights could let anything else through. In
    training, BatchNorm's averages join everything with everything.

    Args:
        model: a Hire-MLP of this library.
        token: (row, column) in the point's own grid; in a region grid the region's place. None for
            gates and vectors, which have no tokens.
        point: the name of a point of the model, or of a module with a result; "input" for pixels.
        paths: what a block lets through beside its residual connections: "full"; "spatial", all
            but the gate; "height", "width" or "channel", this branch alone; "shift off", spatial
            with every shift 0. It says what enters ``fused``: a point inside a branch, and a gate,
            reads what it reads.
        size: of the input in pixels, (height, width), or one number for a square.

    Raises:
        TypeError: for something else than a Hire-MLP of this library.
        UnknownPoint: for a point that the model has not; the message suggests near names.
        HirelabError: for an impossible token, size or choice of paths, naming it.
    """
    wiring = _Wiring(model, size, paths)
    start, maps = wiring.start(point, token)
    for edge in reversed(wiring.edges):
        maps[edge.source] |= edge.back(maps[edge.target])
    before = wiring.names[: wiring.names.index(start) + 1]
    return wiring.result("back", start, token, {name: maps[name] for name in before})


def descendants(
    model: HireMLP,
    token: Sequence[int] | None,
    point: str = "input",
    paths: str = "full",
    size: int | Sequence[int] = 224,
) -> Provenance:
    """The exact set of tokens, at every later point, that a token or a pixel can reach.

    The other direction of `provenance`, with its arguments and errors; not its mirror image,
    because a token may lend a padded copy of itself to a region without hearing from it.
    """
    wiring = _Wiring(model, size, paths)
    start, maps = wiring.start(point, token)
    for edge in wiring.edges:
        maps[edge.target] |= edge.forward(maps[edge.source])
    after = wiring.names[wiring.names.index(start) :]
    return wiring.result("forward", start, token, {name: maps[name] for name in after})


@dataclass(frozen=True)
class _Edge:
    """What a point hears of another, rows and columns apart: (target, source) bool, None for each
    its own. A target hears a source where both say so, so an edge never needs all pairs."""

    source: str
    target: str
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None

    def forward(self, told: np.ndarray) -> np.ndarray:
        for axis, reach in enumerate((self.rows, self.columns)):
            if reach is not None:
                told = spread(told, reach, axis)
        return told

    def back(self, told: np.ndarray) -> np.ndarray:
        for axis, reach in enumerate((self.rows, self.columns)):
            if reach is not None:
                told = spread(told, reach.T, axis)
        return told


class _Wiring:
    """Every point of a network with its grid, and who hears whom directly, in forward order.

    All edges into a point stand before all edges out of it.
    """

    def __init__(self, model: HireMLP, size: int | Sequence[int], paths: str) -> None:
        if not isinstance(model, HireMLP):
            raise TypeError(
                f"Provenance is read off a HireMLP; this is a {type(model).__name__}: give a "
                "network of hirelab.create, or the one that this was made from."
            )
        if not isinstance(paths, str) or paths not in PATHS:
            raise HirelabError(
                unknown("choice of paths", paths, PATHS, f"There are {', '.join(PATHS)}.")
            )
        self.paths, self.open = paths, PATHS[paths]
        self.kinds = {"input": "token grid"} | {n: p.kind for n, p in probes(model).items()}
        if paths in BRANCHES and f"stages.0.blocks.0.hire.{paths}.out" not in self.kinds:
            raise HirelabError(
                f"The network was built without {paths} branches; choose other paths."
            )
        self.shapes = {"input": _image_size(size)}
        self.edges: list[_Edge] = []
        at = self._convolution("input", "stem", model.stem)
        for i, stage in enumerate(model.stages):
            if not isinstance(stage.downsample, nn.Identity):
                at = self._convolution(at, f"stages.{i}.downsample", stage.downsample)
            for j, block in enumerate(stage.blocks):
                at = self._block(at, f"stages.{i}.blocks.{j}", block)
            at = self._link(at, f"stages.{i}.out")
        at = self._link(at, "features")
        at = (
            self._average(at, "pooled")
            if model.pooled.kind == "vector"
            else self._link(at, "pooled")
        )
        self._link(at, "logits")

    @property
    def names(self) -> list[str]:
        """Every point, in an order in which information can flow."""
        return list(self.shapes)

    # -- how it is wired

    def _link(
        self,
        source: str,
        target: str,
        rows: np.ndarray | None = None,
        columns: np.ndarray | None = None,
    ) -> str:
        height, width = self.shapes[source]
        shape = (height if rows is None else len(rows), width if columns is None else len(columns))
        self.shapes.setdefault(target, shape)
        self.edges.append(_Edge(source, target, rows, columns))
        return target

    def _average(self, source: str, target: str) -> str:
        """Over the whole map, to one place."""
        height, width = self.shapes[source]
        return self._link(source, target, np.ones((1, height), bool), np.ones((1, width), bool))

    def _convolution(self, at: str, name: str, module: ConvNormAct) -> str:
        conv = module.conv
        reach = [
            convolution_reach(size, conv.kernel_size[d], conv.stride[d], conv.padding[d])
            for d, size in enumerate(self.shapes[at])
        ]
        return self._link(at, f"{name}.out", *reach)

    def _block(self, at: str, name: str, block: HireBlock) -> str:
        hire = block.hire
        inside = self._link(at, f"{name}.hire.input")
        outs: dict[str, str] = {}
        for axis, branch in (("height", hire.height), ("width", hire.width)):
            if branch is not None:
                outs[axis] = self._branch(inside, f"{name}.hire.{axis}", branch)
        if hire.channel is not None:
            outs["channel"] = self._link(inside, f"{name}.hire.channel.out")

        gate, fused, shape = f"{name}.hire.gate.out", f"{name}.hire.fused", self.shapes[at]
        if hire.gate is not None:
            self.shapes[gate] = (1, 1)
        # the softmax of a single branch is 1 whatever it reads: that gate hears nothing
        if hire.gate is not None and len(outs) > 1:
            for out in outs.values():
                self._average(out, gate)
        self.shapes[fused] = shape
        for branch, out in outs.items():
            if branch in self.open:
                self._link(out, fused)
        if hire.gate is not None and "gate" in self.open:
            self._link(gate, fused, *(np.ones((n, 1), bool) for n in shape))

        out = self._link(fused, f"{name}.hire.out")
        mid = self._link(out, f"{name}.mid")
        self._link(at, mid)
        hidden = self._link(mid, f"{name}.mlp.hidden")
        out = self._link(self._link(hidden, f"{name}.mlp.out"), f"{name}.out")
        return self._link(mid, out)

    def _branch(self, at: str, name: str, branch: AxisBranch) -> str:
        along = 0 if branch.axis == "height" else 1
        r = branch.rearrangement(self.shapes[at][along])
        if self.paths == "shift off":
            r = replace(r, shift=0)

        def link(source: str, leaf: str, reach: np.ndarray | None = None) -> str:
            both = (reach, None) if along == 0 else (None, reach)
            return self._link(source, f"{name}.{leaf}", *both)

        regions, places = np.arange(r.regions), np.arange(r.size)
        # the slots of an unshifted line name positions, which is what `shifted` is cut by
        members = replace(r, shift=0).slots[:, :, None] == places
        at = link(at, "shifted", r.order[:, None] == places)
        at = link(at, "regions", members.any(axis=1))
        at = link(at, "mixed")
        return link(at, "out", r.landing[:, None] // r.region == regions)

    # -- what is asked of it

    def start(self, point: str, token: Sequence[int] | None) -> tuple[str, dict[str, np.ndarray]]:
        """The point's full name, and empty maps of all points but for its token."""
        name = _named(point, self.names, "model.points() lists them all.")
        maps = {n: np.zeros(shape, dtype=bool) for n, shape in self.shapes.items()}
        kind, (rows, columns) = self.kinds[name], self.shapes[name]
        if kind in ("gate", "vector"):
            if token is not None:
                raise HirelabError(
                    f"token is {token!r}; {name} is a {kind} and has no tokens: give token=None."
                )
            maps[name][:] = True
            return name, maps
        pair = _pair(token)
        if pair is None or not (0 <= pair[0] < rows and 0 <= pair[1] < columns):
            what = "regions" if kind == "region grid" else "pixels" if name == "input" else "tokens"
            raise HirelabError(
                f"token is {token!r}; {name} has {rows} x {columns} {what}: give (row, column) "
                f"from (0, 0) to ({rows - 1}, {columns - 1})."
            )
        maps[name][pair] = True
        return name, maps

    def result(
        self,
        direction: str,
        point: str,
        token: Sequence[int] | None,
        maps: dict[str, np.ndarray],
    ) -> Provenance:
        return Provenance(
            point,
            _pair(token),
            self.paths,
            direction,
            list(maps),
            np.array([m.shape for m in maps.values()]),
            np.concatenate([m.ravel() for m in maps.values()]),
        )


def _named(name: str, known: Sequence[str], cure: str) -> str:
    """The full name of a point, which may be given without its ``.out``."""
    for full in (name, f"{name}.out"):
        if full in known:
            return full
    raise UnknownPoint(unknown("point", name, known, cure))


def _pair(value: Any) -> tuple[int, int] | None:
    """Two whole numbers, or None for anything else."""
    try:
        first, second = value
        return check_whole("", first), check_whole("", second)
    except (TypeError, ValueError):
        return None


def _image_size(size: int | Sequence[int]) -> tuple[int, int]:
    pair = _pair(size) or _pair((size, size))
    if pair is None or min(pair) < 3:
        raise HirelabError(
            f"size is {size!r}; give the input's (height, width) in pixels, or one whole number "
            "for a square; the stem needs at least 3 x 3."
        )
    return pair


def convolution_reach(size: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """(outputs, size) bool: which inputs a strided convolution reads along one axis."""
    outputs = (size + 2 * padding - kernel) // stride + 1
    first = np.arange(outputs)[:, None] * stride - padding
    inputs = np.arange(size)
    return (first <= inputs) & (inputs < first + kernel)


# ------------------------------------------------------------------ through blocks in a row


def spread(told: np.ndarray, reach: np.ndarray, axis: int) -> np.ndarray:
    """What has been told, after a step along one axis.

    Args:
        told: bool, any shape; who has been told, ``size`` places along ``axis``.
        reach: (places after, size) bool, ``reach[out, in]``; its transpose goes back.
    """
    moved = np.moveaxis(told, axis, 0)
    # a product of floats is fastest; counts stay far below where they would round
    counts = reach.astype(np.float32) @ moved.reshape(len(moved), -1).astype(np.float32)
    return np.moveaxis((counts > 0).reshape(len(reach), *moved.shape[1:]), 0, axis)


def _pass_on(told: np.ndarray, block: Rearrangement, axes: int, back: bool = False) -> np.ndarray:
    """One block on the first ``axes`` axes: everybody keeps what it has (the residual connection),
    and adds what it meets along every axis for itself; ``back``, what it is met by."""
    if block.size != len(told):
        raise HirelabError(
            f"A block rearranges {block.size} tokens, where the line has {len(told)}; give blocks "
            "of one size."
        )
    new = told.copy()
    for axis in range(axes):
        new |= spread(told, block.reach.T if back else block.reach, axis)
    return new


def heard(blocks: Iterable[Rearrangement], size: int, axes: int = 1) -> Iterator[np.ndarray]:
    """After 0, 1, ... blocks in a row: who has heard of whom, for all tokens at once.

    Args:
        blocks: the index map of every block, of ``size`` tokens, the same along every axis.
        axes: 1 for a line of ``size`` tokens, 2 for a map of ``size`` x ``size``.

    Yields:
        (size,) * axes + (tokens,) bool: the hearing token's place first, then the number of the
        token that is heard.
    """
    told = np.eye(size**axes, dtype=bool).reshape(*(size,) * axes, -1)
    yield told
    for block in blocks:
        told = _pass_on(told, block, axes)
        yield told


def heard_by(token: Sequence[int], blocks: Sequence[Rearrangement], size: int) -> np.ndarray:
    """Which tokens one token has heard of after blocks in a row: its part of `heard`, at once.

    ``token`` is (place,) on a line of ``size`` tokens or (row, column) on a map of ``size`` x
    ``size``; the result is bool and has as many axes, of ``size``.
    """
    told = np.zeros((size,) * len(token), dtype=bool)
    told[tuple(token)] = True
    for block in reversed(blocks):
        told = _pass_on(told, block, len(token), back=True)
    return told


@dataclass(frozen=True, eq=False)
class ReachGrowth(Result):
    """How many tokens a token has heard of after 0, 1, ... blocks.

    Attributes:
        axes: 1 for a line of ``size`` tokens, 2 for a map of ``size`` x ``size``.
        size, region, shift, cycle, padding: the setting; block b shifts by (b mod cycle) * shift.
        manners: the cross-region manners that are compared, a row of ``fewest`` and ``mean`` each.
        fewest, mean: (manners, blocks + 1), over all tokens: the fewest tokens that
            any of them has heard of, and the average; itself counted.
    """

    size: int
    region: int
    shift: int
    cycle: int
    padding: str
    manners: list[str]
    fewest: np.ndarray
    mean: np.ndarray
    axes: int = 1

    @property
    def tokens(self) -> int:
        """Tokens on the line or map."""
        return self.size**self.axes

    def blocks_until_global(self) -> dict[str, int | None]:
        """For each manner, after how many blocks every token has heard of every other; None where
        that does not happen in the blocks that were counted."""
        found: dict[str, int | None] = {}
        for name, row in zip(self.manners, self.fewest, strict=True):
            full = np.flatnonzero(row == self.tokens)
            found[name] = int(full[0]) if len(full) else None
        return found

    def plot(self):
        """The growth as curves, a `hirelab.viz.canvas.Still`."""
        from ..viz import charts

        blocks = self.mean.shape[1] - 1
        until = {
            k: f"not within {blocks}" if v is None else v
            for k, v in self.blocks_until_global().items()
        }
        said = "; ".join(f"{k}: {v}" for k, v in until.items())
        where = (
            f"A line of {self.size}" if self.axes == 1 else f"A map of {self.size} x {self.size}"
        )
        return charts.reach_growth(
            self.manners, self.mean, self.tokens, f"{where} tokens", f"blocks until global: {said}"
        )


def reach_growth(
    size: int,
    region: int,
    shift: int,
    cycle: int,
    blocks: int = 16,
    padding: str = "circular",
    axes: int = 1,
    manners: Sequence[str] = tuple(MANNERS),
) -> ReachGrowth:
    """Count reach on a line of ``size`` tokens (or a ``size`` x ``size`` map, with ``axes=2``).

    Args:
        size, region, shift, padding: as in `Rearrangement`.
        cycle: block b shifts by ``(b mod cycle) * shift``.
        blocks: how many blocks to count through.
        axes: 1 or 2. On a map every block moves along height or along width, not both.
        manners: which cross-region manners, names in `MANNERS`.

    Raises:
        HirelabError: for an impossible setting, naming it.
    """
    # as Python's own numbers, which can be saved
    size, region, shift = (
        check_whole(name, value)
        for name, value in (("size", size), ("region", region), ("shift", shift))
    )
    if cycle < 1 or blocks < 0:
        raise HirelabError(
            f"cycle is {cycle} and blocks {blocks}; a cycle has at least 1 block, and blocks are "
            "counted from 0."
        )
    if axes not in (1, 2):
        raise HirelabError(f"axes is {axes!r}; give 1 for a line or 2 for a map.")
    for name in manners:
        if name not in MANNERS:
            raise HirelabError(unknown("manner", name, MANNERS, f"There are {', '.join(MANNERS)}."))
    cycle, blocks = index(cycle), index(blocks)
    fewest, mean = [], []
    for name in manners:
        base = Rearrangement(size, region, 0, padding, **MANNERS[name])
        steps = (replace(base, shift=(b % cycle) * shift) for b in range(blocks))
        counts = [told.reshape(size**axes, -1).sum(axis=1) for told in heard(steps, size, axes)]
        fewest.append([c.min() for c in counts])
        mean.append([c.mean() for c in counts])
    return ReachGrowth(
        size, region, shift, cycle, padding, list(manners), np.array(fewest), np.array(mean), axes
    )

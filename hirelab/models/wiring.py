"""Who feeds whom in a Hire-MLP: its points as a graph, with what each reads of the others.

`wire` reads it off a built network (its kernels, strides and current rearrangements) and runs
nothing. `propagate` carries yes or no along its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .._shared.checks import check_img_size
from .._shared.errors import HirelabError, unknown
from ..hooks.points import UnknownPoint, probes
from .hire_mlp import AxisBranch, ConvNormAct, HireBlock, HireMLP, blocks_of, stages_of


@dataclass(frozen=True)
class Edge:
    """What a point reads of another, rows and columns apart.

    Attributes:
        source, target: names of points.
        rows, columns: (target, source) bool, None where each reads its own. A place of the target
            reads a place of the source where both say so, so an edge never needs all pairs.
        part: "height", "width", "channel" or "gate" where the edge brings this into a block's
            ``fused``, else None.
    """

    source: str
    target: str
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    part: str | None = None

    def carry(self, mask: np.ndarray, back: bool = False) -> np.ndarray:
        """Which places of the target read any place of the source in ``mask``; ``back``, which
        places of the source any place of the target in ``mask`` reads.

        ``mask`` is bool, (rows, columns, ...); further axes are carried along. Where these are many
        they may be packed, eight to a byte, as `numpy.packbits` does on the last axis.
        """
        for axis, reads in enumerate((self.rows, self.columns)):
            if reads is not None:
                mask = _spread(mask, reads.T if back else reads, axis)
        return mask


@dataclass(frozen=True)
class Wiring:
    """The points of a network for one size of image, and who feeds whom directly.

    Attributes:
        img_size: (height, width) in pixels.
        grids: (rows, columns) of every point and of "input", in an order in which information can
            flow; (1, 1) for gates and vectors.
        kinds: of every point, as in `hirelab.hooks.points`.
        edges: all edges into a point stand before all edges out of it.
    """

    img_size: tuple[int, int]
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Every point, "input" first."""
        return list(self.grids)

    def without(self, parts: Sequence[str]) -> Wiring:
        """The same network with these parts of every block cut off from its ``fused``."""
        return replace(self, edges=[edge for edge in self.edges if edge.part not in parts])

    def add(
        self,
        source: str,
        target: str,
        rows: np.ndarray | None = None,
        columns: np.ndarray | None = None,
        part: str | None = None,
    ) -> str:
        """One more edge, and its target where that is new; returns the target's name."""
        height, width = self.grids[source]
        grid = (height if rows is None else len(rows), width if columns is None else len(columns))
        self.grids.setdefault(target, grid)
        self.edges.append(Edge(source, target, rows, columns, part))
        return target

    def average(self, source: str, target: str) -> str:
        """An edge from the whole map to one place."""
        height, width = self.grids[source]
        return self.add(source, target, np.ones((1, height), bool), np.ones((1, width), bool))


def propagate(edges: Sequence[Edge], maps: dict[str, np.ndarray], back: bool = False) -> None:
    """Carry what is marked in ``maps`` along edges that stand in the order of the network.

    Args:
        maps: bool, one (rows, columns, ...) for each point of the edges; changed in place.
        back: from targets to sources.
    """
    for edge in reversed(edges) if back else edges:
        start, end = (edge.target, edge.source) if back else (edge.source, edge.target)
        maps[end] |= edge.carry(maps[start], back)


def full_name(name: object, known: Sequence[str], cure: str) -> str:
    """The full name of a point, which may be given without its ``.out``.

    Raises:
        UnknownPoint: for a name that is not ``known``, with near ones and the cure.
    """
    for full in (name, f"{name}.out"):
        if full in known:
            return str(full)
    raise UnknownPoint(unknown("point", name, known, cure))


def convolution_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """How often a strided convolution fits on ``size`` places of an axis."""
    return (size + 2 * padding - kernel) // stride + 1


def convolution_reads(size: int, kernel: int, stride: int, padding: int) -> np.ndarray:
    """(outputs, size) bool: which inputs each output of a strided convolution reads, on an axis."""
    outputs = convolution_size(size, kernel, stride, padding)
    first = np.arange(outputs)[:, None] * stride - padding
    inputs = np.arange(size)
    return (first <= inputs) & (inputs < first + kernel)


def strides_of(module: ConvNormAct) -> list[tuple[int, int, int]]:
    """(kernel, stride, padding) of a convolution along height and along width."""
    conv = module.conv
    assert not isinstance(conv.padding, str)
    return list(zip(conv.kernel_size, conv.stride, conv.padding, strict=True))


# ------------------------------------------------------------------ read off a network


def wire(model: HireMLP, img_size: int | Sequence[int] = 224, shifts: bool = True) -> Wiring:
    """The wiring of a built network, in evaluation mode; nothing is run.

    Args:
        img_size: of the input in pixels, (height, width), or one number for a square.
        shifts: False takes every shift as 0.

    Raises:
        HirelabError: for something else than a Hire-MLP of this library, or an impossible size.
    """
    if not isinstance(model, HireMLP):
        raise HirelabError(
            f"The wiring is read off a HireMLP; this is a {type(model).__name__}: give a network "
            "of hirelab.create, or the one that this was made from."
        )
    height, width = check_img_size(img_size)
    wiring = Wiring((height, width))
    wiring.grids["input"] = height, width
    wiring.kinds["input"] = "token grid"
    wiring.kinds.update({name: probe.kind for name, probe in probes(model).items()})
    at = _convolution(wiring, "input", "stem", model.stem)
    for i, stage in enumerate(stages_of(model)):
        if isinstance(stage.downsample, ConvNormAct):
            at = _convolution(wiring, at, f"stages.{i}.downsample", stage.downsample)
        for j, block in enumerate(blocks_of(stage)):
            at = _block(wiring, at, f"stages.{i}.blocks.{j}", block, shifts)
        at = wiring.add(at, f"stages.{i}.out")
    at = wiring.add(at, "features")
    pool = wiring.average if model.pooled.kind == "vector" else wiring.add
    wiring.add(pool(at, "pooled"), "logits")
    return wiring


def _convolution(wiring: Wiring, at: str, name: str, module: ConvNormAct) -> str:
    reads = [
        convolution_reads(size, *settings)
        for size, settings in zip(wiring.grids[at], strides_of(module), strict=True)
    ]
    return wiring.add(at, f"{name}.out", reads[0], reads[1])


def _block(wiring: Wiring, at: str, name: str, block: HireBlock, shifts: bool) -> str:
    hire = block.hire
    inside = wiring.add(at, f"{name}.hire.input")
    outs = {
        axis: _branch(wiring, inside, f"{name}.hire.{axis}", branch, shifts)
        for axis, branch in (("height", hire.height), ("width", hire.width))
        if branch is not None
    }
    if hire.channel is not None:
        outs["channel"] = wiring.add(inside, f"{name}.hire.channel.out")

    gate, fused, grid = f"{name}.hire.gate.out", f"{name}.hire.fused", wiring.grids[at]
    if hire.gate is not None:
        wiring.grids[gate] = (1, 1)
    # the softmax of a single branch is 1 whatever it reads: that gate depends on nothing
    if hire.gate is not None and len(outs) > 1:
        for out in outs.values():
            wiring.average(out, gate)
    for part, out in outs.items():
        wiring.add(out, fused, part=part)
    if hire.gate is not None:
        rows, columns = (np.ones((places, 1), bool) for places in grid)
        wiring.add(gate, fused, rows, columns, "gate")

    out = wiring.add(fused, f"{name}.hire.out")
    mid = wiring.add(out, f"{name}.mid")
    wiring.add(at, mid)
    hidden = wiring.add(mid, f"{name}.mlp.hidden")
    out = wiring.add(wiring.add(hidden, f"{name}.mlp.out"), f"{name}.out")
    return wiring.add(mid, out)


def _branch(wiring: Wiring, at: str, name: str, branch: AxisBranch, shifts: bool) -> str:
    along = 0 if branch.axis == "height" else 1
    r = branch.rearrangement(wiring.grids[at][along])
    if not shifts:
        r = replace(r, shift=0)

    def add(source: str, leaf: str, reads: np.ndarray | None = None) -> str:
        both = (reads, None) if along == 0 else (None, reads)
        return wiring.add(source, f"{name}.{leaf}", *both)

    regions, places = np.arange(r.regions), np.arange(r.size)
    # the slots of an unshifted line name positions, which is what `shifted` is cut by
    members = replace(r, shift=0).slots[:, :, None] == places
    at = add(at, "shifted", r.order[:, None] == places)
    at = add(at, "regions", members.any(axis=1))
    at = add(at, "mixed")
    return add(at, "out", r.landing[:, None] // r.region == regions)


def _spread(mask: np.ndarray, reads: np.ndarray, axis: int) -> np.ndarray:
    """(..., places, ...) bool to (..., outputs, ...) by a (outputs, places) bool on one axis."""
    moved = np.moveaxis(mask, axis, 0)
    if mask.dtype == np.uint8:  # packed
        spread = [np.bitwise_or.reduce(moved[row], axis=0) for row in reads]
        return np.moveaxis(np.stack(spread), 0, axis)
    # a product of floats is fastest; counts stay far below where they would round
    counts = reads.astype(np.float32) @ moved.reshape(len(moved), -1).astype(np.float32)
    return np.moveaxis((counts > 0).reshape(len(reads), *moved.shape[1:]), 0, axis)

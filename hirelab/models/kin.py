"""The networks that Hire-MLP is compared with, as index maps: who reads whom, without weights.

What a block mixes in space is said by one index map for an axis, as `hirelab.rearrange` says it for
Hire-MLP: ``line(size, stage, block)``, (size, size) bool, ``[out, in]`` True where a token of the
result reads a token. A block reads either along rows and along columns apart (a cross), or along
both at once (a rectangle), and always the token itself, by its residual connection. From that
`wire_kin` makes a `Wiring`, the graph that Hire-MLP's own provenance runs on.

Left out is what averages over the whole map, since through it every token reaches every other at
once: the gates of Hire-MLP, CycleMLP and Wave-MLP, and GroupNorm's mean and variance in AS-MLP,
Wave-MLP and PoolFormer.

Layouts and index maps follow the authors' code. Of each family the network is taken whose
multiply-adds are near to Hire-MLP-Small's; S2-MLP has none below 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._shared.checks import check_choice, check_img_size
from .._shared.errors import HirelabError
from ..rearrange import Rearrangement
from .wiring import Edge, Wiring, convolution_reads, convolution_size

Line = Callable[[int, int, int], np.ndarray]
Strided = tuple[int, int, int]  # kernel, stride, padding of a convolution

_OVERLAPPING: tuple[Strided, Strided] = ((7, 4, 2), (3, 2, 1))  # stem, downsampling
_PATCHES: tuple[Strided, Strided] = ((4, 4, 0), (2, 2, 0))


# ------------------------------------------------------------------ index maps of an axis


def _kept(line: Line) -> Line:
    """The same line, whose maps are made once each and cannot be written to."""

    @lru_cache(maxsize=512)
    def kept(size: int, stage: int, block: int) -> np.ndarray:
        made = line(size, stage, block)
        made.setflags(write=False)
        return made

    return kept


def neighbours(reach: int) -> Line:
    """Every token reads those up to ``reach`` places away; beyond the border there is nothing."""

    def line(size: int, stage: int, block: int) -> np.ndarray:
        return convolution_reads(size, 2 * reach + 1, 1, reach)

    return _kept(line)


def windows(window: int) -> Line:
    """Swin's: windows that do not overlap, in every second block shifted by half a window.

    The line is rolled, but a mask keeps what was wrapped round apart. A map that is no larger than
    a window is one window, and is not shifted.
    """

    def line(size: int, stage: int, block: int) -> np.ndarray:
        if size > window and size % window:
            raise HirelabError(
                f"A map of {size} tokens cannot be cut into windows of {window}; give images of a "
                "multiple of 224 pixels a side."
            )
        shift = window // 2 if block % 2 and size > window else 0
        tokens = np.arange(size)
        of = (tokens - shift) % size // window
        wrapped = tokens < shift
        return (of[:, None] == of) & (wrapped[:, None] == wrapped)

    return _kept(line)


def hire_regions(region: Sequence[int], shift: Sequence[int], cycle: Sequence[int]) -> Line:
    """Hire-MLP's regions, shifted and restored, with circular padding."""

    def line(size: int, stage: int, block: int) -> np.ndarray:
        return Rearrangement(size, region[stage], block % cycle[stage] * shift[stage]).reach

    return _kept(line)


# ------------------------------------------------------------------ members


@dataclass(frozen=True)
class Member:
    """A network of the family: where its blocks stand, and what one of them reads.

    Attributes:
        name: family and variant.
        paper: where it is described.
        code: the file that layout and index map follow.
        macs: published multiply-adds of the network at 224 x 224 pixels, in billions, and the
            table that says so.
        dims, depths: channels and blocks of each stage. Stages are those of a pyramid, of 4, 8, 16
            and 32 pixels a token; a network of one map has no blocks in the others.
        stem, downsample: (kernel, stride, padding).
        line: the index map of an axis: (size, stage, block) to (size, size) bool.
        joint: whether rows and columns are read together, as by a square kernel, or apart.
        mixing: multiply-adds of the module that mixes tokens, for a token of C channels:
            ``mixing[0] * C * C + mixing[1] * C``. Gates, which run once a map, are not in it.
        whole_map: what else sees the whole map at once, and is left out here; "" for nothing.
    """

    name: str
    paper: str
    code: str
    macs: tuple[float, str]
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    stem: Strided
    downsample: Strided
    line: Line
    joint: bool
    mixing: tuple[int, int]
    whole_map: str = ""

    @property
    def stages(self) -> list[int]:
        """The stages that have blocks."""
        return [i for i, depth in enumerate(self.depths) if depth]

    def mixing_macs(self, stage: int) -> int:
        """Multiply-adds of the module that mixes tokens, for one token, in one block."""
        dim = self.dims[stage]
        return self.mixing[0] * dim * dim + self.mixing[1] * dim

    def edges(
        self, grid: Sequence[int], stage: int, block: int, source: str = "in", target: str = "out"
    ) -> list[Edge]:
        """What a block's result reads of its input, on a map of (rows, columns) tokens.

        ``block`` may lie beyond the published depth: the rule that shifts from block to block goes
        on.
        """
        rows, columns = (self.line(size, stage, block) for size in grid)
        along = [Edge(source, target, rows), Edge(source, target, columns=columns)]
        if self.joint:
            along = [Edge(source, target, rows, columns)]
        return [*along, Edge(source, target)]


_TINY_DIMS, _WIDE_DIMS = (64, 128, 320, 512), (96, 192, 384, 768)
_V1 = "Hire-MLP v1, table 2"

_MEMBERS = (
    Member(
        "Hire-MLP-S",
        "Guo et al., CVPR 2022, arXiv 2108.13341, section 3 and v1 table 1",
        "ggjy/Hire-Wave-MLP.pytorch, mlp_based/hire_mlp.py (the shift's cycle is the code's)",
        (4.2, _V1),
        _TINY_DIMS,
        (3, 4, 10, 3),
        *_OVERLAPPING,
        hire_regions((4, 3, 3, 2), (2, 2, 1, 1), (2, 2, 3, 2)),
        False,
        (4, 0),  # two branches, the channel branch, the projection
        "gate",
    ),
    Member(
        "AS-MLP-T",
        "Lian et al., ICLR 2022, arXiv 2107.08391",
        "svip-lab/AS-MLP, models/as_mlp.py: five channel groups, shifted by -2 to 2, zeros behind",
        (4.4, _V1),
        _WIDE_DIMS,
        (2, 2, 6, 2),
        *_PATCHES,
        neighbours(2),
        False,
        (4, 0),  # before the shift, one along each axis, and after
        "GroupNorm",
    ),
    Member(
        "S2-MLP-deep",
        "Yu et al., WACV 2022, arXiv 2106.07477",
        "liuruiyang98/Jittor-MLP, models_pytorch/s2_mlp_v1.py (a port; the authors' was not found)",
        (10.5, _V1),
        (0, 0, 384, 0),
        (0, 0, 36, 0),
        (16, 16, 0),
        (1, 1, 0),
        neighbours(1),
        False,
        (2, 0),  # before the shift and after
    ),
    Member(
        "CycleMLP-B2",
        "Chen et al., ICLR 2022, arXiv 2107.10224",
        "ShoufaChen/CycleMLP, cycle_mlp.py: offsets -1, 0, 1, by the channel",
        (3.9, _V1),
        _TINY_DIMS,
        (2, 3, 10, 3),
        *_OVERLAPPING,
        neighbours(1),
        False,
        (4, 0),  # two branches, the channel branch, the projection
        "gate",
    ),
    Member(
        "Wave-MLP-S",
        "Tang et al., CVPR 2022, arXiv 2111.12294",
        "huawei-noah/Efficient-AI-Backbones, wavemlp_pytorch/models/wavemlp.py: windows of 7",
        (4.5, "MS-MLP, arXiv 2202.06510, table 3"),
        _TINY_DIMS,
        (2, 3, 10, 3),
        *_OVERLAPPING,
        neighbours(3),
        False,
        (6, 28),  # three amplitudes, two phases, the projection; two windows on both parts
        "gate and GroupNorm",
    ),
    Member(
        "PoolFormer-S24",
        "Yu et al., CVPR 2022, arXiv 2111.11418",
        "sail-sg/poolformer, as in timm's metaformer.py: means over 3 x 3",
        (3.4, "counted on timm's poolformer_s24"),
        _TINY_DIMS,
        (4, 4, 12, 4),
        *_OVERLAPPING,
        neighbours(1),
        True,
        (0, 0),  # a mean has no weights
        "GroupNorm",
    ),
    Member(
        "Swin-T",
        "Liu et al., ICCV 2021, arXiv 2103.14030",
        "microsoft/Swin-Transformer, as in timm's swin_transformer.py: windows of 7, shifted by 3",
        (4.5, _V1),
        _WIDE_DIMS,
        (2, 2, 6, 2),
        *_PATCHES,
        windows(7),
        True,
        (4, 98),  # queries, keys, values, projection; two products with the 49 of a window
    ),
    Member(
        "ConvNeXt-T",
        "Liu et al., CVPR 2022, arXiv 2201.03545",
        "facebookresearch/ConvNeXt, as in timm's convnext.py: depthwise 7 x 7",
        (4.5, "counted on timm's convnext_tiny"),
        _WIDE_DIMS,
        (3, 3, 9, 3),
        *_PATCHES,
        neighbours(3),
        True,
        (0, 49),
    ),
)
KIN: dict[str, Member] = {member.name: member for member in _MEMBERS}
"""Hire-MLP-Small and its relatives, by name."""


def member_of(name: str) -> Member:
    """A member of `KIN` by its name.

    Raises:
        HirelabError: for another name, with near ones.
    """
    check_choice("member", name, KIN)
    return KIN[name]


def stage_maps(member: Member, img_size: int | Sequence[int] = 224) -> dict[int, tuple[int, int]]:
    """(rows, columns) of tokens in each stage that has blocks."""
    wiring = wire_kin(member, img_size)
    return {i: wiring.grids[f"stages.{i}.out"] for i in member.stages}


def wire_kin(member: Member, img_size: int | Sequence[int] = 224) -> Wiring:
    """A whole network as a graph of who reads whom, from "input" to "stages.3.out".

    Args:
        img_size: (height, width) in pixels, or one number for a square.

    Raises:
        HirelabError: for an image on which a map cannot be cut as the network cuts it.
    """
    wiring = Wiring(check_img_size(img_size, low=32))
    wiring.grids["input"] = wiring.img_size
    at = _convolve(wiring, "input", "stem.out", member.stem)
    for i in member.stages:
        if i != member.stages[0]:
            at = _convolve(wiring, at, f"stages.{i}.downsample.out", member.downsample)
        for j in range(member.depths[i]):
            target, grid = f"stages.{i}.blocks.{j}.out", wiring.grids[at]
            wiring.grids[target] = grid
            wiring.edges.extend(member.edges(grid, i, j, at, target))
            at = target
        at = wiring.add(at, f"stages.{i}.out")
    return wiring


def _convolve(wiring: Wiring, at: str, target: str, settings: Strided) -> str:
    rows, columns = wiring.grids[at]
    if min(convolution_size(size, *settings) for size in (rows, columns)) < 1:
        raise HirelabError(f"A map of {rows} x {columns} is too small for {target}.")
    return wiring.add(
        at, target, convolution_reads(rows, *settings), convolution_reads(columns, *settings)
    )

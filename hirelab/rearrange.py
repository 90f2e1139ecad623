"""The rearrangement of Hire-MLP, defined once: shift, region partition, restore.

Along one axis of a token grid the block does three things (paper section 3.2, 3.3; order and
direction as in the authors' code):

1. *cross-region*: reorder the tokens, so that tokens of different regions become neighbours:
   ``shift`` rolls them by ``+shift`` towards higher index;
2. *pad* at the end, to a multiple of ``region``;
3. *inner-region*: cut into regions of ``region`` neighbours and concatenate the tokens of a
   region along channels, channel-major: new channel = ``c * region + token``.

After the mixing *restore* undoes it exactly: ungroup, crop the padding, roll by ``-shift``.

The same idea is written twice, on purpose, and a test holds the two together for every setting:

* functions on NCHW tensors (`shift`, `partition`, `unpartition`, `unshift`), which the model runs;
* `Rearrangement`, the index map of one axis, which says *which token sits where*. Pictures,
  animations and reachability read it; nothing else in the project computes an index.

The functions take plain numbers and strings, so that they can be scripted, traced and compiled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import index

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PADDINGS = ("circular", "zero", "reflect", "replicate")
CROSS_REGIONS = ("shift", "shuffle", "none")
AXES = {"height": 2, "width": 3}  # name of an axis -> its dimension in an NCHW tensor
EMPTY = -1  # in an index map: a slot that holds zero padding and no token


# ------------------------------------------------------------------ index maps


def padding_source(position: int, size: int, padding: str) -> int:
    """The position in ``0..size-1`` that a padded line of ``size`` tokens repeats at ``position``.

    For ``position < size`` it is the position itself. Beyond, the line goes on for ever:
    circular wraps, replicate repeats the last token, reflect mirrors without repeating the edge
    (a line of one token has nothing to mirror and repeats it, as NumPy does), zero gives `EMPTY`.
    """
    if position < size:
        return position
    if padding == "circular":
        return position % size
    if padding == "replicate":
        return size - 1
    if padding == "reflect":
        period = max(2 * (size - 1), 1)
        folded = position % period
        return min(folded, period - folded) if size > 1 else 0
    if padding != "zero":
        raise ValueError(f"padding is '{padding}'; choose circular, zero, reflect or replicate.")
    return -1  # EMPTY, by its number: TorchScript knows no constants of a module


@dataclass(frozen=True)
class Rearrangement:
    """The index map of one axis: for every slot of every region, the token that sits there.

    Args:
        size: tokens along the axis, at least 1.
        region: tokens in a region (the paper's h or w), at least 1; may exceed ``size``, then
            one region holds the whole line and its padding.
        shift: the paper's s, in tokens, towards higher index; negative, zero and larger than
            ``size`` all work, because a roll is circular.
        padding: how the line is filled up to whole regions: one of `PADDINGS`.
        cross_region: "shift"; "shuffle" (ShuffleNet manner: tokens are dealt out to the regions
            in turn, whenever ``shift`` is not 0); "none".
        restore: whether the tokens return to their places after the mixing.

    Raises:
        ValueError: naming the setting, what it may be, and the cure.
    """

    size: int
    region: int
    shift: int = 0
    padding: str = "circular"
    cross_region: str = "shift"
    restore: bool = True

    def __post_init__(self) -> None:
        check_settings(self.region, self.shift, self.padding, self.cross_region)
        check_whole("size", self.size)
        if self.size < 1:
            raise ValueError(f"size is {self.size}; a line of tokens needs at least 1.")

    @property
    def regions(self) -> int:
        """How many regions the padded line holds."""
        return -(-self.size // self.region)

    @property
    def pad(self) -> int:
        """How many padded slots stand at the end of the line."""
        return self.regions * self.region - self.size

    @cached_property
    def order(self) -> np.ndarray:
        """(size,) the token that stands at each position after the cross-region step."""
        positions = np.arange(self.size)
        if self.shift == 0 or self.cross_region == "none":
            order = positions
        elif self.cross_region == "shift":
            order = (positions - self.shift) % self.size
        else:
            # Reading a (regions, region) table by columns is ShuffleNet's channel shuffle. The sort
            # says the same for a line that does not fill the table, and keeps it a permutation.
            order = np.lexsort((positions // self.region, positions % self.region))
        return _frozen(order)

    @cached_property
    def slots(self) -> np.ndarray:
        """(regions, region) the token in each slot of each region, `EMPTY` for zero padding."""
        sources = [
            padding_source(position, self.size, self.padding)
            for position in range(self.regions * self.region)
        ]
        tokens = np.append(self.order, EMPTY)  # EMPTY is -1: it picks the appended entry
        return _frozen(tokens[np.array(sources)].reshape(self.regions, self.region))

    @cached_property
    def padded(self) -> np.ndarray:
        """(regions, region) True where a slot is padding, whatever fills it."""
        return _frozen(np.arange(self.regions * self.region).reshape(self.slots.shape) >= self.size)

    @cached_property
    def landing(self) -> np.ndarray:
        """(size,) for every token of the result, the flat slot that it is read from.

        With restore that is the slot where the token of the same place went in. Padded slots
        never appear: what the mixing writes there is cropped away.
        """
        return _frozen(np.argsort(self.order) if self.restore else np.arange(self.size))

    def region_of(self, token: int) -> int:
        """The region whose mixing writes the result's ``token``."""
        return int(self.landing[token] // self.region)

    def meets(self, token: int) -> tuple[int, ...]:
        """The input tokens that the result's ``token`` is computed from, sorted."""
        members = self.slots[self.region_of(token)]
        return tuple(int(t) for t in np.unique(members[members != EMPTY]))

    @cached_property
    def reach(self) -> np.ndarray:
        """(size, size) bool: ``reach[out, in]`` is True where input ``in`` can change ``out``.

        Not symmetric: with circular padding a token may lend a copy of itself to another region
        without hearing from it, because the copy's output is cropped.
        """
        reach = np.zeros((self.size, self.size), dtype=bool)
        for token in range(self.size):
            reach[token, list(self.meets(token))] = True
        return _frozen(reach)


def check_settings(region: int, shift: int, padding: str, cross_region: str) -> None:
    """Raise a ValueError that names the first impossible setting and the cure."""
    check_whole("region", region)
    check_whole("shift", shift)
    if region < 1:
        raise ValueError(f"region is {region}; a region holds at least 1 token (1: no mixing).")
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; choose one of {', '.join(PADDINGS)}.")
    if cross_region not in CROSS_REGIONS:
        raise ValueError(
            f"cross_region is {cross_region!r}; choose one of {', '.join(CROSS_REGIONS)}."
        )


def check_whole(name: str, value: object) -> int:
    """The value as an int, or a ValueError that names it."""
    try:
        # bool is an int to Python, and np.int64 is not: ask what indexing asks. The attribute alone
        # says little, since every array and tensor has it.
        if not isinstance(value, bool):
            return index(value)
    except TypeError:
        pass
    raise ValueError(f"{name} is {value!r}; it counts tokens: give a whole number.")


def compose_reach(blocks: Iterable[Rearrangement]) -> np.ndarray:
    """(size, size) bool: what reaches what along one axis through several blocks in a row.

    Every block keeps its tokens beside the rearranged branch (the residual connection), so the
    diagonal is always True, also without restore.
    """
    total: np.ndarray | None = None
    for block in blocks:
        step = block.reach | np.eye(block.size, dtype=bool)
        total = step if total is None else step @ total
    if total is None:
        raise ValueError("compose_reach got no block; give at least one Rearrangement.")
    return total


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


# ------------------------------------------------------------------ tensor functions


def shift(x: Tensor, dim: int, region: int, shift: int, cross_region: str = "shift") -> Tensor:
    """The cross-region step on an NCHW tensor along ``dim`` (2 height, 3 width); same shape."""
    if shift == 0 or cross_region == "none":
        return x
    if cross_region == "shift":
        return torch.roll(x, shift, dim)
    if cross_region != "shuffle":
        raise ValueError(f"cross_region is '{cross_region}'; choose shift, shuffle or none.")
    line = x.movedim(dim, -1)
    return torch.cat([line[..., r::region] for r in range(region)], dim=-1).movedim(-1, dim)


def unshift(x: Tensor, dim: int, region: int, shift: int, cross_region: str = "shift") -> Tensor:
    """The inverse of `shift`: every token back to its place."""
    if shift == 0 or cross_region == "none":
        return x
    if cross_region == "shift":
        return torch.roll(x, -shift, dim)
    if cross_region != "shuffle":
        raise ValueError(f"cross_region is '{cross_region}'; choose shift, shuffle or none.")
    y = torch.empty_like(x)
    line, start = x.movedim(dim, -1), 0
    for r in range(min(region, x.shape[dim])):
        dealt = y.movedim(dim, -1)[..., r::region]
        dealt.copy_(line.narrow(-1, start, dealt.shape[-1]))
        start += dealt.shape[-1]
    return y


def pad_to_regions(x: Tensor, dim: int, region: int, padding: str) -> Tensor:
    """Fill ``dim`` at its end up to a multiple of ``region``; any size from 1 up works."""
    size = x.shape[dim]
    missing = -size % region
    if missing == 0:
        return x
    if padding == "zero":
        return F.pad(x, [0, missing] if dim == 3 else [0, 0, 0, missing])
    # Fewer than `region` slices of one token: cheap, and free of the size limits of F.pad, whose
    # circular and reflect modes refuse to fill in more than the line is long.
    parts = [x]
    for position in range(size, size + missing):
        parts.append(x.narrow(dim, padding_source(position, size, padding), 1))
    return torch.cat(parts, dim=dim)


def partition(x: Tensor, dim: int, region: int, padding: str = "circular") -> Tensor:
    """The inner-region step: (B, C, H, W) to (B, C*region, H/region, W), or W/region for dim 3.

    The axis is padded to whole regions first. Channel order: ``c * region + token``.
    """
    x = pad_to_regions(x, dim, region, padding)
    b, c, h, w = x.shape
    if dim == 2:
        x = x.reshape(b, c, h // region, region, w).transpose(2, 3)
        return x.reshape(b, c * region, h // region, w)
    x = x.reshape(b, c, h, w // region, region).permute(0, 1, 4, 2, 3)
    return x.reshape(b, c * region, h, w // region)


def unpartition(x: Tensor, dim: int, region: int, size: int) -> Tensor:
    """The inverse of `partition`: regions back to a line of tokens, cropped to ``size``."""
    b, c, h, w = x.shape
    if dim == 2:
        x = x.reshape(b, c // region, region, h, w).transpose(2, 3)
        return x.reshape(b, c // region, h * region, w).narrow(2, 0, size)
    x = x.reshape(b, c // region, region, h, w).permute(0, 1, 3, 4, 2)
    return x.reshape(b, c // region, h, w * region).narrow(3, 0, size)

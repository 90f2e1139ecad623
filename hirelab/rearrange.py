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
* index maps, which say *which token sits where*: `slot_tokens` and `landing_slots` as arithmetic on
  tensors, which the deployed network gathers by, and `Rearrangement`, the same for one axis of a
  known size, which images, animations and reachability read.

The functions take plain numbers and strings, so that they can be scripted, traced and compiled.
Their errors are plain ValueErrors, which TorchScript can raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ._shared.checks import check_whole
from ._shared.errors import HirelabError

PADDINGS = ("circular", "zero", "reflect", "replicate")
CROSS_REGIONS = ("shift", "shuffle", "none")
AXES = {"height": 2, "width": 3}  # name of an axis -> its dimension in an NCHW tensor
EMPTY = -1  # in an index map: a slot that holds zero padding and no token


# ------------------------------------------------------------------ index maps


def _modulo(positions: Tensor, size: int) -> Tensor:
    """positions % size. As a tensor, because the ONNX exporter knows no remainder by a symbol."""
    return positions % positions.new_full((1,), size)


def token_order(
    size: int, region: int, shift: int, cross_region: str, device: torch.device | None = None
) -> Tensor:
    """(size,) the token that stands at each position after the cross-region step."""
    positions = torch.arange(size, device=device)
    if shift == 0 or cross_region == "none":
        return positions
    if cross_region == "shift":
        return _modulo(positions - shift, size)
    # Reading a (regions, region) table by columns is ShuffleNet's channel shuffle. The sort says
    # the same for a line that does not fill the table, and keeps it a permutation.
    return torch.argsort(positions % region * size + positions // region)


def padding_source(positions: Tensor, size: int, padding: str) -> Tensor:
    """The positions in ``0..size-1`` that a padded line of ``size`` tokens has at ``positions``.

    Inside the line they are the positions themselves. Beyond, the line goes on for ever: circular
    wraps, replicate repeats the last token, reflect mirrors without repeating the edge (a line of
    one token has nothing to mirror and repeats it, as NumPy does), zero gives `EMPTY`.
    """
    if padding == "circular":
        return _modulo(positions, size)
    if padding == "replicate":
        return positions.clamp(max=size - 1)
    if padding == "reflect":
        return size - 1 - (_modulo(positions, max(2 * (size - 1), 1)) - (size - 1)).abs()
    if padding != "zero":
        raise ValueError(f"padding is '{padding}'; choose circular, zero, reflect or replicate.")
    return positions.masked_fill(positions >= size, -1)  # EMPTY; TorchScript reads no globals


def slot_tokens(
    size: int,
    region: int,
    shift: int,
    padding: str,
    cross_region: str,
    device: torch.device | None = None,
) -> Tensor:
    """(regions * region,) the token in each slot, region after region, `EMPTY` for zero padding."""
    # not -(-size // region): ONNX divides towards zero
    slots = (size + region - 1) // region * region
    sources = padding_source(torch.arange(slots, device=device), size, padding)
    order = token_order(size, region, shift, cross_region, device)
    return torch.where(sources < 0, sources, order[sources.clamp(min=0)])


def landing_slots(
    size: int,
    region: int,
    shift: int,
    cross_region: str,
    restore: bool,
    device: torch.device | None = None,
) -> Tensor:
    """(size,) for every token of the result, the slot that it is read from."""
    positions = torch.arange(size, device=device)
    if not restore or shift == 0 or cross_region == "none":
        return positions
    if cross_region == "shift":
        return _modulo(positions + shift, size)
    return torch.argsort(token_order(size, region, shift, cross_region, device))


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
        cross_region: "shift"; "shuffle" (as ShuffleNet's: tokens are dealt out to the regions in
            turn, whenever ``shift`` is not 0); "none".
        restore: whether the tokens return to their places after the mixing.

    Raises:
        HirelabError: naming the setting, what it may be, and the cure.
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
            raise HirelabError(f"size is {self.size}; a line of tokens needs at least 1.")

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
        order = token_order(self.size, self.region, self.shift, self.cross_region)
        return _frozen(order.numpy())

    @cached_property
    def slots(self) -> np.ndarray:
        """(regions, region) the token in each slot of each region, `EMPTY` for zero padding."""
        slots = slot_tokens(self.size, self.region, self.shift, self.padding, self.cross_region)
        return _frozen(slots.numpy().reshape(self.regions, self.region))

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
        slots = landing_slots(self.size, self.region, self.shift, self.cross_region, self.restore)
        return _frozen(slots.numpy())

    def region_of(self, token: int) -> int:
        """The region whose mixing writes the result's ``token``."""
        return int(self.landing[token] // self.region)

    def sources(self, token: int) -> tuple[int, ...]:
        """The input tokens that the result's ``token`` is computed from, sorted."""
        members = self.slots[self.region_of(token)]
        return tuple(int(t) for t in np.unique(members[members != EMPTY]))

    @cached_property
    def reach(self) -> np.ndarray:
        """(size, size) bool: ``reach[out, in]`` is True where input ``in`` can change ``out``.

        Not symmetric: with circular padding a copy of a token may stand in another region, which
        reads it but sends nothing back, because the copy's output is cropped.
        """
        reach = np.zeros((self.size, self.size), dtype=bool)
        for token in range(self.size):
            reach[token, list(self.sources(token))] = True
        return _frozen(reach)


def check_settings(region: int, shift: int, padding: str, cross_region: str) -> None:
    """Make sure that the settings of a rearrangement are possible.

    Raises:
        HirelabError: for the first one that is not, naming it, what it may be and the cure.
    """
    check_whole("region", region)
    check_whole("shift", shift)
    if region < 1:
        raise HirelabError(f"region is {region}; a region holds at least 1 token (1: no mixing).")
    if padding not in PADDINGS:
        raise HirelabError(f"padding is {padding!r}; choose one of {', '.join(PADDINGS)}.")
    if cross_region not in CROSS_REGIONS:
        raise HirelabError(
            f"cross_region is {cross_region!r}; choose one of {', '.join(CROSS_REGIONS)}."
        )


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
    # Not F.pad: its circular and reflect modes refuse to fill in more than the line is long.
    beyond = torch.arange(size, size + missing, device=x.device)
    return torch.cat([x, x.index_select(dim, padding_source(beyond, size, padding))], dim=dim)


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

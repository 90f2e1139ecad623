"""A Hire branch, written as what it also is: strided convolutions on a line that closes to a ring.

`AxisBranch` cuts tokens into regions and mixes each region's concatenated channels by linear layers
(paper section 3.2). A region's channels stand as ``c * region + token``, which is how a convolution
with a kernel of ``region`` tokens keeps its weights: (out, c, token). So cutting and the first
layer are one convolution whose stride is its kernel, and the last layer and putting back are one
transposed convolution, with the very same numbers. The shift turns the line first and back after;
circular padding closes it where regions do not fit.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..rearrange import pad_to_regions, shift, unpartition, unshift
from .hire_mlp import AxisBranch


class StridedBranch(nn.Module):
    """The function of an `AxisBranch`, computed by convolutions; see `strided_branch`.

    Attributes:
        branch: the branch, whose weights these are; what is set on it holds here too.
    """

    def __init__(self, branch: AxisBranch):
        super().__init__()
        self.branch = branch

    @property
    def reading(self) -> Tensor:
        """The weight of the convolution that reads a region, (out, C, region, 1), or (out, C, 1,
        region) along the width: a view of the first linear layer's."""
        weight = self._layers[0].weight  # (out, C * region, 1, 1)
        return self._along(weight.view(weight.shape[0], -1, self.branch.region))

    @property
    def writing(self) -> Tensor | None:
        """The weight of the transposed convolution that writes a region, (in, C, region, 1) or
        (in, C, 1, region): a view of the last linear layer's. None where one layer does it all."""
        weight = self._layers[-1].weight  # (C * region, in, 1, 1)
        if len(self._layers) == 1:
            return None
        view = weight.view(-1, self.branch.region, weight.shape[1])
        return self._along(view.permute(2, 0, 1))

    @property
    def _layers(self) -> list[nn.Conv2d]:
        return [layer for layer in self.branch.mix if isinstance(layer, nn.Conv2d)]

    @property
    def _stride(self) -> tuple[int, int]:
        region = self.branch.region
        return (region, 1) if self.branch.axis == "height" else (1, region)

    def _along(self, weight: Tensor) -> Tensor:
        """(out, in, region) with the axis of length one that a convolution on a map has."""
        return weight.unsqueeze(3 if self.branch.axis == "height" else 2)

    def forward(self, x: Tensor) -> Tensor:
        b, size = self.branch, x.shape[self.branch.dim]
        x = shift(x, b.dim, b.region, b.shift, b.cross_region)
        x = pad_to_regions(x, b.dim, b.region, b.padding)
        x = F.conv2d(x, self.reading, self._layers[0].bias, self._stride)
        inner = list(b.mix)[1:]
        if self.writing is None:  # one layer: its outputs are the region's tokens, side by side
            x = unpartition(x, b.dim, b.region, size)
        else:
            for layer in inner[:-1]:
                x = layer(x)
            # a transposed convolution has one bias for a channel, a branch one for each slot
            x = F.conv_transpose2d(x, self.writing, None, self._stride)
            x = (x + self._bias(x.shape[b.dim] // b.region)).narrow(b.dim, 0, size)
        if b.restore:
            x = unshift(x, b.dim, b.region, b.shift, b.cross_region)
        return x

    def _bias(self, regions: int) -> Tensor:
        """(C, slots, 1) or (C, 1, slots): the last layer's bias, over and over again."""
        bias = self._layers[-1].bias
        assert bias is not None
        line = bias.view(-1, self.branch.region).repeat(1, regions)
        return line.unsqueeze(2 if self.branch.axis == "height" else 1)

    def extra_repr(self) -> str:
        """The steps, one a line."""
        b, kernel = self.branch, self._stride
        out, channels = self.reading.shape[:2]
        turn = f"{b.cross_region} by {b.shift} along the {b.axis}, {b.padding} padding"
        first = f"Conv2d({channels}, {out}, kernel_size={kernel}, stride={kernel})"
        last = f"ConvTranspose2d({out}, {channels}, kernel_size={kernel}, stride={kernel})"
        if self.writing is None:
            last = f"channels to tokens, {b.region} a region"
        return "\n".join([turn, first, last, "and back" if b.restore else "not shifted back"])


def strided_branch(branch: AxisBranch) -> StridedBranch:
    """A height or width branch as a strided convolution and a transposed one, by the same weights.

    The branch and what is returned share their weights: training the one trains the other. It holds
    for every setting; one linear layer (``fc_layers=1``) is a convolution to C * region channels
    whose outputs are then put side by side.

    Args:
        branch: such as ``model.stages[2].blocks[1].hire.height``.

    Returns:
        A module (B, C, H, W) to the same shape, equal to the branch up to rounding; with its
        kernels as ``reading`` and ``writing``.

    Raises:
        HirelabError: for something else than a height or width branch.
    """
    if not isinstance(branch, AxisBranch):
        raise HirelabError(
            f"strided_branch takes a height or width branch; this is a {type(branch).__name__}: "
            "give model.stages[2].blocks[1].hire.height, say."
        )
    return StridedBranch(branch)

"""What padding a batch does to the maps of a network.

Images of several sizes become a batch by empty canvas right of and below the smaller ones. A
convolution notices that near the border alone. A network that rolls its map round, or averages over
it, sees the canvas everywhere: `padding_effect` measures how much each place of a map changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..hooks.forward import eval_mode
from ..models.hire_mlp import HireMixing
from ..results import Result

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = ["PaddingEffect", "image_gates", "padding_effect"]


@dataclass(frozen=True, eq=False)
class PaddingEffect(Records, Result):
    """How much the maps of some networks change where the image stands beside empty canvas.

    Attributes:
        networks: their names.
        pads: pixels of canvas right of and below the images.
        img_size: (height, width) of the images; ``images``: how many.
        changes: of each network, pad and stage, the change at each place of the image's part of the
            map, (rows, columns): length of the difference (over channels, root mean square over
            images) against the root mean square length of the map alone. 0 is no change, 1 a change
            as large as the map.
    """

    networks: list[str]
    pads: list[int]
    img_size: tuple[int, int]
    images: int
    changes: list[list[list[list[list[float]]]]]

    def change(self, network: int, pad: int, stage: int) -> np.ndarray:
        """(rows, columns) of one of ``changes``, by their numbers."""
        return np.array(self.changes[network][pad][stage])

    def middle(self, network: int, pad: int, stage: int) -> float:
        """Root mean square change in the middle of the image: a quarter of it away from each
        border, and at least one place; of a map of fewer than three rows or columns all of it."""
        found = self.change(network, pad, stage)
        cuts = [max(1, n // 4) if n > 2 else 0 for n in found.shape]
        inner = found[tuple(slice(c, n - c) for c, n in zip(cuts, found.shape, strict=True))]
        return float(np.sqrt((inner**2).mean()))

    def records(self) -> list[dict[str, Any]]:
        """A row for each network, pad and stage: the change over all places and in the middle."""
        return [
            {
                "network": name,
                "pad": pad,
                "stage": stage,
                "all": float(np.sqrt((self.change(i, j, stage) ** 2).mean())),
                "middle": self.middle(i, j, stage),
            }
            for i, name in enumerate(self.networks)
            for j, pad in enumerate(self.pads)
            for stage in range(len(self.changes[i][j]))
        ]

    def __str__(self) -> str:
        rows = [
            (one["network"], one["pad"], one["stage"],
             f"{100 * one['all']:.1f}", f"{100 * one['middle']:.1f}")
            for one in self.records()
        ]  # fmt: skip
        head = ("network", "pad, px", "stage", "change, %", "in the middle, %")
        height, width = self.img_size
        said = f"{self.images} images of {height} x {width} pixels, alone and on a larger canvas"
        return f"{said}\n{table([head, *rows], 'lr')}"

    def plot(self, pad: int = -1) -> Figure:
        """The change place by place, a row for each network and a column for each stage.

        Args:
            pad: number of one of ``pads``, the last by default.
        """
        from ..viz.dense import padding as draw

        maps = [
            [self.change(i, pad, stage) for stage in range(len(self.changes[i][pad]))]
            for i in range(len(self.networks))
        ]
        return draw(self.networks, maps, self.pads[pad], text=str(self))


@torch.no_grad()
def padding_effect(
    networks: Mapping[str, nn.Module],
    x: Tensor,
    pads: Sequence[int] = (32, 128),
    *,
    masked: bool = False,
) -> PaddingEffect:
    """Measure what empty canvas beside images changes in the maps of networks.

    The canvas is 0 after normalisation, the mean colour, as torchvision's detectors have it.

    Args:
        networks: {name: network} of timm's or ours, with ``forward_intermediates``; measured in
            evaluation mode and left in theirs.
        x: (N, 3, H, W) normalised images; H and W multiples of 32.
        pads: pixels of canvas, multiples of 32.
        masked: gates average over the images alone, see `image_gates`.

    Raises:
        HirelabError: sizes that are not, or a network that does not give its maps.
    """
    height, width = x.shape[-2:]
    sizes = [height, width, *pads]
    if any(size % 32 for size in sizes) or min(sizes) < 0:
        raise HirelabError(
            f"Images are {height} x {width} and pads {list(pads)}; give multiples of 32, so that "
            "maps of the image alone lie on maps of the canvas."
        )
    changes = []
    for name, network in networks.items():
        if not hasattr(network, "forward_intermediates"):
            raise HirelabError(f"{name} has no forward_intermediates; give a network of timm's.")
        with eval_mode(network):
            alone = _maps(network, x)
            by_pad = []
            for pad in pads:
                shares = [[side / (side + pad) for side in (height, width)]] * len(x)
                with image_gates(network, shares) if masked else nullcontext():
                    padded = _maps(network, F.pad(x, (0, pad, 0, pad)))
                pairs = zip(alone, padded, strict=True)
                by_pad.append([_change(one, other).tolist() for one, other in pairs])
            changes.append(by_pad)
    return PaddingEffect(list(networks), list(pads), (height, width), len(x), changes)


def _maps(network: Any, x: Tensor) -> list[Tensor]:
    """The maps of the last four stages."""
    return [one.float() for one in network.forward_intermediates(x, intermediates_only=True)[-4:]]


def _change(alone: Tensor, padded: Tensor) -> Tensor:
    """(rows, columns), see `PaddingEffect.changes`."""
    rows, columns = alone.shape[-2:]
    difference = (padded[..., :rows, :columns] - alone).square().sum(1).mean(0)
    return (difference / alone.square().sum(1).mean()).sqrt()


@contextmanager
def larger_canvas(model: nn.Module, pad: int) -> Iterator[None]:
    """While it lasts, a detector lays its batches on a canvas that is larger by ``pad`` pixels of
    the scaled image, to the right and below, as beside a larger image."""
    transform: Any = model.get_submodule("net.transform")
    own = transform.batch_images
    transform.batch_images = lambda *given, **named: F.pad(own(*given, **named), (0, pad, 0, pad))
    try:
        yield
    finally:
        del transform.batch_images  # the class's own comes back


@contextmanager
def image_gates(network: nn.Module, shares: Tensor | Sequence[Sequence[float]]) -> Iterator[None]:
    """While it lasts, every gate of a Hire-MLP averages over its image, and not over the canvas.

    What it hears is then nearly what it would hear of the image alone: the cure for batches that
    are padded. Networks without gates are left as they are.

    Args:
        network: or anything that holds one, such as a detector.
        shares: (N, 2), for each image of the batch the share of the canvas's rows and columns that
            are image, above 0 to 1; an image stands in the upper left.

    Raises:
        HirelabError: shares out of range; while it runs: a batch of another number of images.
    """
    part = torch.as_tensor(shares, dtype=torch.float64).reshape(-1, 2)
    if not ((part > 0) & (part <= 1)).all():
        raise HirelabError(f"shares are {part.tolist()}; give shares of the canvas above 0, to 1.")
    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, HireMixing) and module.gate is not None:
                heard: list[Tensor] = []
                for name in module.gate.branches:
                    hook = partial(_hear, heard, part)
                    branch = getattr(module, name)
                    stack.callback(branch.register_forward_hook(hook).remove)
                replaced = partial(_say_heard, heard)
                stack.callback(module.gate.register_forward_pre_hook(replaced).remove)
        yield


def _hear(heard: list[Tensor], part: Tensor, branch: nn.Module, given: Any, out: Tensor) -> None:
    """Keep the mean of a branch over each image's own part of the map."""
    if len(out) != len(part):
        raise HirelabError(
            f"The batch has {len(out)} images and shares were given for {len(part)}: give as many."
        )
    tokens = torch.tensor(out.shape[-2:], dtype=part.dtype)
    sizes = torch.ceil(part * tokens - 1e-6).long()
    heard.append(
        torch.stack([one[:, :h, :w].mean((-2, -1)) for one, (h, w) in zip(out, sizes, strict=True)])
    )


def _say_heard(heard: list[Tensor], gate: nn.Module, given: Any) -> tuple[Tensor]:
    total = torch.stack(heard).sum(0)
    heard.clear()
    return (total,)

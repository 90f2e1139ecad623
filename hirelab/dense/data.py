"""The training images of a detector or segmenter, in order and augmented by the seed alone.

    DenseSampler     the order of an epoch: batches of keys, one process's share of each
    DetectionImages  a key -> an image, normalised, and its target
    PixelImages      a key -> a crop, normalised, and its labels
    fitted_sizes     sizes and anchors of a detector for these images

A key is (epoch, place, index), as in `training.data`: augmentation follows from (seed, epoch,
place) and from nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2 import functional as V

from ..datasets.boxes import BoxedImages
from ..datasets.label_maps import NO_LABEL, LabelMaps
from ..datasets.transforms import normalise
from ..training.data import Key, position_seed
from .detection import SMALLEST_ANCHOR
from .recipes import DenseRecipe

__all__ = ["DenseSampler", "DetectionImages", "PixelImages", "fitted_sizes"]

MOST_ENLARGED = 2
"""An image is enlarged so many times at most: more shows nothing that it does not have."""

ANCHORS = (SMALLEST_ANCHOR, SMALLEST_ANCHOR // 2, SMALLEST_ANCHOR // 4)
"""Sides that the smallest anchor can have, in pixels of the scaled image; COCO's own first."""


def fitted_sizes(images: BoxedImages, recipe: DenseRecipe) -> tuple[list[int], int]:
    """To which sides a detector scales these images, and the side of its smallest anchor.

    On COCO's own images both are what the recipe and the field say (800 and 32 pixels). Smaller
    images are enlarged twice at most, and where a tenth of the boxes is below half of the smallest
    anchor, which none of them would then match, the anchors become smaller.

    Returns:
        (shorter sides in pixels, as the recipe's ``sides``; side of the smallest anchor in pixels).
    """
    shorter = float(np.median([min(size) for size in images.sizes]))
    most = round(MOST_ENLARGED * shorter)
    sides = list(dict.fromkeys(min(side, most) for side in recipe.sides))
    roots = []
    for size, objects in zip(images.sizes, images.objects, strict=True):
        scale = min(sides[-1] / min(size), recipe.max_side / max(size))
        for x1, y1, x2, y2 in (one.box for one in objects):
            roots.append(scale * ((x2 - x1) * (y2 - y1)) ** 0.5)
    tenth = float(np.quantile(roots, 0.1)) if roots else ANCHORS[0]
    return sides, next((side for side in ANCHORS if side <= 2 * tenth), ANCHORS[-1])


class DenseSampler(Sampler[list[Key]]):
    """Batches of keys: one process's share of an epoch.

    Images of one group come in batches together; what does not fill a last batch is left out of the
    epoch.

    Args:
        groups: (N,) the group of every image, upright or lying, so that a batch has little padding.
        batch_size: of all processes together, a multiple of ``world``.
        seed: of the run.
        rank, world: which process this is, of how many.

    Attributes:
        epoch, first_step: where iterating begins; the loop sets them.
    """

    def __init__(
        self, groups: Sequence[int], batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.groups, self.batch_size, self.seed = np.asarray(groups), batch_size, seed
        self.rank, self.world = rank, world
        self.epoch = self.first_step = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return sum(int(n) // self.batch_size for n in np.bincount(self.groups))

    def batches(self) -> list[list[Key]]:
        """The batches of the epoch, of all processes together."""
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(len(self.groups))
        whole = []
        for group in range(int(self.groups.max()) + 1):
            mine = order[self.groups[order] == group]
            full = len(mine) // self.batch_size * self.batch_size
            whole += np.split(mine[:full], full // self.batch_size) if full else []
        turns = draw.permutation(len(whole))
        return [
            [
                (self.epoch, turn * self.batch_size + i, int(index))
                for i, index in enumerate(whole[which])
            ]
            for turn, which in enumerate(turns)
        ]

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches()[self.first_step :]:
            yield batch[self.rank :: self.world]


class _Augmented(Dataset):
    """Base: a generator for each key, and colour jitter."""

    def __init__(self, images: Any, recipe: DenseRecipe, seed: int) -> None:
        self.images, self.recipe, self.seed = images, recipe, seed

    def __len__(self) -> int:
        return len(self.images)

    def _draw(self, key: Key) -> np.random.Generator:
        return np.random.default_rng(position_seed(self.seed, key[0], key[1]))

    def _jittered(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        strength = self.recipe.jitter
        if not strength:
            return image
        for change in (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation):
            image = change(image, float(draw.uniform(1 - strength, 1 + strength)))
        return V.adjust_hue(image, float(draw.uniform(-0.1, 0.1) * strength))


class DetectionImages(_Augmented):
    """``images[key]`` is (x, target): normalised (3, H, W), and what `Detector.forward` takes.

    Crowds are left out. Scaling is the detector's own.
    """

    images: BoxedImages

    def __init__(
        self, images: BoxedImages, recipe: DenseRecipe, seed: int, masks: bool = True
    ) -> None:
        super().__init__(images, recipe, seed)
        self.masks = masks

    def __getitem__(self, key: Key) -> tuple[Tensor, dict[str, Tensor]]:
        draw, index = self._draw(key), key[2]
        image = self._jittered(self.images.read(index), draw)
        kept = [i for i, one in enumerate(self.images.objects[index]) if not one.crowd]
        objects = [self.images.objects[index][i] for i in kept]
        boxes = torch.tensor([one.box for one in objects], dtype=torch.float32).reshape(-1, 4)
        target = {
            "boxes": boxes,
            "labels": torch.tensor([one.label for one in objects], dtype=torch.int64),
        }
        if self.masks:
            target["masks"] = torch.from_numpy(self.images.masks(index)[kept])
        x = normalise([image])[0]
        if self.recipe.flip and draw.random() < 0.5:
            x = x.flip(-1)
            target["boxes"] = boxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
            target["boxes"][:, [0, 2]] += image.width
            if self.masks:
                target["masks"] = target["masks"].flip(-1)
        return x, target


class PixelImages(_Augmented):
    """``images[key]`` is (x, labels): normalised (3, S, S) and int64 (S, S), or the whole image.

    What a crop has beyond the image is mean colour, without a label.
    """

    images: LabelMaps

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        draw, side = self._draw(key), self.recipe.crop
        image, labels = self.images.read(key[2])
        image = self._jittered(image, draw)
        if side:
            scale = float(draw.uniform(*self.recipe.scale))
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.BILINEAR)
            labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        x, y = normalise([image])[0], torch.from_numpy(labels.astype(np.int64))
        if self.recipe.flip and draw.random() < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        return _crop(x, y, side, draw) if side else (x, y)


def _crop(x: Tensor, y: Tensor, side: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A square at a place drawn; padded where the image is smaller."""
    height, width = y.shape
    top, left = (int(draw.integers(max(0, extent - side) + 1)) for extent in (height, width))
    x, y = (one[..., top : top + side, left : left + side] for one in (x, y))
    below, right = side - y.shape[0], side - y.shape[1]
    x = torch.nn.functional.pad(x, (0, right, 0, below))
    return x, torch.nn.functional.pad(y, (0, right, 0, below), value=NO_LABEL)

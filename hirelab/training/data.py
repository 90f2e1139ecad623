"""The training images of a run: decoded, augmented and put in order, as a function of the seed.

    EpochSampler       the order of an epoch: batches of keys, one process's share of each
    AugmentedDataset   a key -> the augmented image, as bytes, and its label
    collate            images and labels -> one batch

A key is (epoch, place in the epoch's order, index of the image). The order follows from (seed,
epoch), an augmentation from (seed, epoch, place) and from nothing else, so that neither a stop nor
the number of processes or loading workers changes an image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..datasets.cache import DecodedImages
from ..datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from .recipes import Recipe

__all__ = ["AugmentedDataset", "EpochSampler", "Key", "collate", "position_seed", "set_seed"]

Key = tuple[int, int, int]
"""(epoch, place in the epoch's order, index of the image), all from 0."""


def position_seed(*position: int) -> int:
    """A seed for `set_seed` from a position, such as (seed, epoch, place)."""
    return int(np.random.SeedSequence(position).generate_state(1)[0])


def set_seed(seed: int) -> None:
    """Set every random generator that timm's parts draw from on the CPU."""
    random.seed(seed)
    np.random.seed(seed)
    # not torch.manual_seed, which also keeps a note for every kind of accelerator that is not in
    # use, with a stack trace: 0.7 ms, and memory that grows
    torch.default_generator.manual_seed(seed)


class AugmentedDataset(Dataset):
    """Augmented images of a split: ``dataset[epoch, place, index]`` is (uint8 (3, H, W), label).

    H and W are the recipe's side in that epoch. The same key gives the same bytes.

    Args:
        images: the decoded images.
        recipe: says how they are augmented, and their size.
        seed: of the run.
    """

    def __init__(self, images: DecodedImages, recipe: Recipe, seed: int) -> None:
        self.images, self.recipe, self.seed = images, recipe, seed
        self._transforms: dict[int, Any] = {}

    def _transform(self, img_size: int) -> Any:
        if img_size not in self._transforms:
            jitter: Any = self.recipe.color_jitter or None  # timm takes None; its hint says no
            self._transforms[img_size] = create_transform(
                img_size,
                is_training=True,
                use_prefetcher=True,  # bytes come out; the batch is normalised at once
                scale=(self.recipe.scale, 1.0),
                auto_augment=self.recipe.auto_augment or None,
                color_jitter=jitter,
                interpolation="bicubic",
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
            )
        return self._transforms[img_size]

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        epoch, place, index = key
        set_seed(position_seed(self.seed, epoch, place))
        image = Image.fromarray(self.images.pixels[index])
        transform = self._transform(self.recipe.img_size_at(epoch))
        return transform(image), int(self.images.labels[index])

    def __len__(self) -> int:
        return len(self.images)


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys for `AugmentedDataset`: one process's share of an epoch.

    Process ``rank`` of ``world`` takes every world-th place of a batch, so that the batches of
    all processes together are the same for any number of them.

    Args:
        count: images there are; what does not fill a last batch is left out of the epoch.
        recipe: its batch size (a multiple of ``world``) and repeated augmentation.
        seed: of the run.
        rank, world: which process this is, of how many.

    Attributes:
        epoch, first_step: where iterating begins; the training loop sets them, from 0.
    """

    def __init__(
        self, count: int, recipe: Recipe, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.recipe, self.seed, self.rank, self.world = count, recipe, seed, rank, world
        self.epoch = self.first_step = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.count // self.recipe.batch_size

    def order(self) -> np.ndarray:
        """(count,) indices of the epoch's images, each repeated ``aug_repeats`` times running."""
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return np.repeat(shuffled, self.recipe.aug_repeats)[: self.count]

    def batch(self, step: int) -> list[Key]:
        """The keys of a batch of the epoch, of all processes together."""
        start = step * self.recipe.batch_size
        chosen = self.order()[start : start + self.recipe.batch_size]
        return [(self.epoch, start + i, int(index)) for i, index in enumerate(chosen)]

    def __iter__(self) -> Iterator[list[Key]]:
        order, size = self.order(), self.recipe.batch_size
        for step in range(self.first_step, len(self)):
            start = step * size
            places = range(start + self.rank, start + size, self.world)
            yield [(self.epoch, place, int(order[place])) for place in places]


def collate(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) and labels (N,) of one batch."""
    return torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])

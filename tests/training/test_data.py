"""Order, shares and augmentation of training images: functions of seed and position alone."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from _training import RECIPE, STEPS
from PIL import Image, ImageOps

from hirelab.datasets.cache import DecodedImages, decode
from hirelab.datasets.subsets import open_images
from hirelab.training.data import AugmentedDataset, EpochSampler, collate, set_seed
from hirelab.training.recipes import Recipe

PLAIN = dataclasses.replace(RECIPE, scale=1.0, auto_augment="", color_jitter=0.0)


@pytest.fixture(scope="module")
def stored(data) -> DecodedImages:
    return decode(open_images(data, "train"), RECIPE.stored_size, progress=False)


def test_the_shares_of_processes_are_the_batch():
    recipe = dataclasses.replace(RECIPE, batch_size=12, aug_repeats=3)
    whole = list(EpochSampler(40, recipe, seed=1))
    shares = [list(EpochSampler(40, recipe, 1, rank, 3)) for rank in range(3)]
    assert len(whole) == 3
    for step, batch in enumerate(whole):
        assert sorted(key for share in shares for key in share[step]) == sorted(batch)
        assert {len(share[step]) for share in shares} == {4}
    # repeated augmentation: the three copies of an image fall to three processes
    for share in shares:
        indices = [index for batch in share for _, _, index in batch]
        assert len(set(indices)) == len(indices)


def test_an_epoch_shows_each_image_once_in_a_new_order():
    order = EpochSampler(36, RECIPE, seed=1)
    epochs = []
    for order.epoch in range(2):
        keys = [key for batch in order for key in batch]
        assert len({index for _, _, index in keys}) == len(keys) == STEPS * RECIPE.batch_size
        epochs.append([index for _, _, index in keys])
        for step, batch in enumerate(order):
            assert order.batch(step) == batch
    assert epochs[0] != epochs[1]


def test_an_epoch_goes_on_where_it_is_told_to():
    order = EpochSampler(36, RECIPE, seed=1)
    whole = list(order)
    order.first_step = 3
    assert list(order) == whole[3:] != []


def test_an_augmented_image_follows_from_its_place_alone(stored):
    images = AugmentedDataset(stored, RECIPE, seed=1)
    first, label = images[0, 5, 7]
    torch.manual_seed(99)
    np.random.seed(99)
    _ = images[0, 6, 8]
    again, _ = images[0, 5, 7]
    assert torch.equal(first, again)
    assert label == stored.labels[7]
    for other in ((0, 6, 7), (1, 5, 7)):
        assert not torch.equal(first, images[other][0])
    assert not torch.equal(first, AugmentedDataset(stored, RECIPE, seed=2)[0, 5, 7][0])


def test_images_are_bytes_of_the_epochs_size_and_a_batch_stacks_them(stored):
    grows = dataclasses.replace(RECIPE, img_size=64, start_img_size=32)
    images = AugmentedDataset(stored, grows, seed=1)
    assert len(images) == len(stored) == 36
    for epoch, side in ((0, 32), (2, 64), (0, 32)):
        batch = [images[epoch, place, index] for place, index in ((0, 30), (1, 3))]
        x, y = collate(batch)
        assert (x.dtype, x.shape) == (torch.uint8, (2, 3, side, side))
        assert (y.dtype, y.tolist()) == (torch.int64, [stored.labels[30], stored.labels[3]])
        assert torch.equal(x[1], torch.as_tensor(batch[1][0]))


def looks(stored: DecodedImages, recipe: Recipe) -> set[bytes]:
    """How one image looks in twenty places."""
    images = AugmentedDataset(stored, recipe, seed=1)
    return {np.asarray(images[0, place, 7][0]).tobytes() for place in range(20)}


def test_without_augmentation_an_image_is_whole_and_sometimes_mirrored(stored):
    whole = Image.fromarray(stored.pixels[7]).resize((32, 32), Image.Resampling.BICUBIC)
    both = {np.asarray(x).transpose(2, 0, 1).tobytes() for x in (whole, ImageOps.mirror(whole))}
    assert looks(stored, PLAIN) == both


@pytest.mark.parametrize(
    "more", [{"scale": 0.3}, {"color_jitter": 0.4}, {"auto_augment": RECIPE.auto_augment}]
)
def test_each_augmentation_of_the_recipe_is_applied(stored, more):
    assert len(looks(stored, dataclasses.replace(PLAIN, **more))) > 2


def test_a_seed_sets_every_generator_that_augmentations_draw_from():
    def draw() -> list[float]:
        return [random.random(), np.random.random(), torch.rand(()).item()]

    set_seed(5)
    first = draw()
    assert all(a != b for a, b in zip(first, draw(), strict=True))
    set_seed(5)
    assert draw() == first

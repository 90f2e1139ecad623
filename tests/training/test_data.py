"""Order, shares and augmentation of training images: functions of seed and position alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from _training import RECIPE, STEPS

from hirelab.datasets.cache import decode
from hirelab.datasets.subsets import open_images
from hirelab.training.data import AugmentedDataset, EpochSampler


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


def test_an_augmented_image_follows_from_its_place_alone(data):
    stored = decode(open_images(data, "train"), RECIPE.stored_size, progress=False)
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

"""Corruptions: each does what its parameter says, the same every time, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from hirelab._shared.errors import HirelabError
from hirelab.datasets import open_image, square
from hirelab.datasets.corruptions import CORRUPTIONS, STRENGTHS, corrupt

KINDS = tuple(CORRUPTIONS)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return square(open_image("astronaut"), 160)


def flat(value: int, side: int = 100) -> Image.Image:
    return Image.new("RGB", (side, side), (value,) * 3)


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float) / 255


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_corruption_is_further_from_the_image(kind, photograph):
    far = [
        np.square(values(corrupt(photograph, kind, s)) - values(photograph)).mean()
        for s in (0, *STRENGTHS)
    ]
    assert far[0] == 0
    assert np.all(np.diff(far) > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_every_time_and_leaves_the_image(kind, photograph):
    before = photograph.tobytes()
    first, again, other = (corrupt(photograph, kind, 2, seed).tobytes() for seed in (5, 5, 6))
    assert first == again
    assert (first != other) == (kind == "noise")
    assert photograph.tobytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_any_shape_keeps_its_size(kind):
    image = square(open_image("cat"), 64).resize((41, 23))
    assert corrupt(image, kind, 3).size == (41, 23)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_noise_has_its_deviation_and_no_mean(strength):
    apart = values(corrupt(flat(128, 200), "noise", strength)) - 128 / 255
    assert apart.std() == pytest.approx(CORRUPTIONS["noise"].values[strength - 1], rel=0.02)
    assert abs(apart.mean()) < 0.002
    assert np.corrcoef(apart.reshape(-1, 3).T)[0, 1] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_is_torchvisions_of_that_deviation(strength, photograph):
    deviation = CORRUPTIONS["blur"].values[strength - 1]
    x = torch.from_numpy(np.array(photograph)).permute(2, 0, 1)[None].double()
    taps = 2 * round(4 * deviation) + 1
    truth = gaussian_blur(x, [taps, taps], [deviation, deviation])[0].permute(1, 2, 0).numpy()
    mine = np.asarray(corrupt(photograph, "blur", strength), dtype=float)
    inside = slice(taps, -taps)  # they mirror the border differently
    assert np.abs(mine - truth)[inside, inside].max() < 1


@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_keeps_each_colours_mean_and_scales_its_deviation(strength, photograph):
    before, after = values(photograph), values(corrupt(photograph, "contrast", strength))
    assert after.mean((0, 1)) == pytest.approx(before.mean((0, 1)), abs=1e-3)
    factor = CORRUPTIONS["contrast"].values[strength - 1]
    assert after.std((0, 1)) == pytest.approx(factor * before.std((0, 1)), rel=0.01)


def test_pixelate_shows_averages_over_boxes(photograph):
    mine = np.asarray(corrupt(photograph, "pixelate", 1), dtype=float)
    box = round(1 / CORRUPTIONS["pixelate"].values[0])
    boxes = np.asarray(photograph, dtype=float).reshape(160 // box, box, 160 // box, box, 3)
    truth = boxes.mean((1, 3)).repeat(box, 0).repeat(box, 1)
    assert np.abs(mine - truth).max() <= 1  # Pillow rounds after each axis


def test_jpeg_works_in_blocks_of_eight(photograph):
    """At its lowest quality most blocks of the lightness hold their mean and little else."""
    light = np.asarray(corrupt(photograph, "jpeg", 3).convert("L"), dtype=float)
    across = np.abs(np.diff(light, axis=1)).mean(0)
    border = np.arange(159) % 8 == 7
    assert across[border].mean() > 2 * across[~border].mean()


def test_what_cannot_be_corrupted_is_refused(photograph):
    for arguments, said in (
        ((photograph, "nois", 1), "noise"),
        ((photograph, "noise", 4), "from 0 to 3"),
        ((photograph, "noise", 1, -1), "seed"),
        ((photograph.convert("L"), "noise", 1), "not L"),
        ((np.zeros((4, 4, 3)), "noise", 1), "ndarray"),
    ):
        with pytest.raises(HirelabError, match=said):
            corrupt(*arguments)

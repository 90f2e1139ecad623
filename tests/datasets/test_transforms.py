"""From images to a network's input and back: held equal to torchvision and timm."""

import re

import numpy as np
import pytest
import timm
import timm.data
import torch
from _helpers import GREEN, RED, four_corners, noise_image, same_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from hirelab._shared.errors import HirelabError
from hirelab.datasets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    iter_images,
    normalise,
    pixels,
    square,
)

# --- square ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    short=st.integers(1, 40),
    ratio=st.floats(1, 16),
    turned=st.booleans(),
    size=st.integers(1, 48),
    seed=st.integers(0, 9),
)
def test_square_is_torchvisions_resize_and_centre_crop(short, ratio, turned, size, seed):
    sides = (short, int(short * ratio))
    image = noise_image(*(reversed(sides) if turned else sides), seed=seed)
    resize = v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC)
    assert same_image(square(image, size), v2.CenterCrop(size)(resize(image)))


def test_square_of_a_photograph_is_torchvisions():
    reference = v2.Compose([v2.Resize(224, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    for _, image in iter_images():
        assert same_image(square(image, 224), reference(image))


@pytest.mark.parametrize("sides", [(1, 10_000), (10_000, 1), (10, 10_000)])
def test_square_computes_little_of_a_very_long_image(monkeypatch, sides):
    asked = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a: asked.append(size) or resize(self, size, *a)
    )
    image = Image.new("RGB", sides, RED)
    image.paste(
        GREEN,
        tuple(max(0, side // 2 - 100) for side in sides) + tuple(side // 2 + 100 for side in sides),
    )
    assert same_image(square(image, 64), Image.new("RGB", (64, 64), GREEN))
    assert max(max(size) for size in asked) <= 17 * 64


def test_square_takes_the_middle_and_keeps_the_image():
    image = Image.new("RGB", (90, 30), RED)
    image.paste(GREEN, (30, 0, 60, 30))
    assert same_image(square(image, 30), Image.new("RGB", (30, 30), GREEN))
    assert image.size == (90, 30)


def test_a_square_of_the_right_size_is_left_as_it_is():
    assert same_image(square(noise_image(8, 8), 8), noise_image(8, 8))


@pytest.mark.parametrize("bad", [0, -1, 7.5, "224", None, True, 8193, (4, 8)])
def test_size_is_one_side_within_bounds(bad):
    with pytest.raises(HirelabError, match=re.escape(f"img_size is {bad!r}; ")):
        square(four_corners(), bad)


def test_square_takes_rgb_only():
    with pytest.raises(ValueError, match="mode RGB, not L: use open_image"):
        square(Image.new("L", (4, 4)), 4)
    with pytest.raises(ValueError, match="not ndarray"):
        square(np.zeros((4, 4, 3), np.uint8), 4)


# --- normalise and pixels --------------------------------------------------------------------


def test_the_constants_are_timms():
    assert timm.data.IMAGENET_DEFAULT_MEAN == IMAGENET_MEAN
    assert timm.data.IMAGENET_DEFAULT_STD == IMAGENET_STD


def test_normalise_is_torchvisions():
    images = [noise_image(9, 6, seed) for seed in range(3)]
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))):
        expected = torch.stack([v2.Normalize(mean, std)(to_tensor(image)) for image in images])
        found = normalise(images, mean, std)
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        assert found.shape == (3, 3, 6, 9)
        torch.testing.assert_close(found, expected.as_subclass(torch.Tensor), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3), ((0,) * 3, (1,) * 3)],
)
def test_pixels_bring_back_every_value_exactly(mean, std):
    every = np.arange(256, dtype=np.uint8)
    batch = np.stack([np.roll(every, 85 * c) for c in range(3)], -1).reshape(1, 16, 16, 3)
    back = pixels(normalise(batch, mean, std), mean, std)
    assert back.dtype == np.uint8
    assert back.flags.c_contiguous
    assert (back == batch).all()


def test_normalise_leaves_its_input_alone():
    batch = np.asarray(noise_image(4, 4))[None].copy()
    x = normalise(batch)
    before = batch.copy()
    x.zero_()
    assert (batch == before).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_tensor_of_bytes_is_normalised_as_an_array(memory_format):
    batch = np.stack([np.asarray(noise_image(5, 4, seed)) for seed in range(2)])
    x = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous(memory_format=memory_format)
    before = x.clone()
    found = normalise(x)
    assert torch.equal(found, normalise(batch))
    assert found.is_contiguous(memory_format=memory_format)
    assert torch.equal(x, before)


def test_pixels_clip_and_leave_their_input_alone():
    x = torch.tensor([-100.0, 0.0, 100.0]).repeat(1, 3, 1, 1).requires_grad_()
    values = pixels(x)
    assert (values[0, 0, 0] == 0).all()
    assert (values[0, 0, 1] == np.rint(np.array(IMAGENET_MEAN) * 255)).all()
    assert (values[0, 0, 2] == 255).all()
    assert x.detach().abs().max() == 100


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ([], "none of them 0"),
        (np.zeros((0, 4, 4, 3), np.uint8), "none of them 0"),
        (np.zeros((4, 4, 3), np.uint8), r"\(4, 4, 3\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), r"\(N, H, W, 3\)"),
        (np.zeros((1, 4, 4, 3)), "uint8.*float64"),
        ([four_corners(), noise_image(4, 4)], r"one size.*square\(\)"),
        ([four_corners().convert("L")], r"mode RGB, not L: use open_image\(\)"),
        (four_corners(), r"write \[image\]"),
        (torch.zeros(1, 3, 4, 4), "uint8 tensor.*float32"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), r"\(1, 4, 4, 3\)"),
    ],
)
def test_normalise_refuses_what_is_no_batch(images, match):
    with pytest.raises(ValueError, match=match):
        normalise(images)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(3, 4, 4), r"\(N, 3, H, W\), not torch.float32 \(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, 3), r"\(1, 4, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "torch.uint8"),
        (np.zeros((1, 3, 4, 4)), "not ndarray"),
        (torch.full((1, 3, 2, 2), torch.nan), "NaN or infinite"),
        (torch.full((1, 3, 2, 2), torch.inf), "NaN or infinite"),
    ],
)
def test_pixels_refuse_what_is_no_batch(x, match):
    with pytest.raises(ValueError, match=match):
        pixels(x)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5, 0.5), (0.5,) * 3),
        ((0.5,) * 3, (0.5, 0.0, 0.5)),
        ((0.5,) * 3, (0.5, -1.0, 0.5)),
        ((0.5, float("nan"), 0.5), (0.5,) * 3),
        ((0.5,) * 3, (0.5, float("inf"), 0.5)),
    ],
)
def test_mean_and_std_are_checked(mean, std):
    for function, batch in ((normalise, [four_corners()]), (pixels, torch.zeros(1, 3, 2, 2))):
        with pytest.raises(ValueError, match="three finite numbers each, std above 0"):
            function(batch, mean, std)

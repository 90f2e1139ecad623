"""From RGB images to what a network takes, and back.

square     image               -> square image, the crop of evaluation
normalise  bytes               -> float32 tensor (N, 3, H, W), what a network takes
pixels     tensor (N, 3, H, W) -> uint8 array (N, H, W, 3), what a screen takes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._shared.checks import check_img_size
from .._shared.errors import HirelabError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "normalise", "pixels", "square"]

# The usual mean and standard deviation of ImageNet's red, green and blue in 0..1, as in
# timm.data.IMAGENET_DEFAULT_MEAN and _STD. Importing timm for six numbers takes seconds.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def square(image: Image.Image, img_size: int) -> Image.Image:
    """The middle of an RGB image, img_size x img_size pixels: the evaluation crop without a margin.

    The shorter side is resized to `img_size` with bicubic interpolation and the centre cut out,
    pixel for pixel as torchvision's Resize and CenterCrop do; an image more than 16 times as long
    as wide loses its ends first.

    Raises:
        HirelabError: a size that is no whole number from 1 to 8192 (or a pair of one such), and
            anything but a PIL image in mode RGB.
    """
    size = check_side(img_size)
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        given = getattr(image, "mode", type(image).__name__)
        raise HirelabError(
            f"square() takes a PIL image in mode RGB, not {given}: use open_image()."
        )
    short = min(image.size)
    # Resized whole, a 10,000 x 1 image would need 1.5 GB for ends that are cut off anyway.
    width, height = (min(side, 16 * short) for side in image.size)
    image = _centre(image, width, height)
    resized = (int(size * width / short), int(size * height / short))
    return _centre(image.resize(resized, Image.Resampling.BICUBIC), size, size)


def check_side(img_size: Any) -> int:
    """The side of a square image in pixels, from one number or a pair of equal ones."""
    height, width = check_img_size(img_size, low=1)
    if height != width:
        raise HirelabError(f"img_size is {img_size!r}; images are cut square: give one side.")
    return height


def normalise(
    images: Tensor | np.ndarray | Sequence[Image.Image | np.ndarray],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Bytes as a network takes them: (value / 255 - mean) / std, float32, (N, 3, H, W).

    `pixels` is the exact inverse.

    Args:
        images: a uint8 array (N, H, W, 3), a list of RGB images of one size, or a uint8 tensor
            (N, 3, H, W), whose device and memory format the result has.
        mean, std: of red, green and blue in 0..1.

    Raises:
        HirelabError: other shapes, modes and dtypes, no image at all, images of different sizes,
            and a mean or std that is not three finite numbers, std above 0.
    """
    if isinstance(images, Tensor):
        batch = images
        if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[1] != 3:
            raise HirelabError(
                f"normalise() takes a uint8 tensor of shape (N, 3, H, W), not {batch.dtype} of "
                f"shape {tuple(batch.shape)}."
            )
    else:
        batch = torch.from_numpy(_stack(images)).permute(0, 3, 1, 2).contiguous()
    centre, spread = (value.to(batch.device) for value in _statistics(mean, std))
    return batch.to(torch.float32).div_(255).sub_(centre).div_(spread)


def pixels(
    x: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> np.ndarray:
    """Normalised images (N, 3, H, W) as uint8 (N, H, W, 3), the inverse of `normalise`.

    Values beyond black and white are clipped.

    Raises:
        HirelabError: another shape or dtype, NaN or infinite values, and a mean or std as
            `normalise` does.
    """
    centre, spread = _statistics(mean, std)
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise HirelabError(f"pixels() takes a float tensor (N, 3, H, W), not {given}.")
    x = x.detach().to("cpu", torch.float32)
    if not torch.isfinite(x).all():
        raise HirelabError(
            "pixels() was given NaN or infinite values, which are no colour: look for the step "
            "that made them."
        )
    levels = (x * spread + centre).mul_(255).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of `image`; halves of a pixel round to even."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _stack(images: Any) -> np.ndarray:
    """Images of one size as a new writable uint8 array (N, H, W, 3)."""
    if isinstance(images, Image.Image):
        raise HirelabError("normalise() takes a list of images, not one: write [image].")
    for image in images:
        if isinstance(image, Image.Image) and image.mode != "RGB":
            raise HirelabError(f"normalise() takes mode RGB, not {image.mode}: use open_image().")
    arrays = [np.asarray(image) for image in images]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise HirelabError(
            f"normalise() takes images of one size, not of {shapes}: cut them with square()."
        )
    batch = np.array(arrays)
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8 or not batch.size:
        raise HirelabError(
            f"normalise() takes uint8 of shape (N, H, W, 3), none of them 0, not {batch.dtype} of "
            f"shape {batch.shape}."
        )
    return batch


def _statistics(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as tensors (3, 1, 1), checked."""
    centre, spread = (torch.as_tensor(v, dtype=torch.float32) for v in (mean, std))
    finite = all(v.shape == (3,) and v.isfinite().all() for v in (centre, spread))
    if not finite or (spread <= 0).any():
        raise HirelabError(
            f"mean and std are three finite numbers each, std above 0, not mean {mean} and std "
            f"{std}."
        )
    return centre.view(3, 1, 1), spread.view(3, 1, 1)

"""The image that explorers look at: whatever is given, as a square."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .._shared.errors import HirelabError
from ..datasets.images import open_image
from ..datasets.samples import iter_images
from ..datasets.transforms import pixels, square

SIDE = 224  # pixels; the input of the paper's networks
USUAL = "coffee"  # the sample that stands in for no image
GIVEN = "the given one"  # of the images to choose from, the one that an explorer was made with


def image_name(source: Any = None) -> str:
    """What a reader calls an image that `square_image` takes: a sample's or a file's name, or else
    "the given one"."""
    if source is None:
        return USUAL
    return Path(source).name if isinstance(source, str | os.PathLike) else GIVEN


def square_image(source: Any = None, img_size: int = SIDE) -> Image.Image:
    """A square RGB image of ``img_size`` pixels a side from a normalised tensor (3, H, W), or from
    anything that `hirelab.datasets.iter_images` takes (a file, a name, a folder or a data set, of
    which it is the first; a PIL image, an array).

    Raises:
        HirelabError: for a tensor of another shape, or one with NaN.
    """
    if source is None:
        source = USUAL
    if isinstance(source, Tensor):
        if source.dim() != 3 or source.shape[0] != 3:
            raise HirelabError(
                f"The image is a tensor of shape {list(source.shape)}; give one image "
                "(3, height, width), say x[0] of a batch x."
            )
        source = Image.fromarray(pixels(source[None])[0])
    if isinstance(source, str | os.PathLike):
        ((_, image),) = iter_images(source, 1)
    else:
        image = open_image(source)
    return square(image, img_size)

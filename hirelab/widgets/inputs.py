"""The image that explorers look at: whatever is given, as a square."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from .._shared.errors import HirelabError
from ..datasets.images import open_image
from ..datasets.transforms import pixels, square

SIDE = 224  # pixels; the input of the paper's networks


def square_image(source: Any = None) -> Image.Image:
    """A 224 x 224 RGB image from a normalised tensor (3, H, W), or from anything that
    `hirelab.datasets.open_image` opens (a file, a name, a PIL image, an array).

    Raises:
        HirelabError: for a tensor of another shape, or one with NaN.
    """
    if source is None:
        source = "coffee"
    if isinstance(source, Tensor):
        if source.dim() != 3 or source.shape[0] != 3:
            raise HirelabError(
                f"The image is a tensor of shape {list(source.shape)}; give one image "
                "(3, height, width), say x[0] of a batch x."
            )
        source = Image.fromarray(pixels(source[None])[0])
    return square(open_image(source), SIDE)

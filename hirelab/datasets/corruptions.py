"""Corruptions of an image: five kinds in three strengths, to ask what a network still recognises.

The kinds are among those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261). The
images, the parameters and the number of strengths are not: its files have 224 pixels a side and
five severities. Figures made with these corruptions are no figures of ImageNet-C.

CORRUPTIONS  the kinds, each with what it does and its parameter at every strength
corrupt      an image -> the image corrupted

Blur is measured in pixels of the image as it is given, before a network's own size is cut from it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError

__all__ = ["CORRUPTIONS", "STRENGTHS", "Corruption", "corrupt"]

STRENGTHS = (1, 2, 3)
"""Of every kind, the weakest first; 0 is the image itself."""


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        text: what it does, in words.
        parameter: what its values are, with their unit.
        values: the parameter at each of `STRENGTHS`.
        apply: (image, value, random numbers) -> image of the same size.
    """

    text: str
    parameter: str
    values: tuple[float, ...]
    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]

    def __str__(self) -> str:
        return f"{self.text}; {self.parameter}: {', '.join(map('{:g}'.format, self.values))}"


def corrupt(image: Image.Image, kind: str, strength: int, seed: int = 0) -> Image.Image:
    """A corrupted copy of an image, of the same size; the same for the same arguments.

    Args:
        image: a PIL image in mode RGB, as `open_image` gives it.
        kind: one of `CORRUPTIONS`.
        strength: 1 to 3; 0 gives the image as it is.
        seed: of the noise; give every image of a set its own.

    Raises:
        HirelabError: an unknown kind or strength, or no image in mode RGB.
    """
    check_choice("kind", kind, CORRUPTIONS)
    strength = check_whole("strength", strength, 0, len(STRENGTHS))
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        given = getattr(image, "mode", type(image).__name__)
        raise HirelabError(
            f"corrupt() takes a PIL image in mode RGB, not {given}: use open_image()."
        )
    if strength == 0:
        return image.copy()
    chosen = CORRUPTIONS[kind]
    random = np.random.default_rng(check_whole("seed", seed, 0))
    return chosen.apply(image, chosen.values[strength - 1], random)


def _noise(image: Image.Image, deviation: float, random: np.random.Generator) -> Image.Image:
    from skimage.util import random_noise

    return _image(random_noise(_array(image), "gaussian", rng=random, var=deviation**2))


def _blur(image: Image.Image, deviation: float, random: np.random.Generator) -> Image.Image:
    from skimage.filters import gaussian

    return _image(gaussian(_array(image), deviation, mode="reflect", channel_axis=-1))


def _contrast(image: Image.Image, factor: float, random: np.random.Generator) -> Image.Image:
    values = _array(image)
    mean = values.mean((0, 1))
    return _image(mean + factor * (values - mean))


def _jpeg(image: Image.Image, quality: float, random: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(quality))
    with Image.open(file) as coded:
        return coded.convert("RGB")


def _pixelate(image: Image.Image, share: float, random: np.random.Generator) -> Image.Image:
    small = [max(round(side * share), 1) for side in image.size]
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _array(image: Image.Image) -> np.ndarray:
    """(H, W, 3) in 0..1."""
    return np.asarray(image, dtype=np.float32) / 255


def _image(values: np.ndarray) -> Image.Image:
    """From 0..1, clipped and rounded."""
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(
        "Gaussian noise on every pixel and colour, where white is 1", "standard deviation",
        (0.05, 0.1, 0.2), _noise,
    ),
    "blur": Corruption("Gaussian blur", "standard deviation, px", (1, 2, 3), _blur),
    "contrast": Corruption(
        "every colour's distance from its mean over the image, multiplied", "factor",
        (0.6, 0.4, 0.2), _contrast,
    ),
    "jpeg": Corruption("JPEG as Pillow writes it", "quality", (10, 5, 2), _jpeg),
    "pixelate": Corruption(
        "made smaller by averages over boxes and enlarged without interpolation",
        "share of the side", (0.5, 0.3, 0.2), _pixelate,
    ),
}  # fmt: skip
"""The kinds by name."""

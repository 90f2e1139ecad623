"""Crops of photographs: a small labelled set that is made here, so that it needs no download.

The classes are four of the photographs that ship inside scikit-image. An image is a crop of one of
them, in the photograph's own pixels, at a place drawn from a fixed seed: for training from its
left two thirds, for validation from the rest, so that no pixel is in both splits. It shows that
loading, training and evaluation work. It says nothing about a network: a class is one photograph.

The archive has the same bytes on every machine, hence the same fingerprint. The photographs are
those that come as PNG, which decodes in one way only; the crops are stored as plain PPM, with no
compressor's version in them; and of Python's random numbers only `random.random` is used, whose
sequence is promised not to change.
"""

from __future__ import annotations

import io
import zipfile
from random import Random

import numpy as np

from .images import open_image

__all__ = ["SIDE", "photo_crops"]

CLASSES = ("astronaut", "cat", "coffee", "tissue")
"""Names in `images.PHOTOGRAPHS`."""

COUNTS = {"train": 32, "val": 8}
"""Crops of each class: 128 to train on are two whole batches of the recipe "quick"."""

SIDE = 48
"""Of a crop, in pixels."""


def photo_crops() -> bytes:
    """The data set as a zip, ``{train,val}/<photograph>/<number>.ppm``, always the same bytes."""
    draw, made = Random(0), io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for label in CLASSES:
            pixels = np.asarray(open_image(label))
            border = pixels.shape[1] * 2 // 3
            for split, part in (("train", pixels[:, :border]), ("val", pixels[:, border:])):
                for i in range(COUNTS[split]):
                    entry = zipfile.ZipInfo(f"{split}/{label}/{i:02}.ppm")  # dated 1980
                    entry.create_system = 3  # or Windows would write another byte
                    archive.writestr(entry, _ppm(_crop(part, draw)))
    return made.getvalue()


def _crop(pixels: np.ndarray, draw: Random) -> np.ndarray:
    """A square of `SIDE` pixels, every place as likely."""
    top, left = (int(draw.random() * (extent - SIDE + 1)) for extent in pixels.shape[:2])
    return pixels[top : top + SIDE, left : left + SIDE]


def _ppm(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as the bytes of a binary PPM file."""
    height, width, _ = pixels.shape
    return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()

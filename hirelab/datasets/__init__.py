"""Images: photographs that need no download, the reader's own files, labelled sets to train on.

`samples` stands alone; `subsets`, `fetch` and `cache` bring and decode labelled ones for training;
`diagnostics` generates tasks that isolate what the rearrangement is for.
"""

from .samples import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    PHOTOGRAPHS,
    iter_images,
    normalise,
    open_image,
    pixels,
    samples,
    square,
    suffixes,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "PHOTOGRAPHS",
    "iter_images",
    "normalise",
    "open_image",
    "pixels",
    "samples",
    "square",
    "suffixes",
]

"""Pictures to look at: photographs that need no download, and the reader's own files.

Nothing here imports from elsewhere in `hirelab`.
"""

from .samples import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    PHOTOGRAPHS,
    normalise,
    picture,
    pictures,
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
    "normalise",
    "picture",
    "pictures",
    "pixels",
    "samples",
    "square",
    "suffixes",
]

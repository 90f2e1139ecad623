"""What classes are called that go by a WordNet id, as ImageNet's do and those cut out of it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timm.data import ImageNetInfo

__all__ = ["word"]


@cache
def _imagenet() -> ImageNetInfo:
    from timm.data import ImageNetInfo

    return ImageNetInfo("imagenet-1k")


def word(number: str) -> str:
    """The first of the words that ImageNet has for a class, "English springer" for "n02102040"; ""
    where the number is none of its thousand."""
    known = _imagenet()
    if number not in known.label_names():
        return ""
    return known.label_name_to_description(number).split(",")[0]

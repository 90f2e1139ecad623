"""Images with a class for every pixel: the layouts that are in use, read where they lie.

    LabelMaps         one split: names, classes, and pairs of an image and its labels
    open_label_maps   a data set's name, a folder or a zip, and a split -> `LabelMaps`

A layout is known by its folders:

    CamVid    {train,val,test}/<name>.jpg, {train,val,test}annot/<name>.png; 11 means none
    ADE20K    images/{training,validation}/<name>.jpg, annotations/.../<name>.png; 0 means none,
              k means class k - 1
    VOC       JPEGImages/<name>.jpg, SegmentationClass/<name>.png,
              ImageSets/Segmentation/{train,val}.txt; 255 means none

Folders of one's own take CamVid's form with a classes.txt beside, one name a line; 255 means none.
Read, every label is 0 to K-1 or `NO_LABEL`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .._shared.errors import HirelabError
from .images import open_image, suffixes
from .subsets import locate, open_files, quote_first

__all__ = ["NO_LABEL", "LabelMaps", "open_label_maps"]

NO_LABEL = 255
"""Of a pixel without a class, in what is read."""

CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
ADE20K = tuple(f"class {i}" for i in range(150))
"""The 150 classes without their names, which come with the data (objectInfo150.txt)."""


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """One split of images with labelled pixels.

    Attributes:
        source: folder or archive.
        split: "train", "val" or "test".
        classes: names of the K classes; a label is an index into them.
        names: path of every image inside the source.
        maps: path of the label map of each.
        fingerprint: sha256 over both, their sizes and contents or times; see `LabelledImages`.
    """

    source: Path
    split: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    maps: tuple[str, ...]
    fingerprint: str
    _files: Any
    _first: int  # the stored value of class 0
    _none: int  # the stored value of a pixel without a class

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """An image, RGB, and its labels, uint8 (H, W).

        Raises:
            HirelabError: a map of another size than its image, in colour, or with labels that are
                no class.
        """
        try:
            image = open_image(self._files.read(self.names[index]))
            stored = self._stored(index)
        except OSError as error:
            raise HirelabError(f"{self.names[index]} cannot be read: {error}") from error
        if stored.shape != (image.height, image.width):
            raise HirelabError(
                f"{self.maps[index]} has {stored.shape[1]} x {stored.shape[0]} pixels and its "
                f"image {image.width} x {image.height}: a label map has a label for every pixel."
            )
        labels = stored.astype(np.int64) - self._first
        labels[stored == self._none] = NO_LABEL
        # 255 means none everywhere, beside the layout's own value
        strange = np.unique(labels[(labels != NO_LABEL) & (stored != NO_LABEL)])
        strange = strange[(strange < 0) | (strange >= len(self.classes))]
        if len(strange):
            shown = ", ".join(str(v + self._first) for v in strange[:5])
            raise HirelabError(
                f"{self.maps[index]} has the labels {shown}, and there are {len(self.classes)} "
                f"classes, {self._first} to {self._first + len(self.classes) - 1}, and "
                f"{self._none} for none; name them all in classes.txt, or correct the map."
            )
        labels[stored == NO_LABEL] = NO_LABEL
        return image, labels.astype(np.uint8)

    def _stored(self, index: int) -> np.ndarray:
        """The values of a label map's file, (H, W)."""
        name = self.maps[index]
        try:
            found = Image.open(io.BytesIO(self._files.read(name)))
            found.load()
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise HirelabError(f"{name} is no image that can be read ({error})") from error
        if found.mode not in ("L", "P", "1") and not found.mode.startswith("I"):
            raise HirelabError(
                f"{name} has colours ({found.mode}) where each pixel's label is expected: convert "
                "colours to class numbers, 0 to K-1, in a grey or palette PNG."
            )
        return np.asarray(found).astype(np.int64)


def open_label_maps(source: str | os.PathLike[str], split: str = "train") -> LabelMaps:
    """The images and label maps of a split.

    Args:
        source: a data set's name, a folder or a zip; see this module for the layouts.
        split: "train", "val" or "test".

    Raises:
        HirelabError: nothing there, no layout that is known, no such split, an image without a
            label map.
    """
    path = locate(source)
    files = open_files(path, "a folder or a zip of images and label maps")
    contents = {
        name: content
        for name, content in files.listing()
        if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
    }
    for layout in (_voc, _ade20k, _camvid):
        found = layout(contents, files, split)
        if found is None:
            continue
        pairs, names, first, none = found
        if not pairs:
            raise HirelabError(f"{path} has no image of the split {split!r}")
        bare = [image for image, labels in pairs if labels not in contents]
        if bare:
            raise HirelabError(
                f"{path}: {len(bare)} of {len(pairs)} images of {split!r} have no label map "
                f"({quote_first(bare)}): add them or remove the images"
            )
        digest = hashlib.sha256()
        for pair in pairs:
            for name in pair:
                digest.update(f"{name}\0{contents[name]}\n".encode())
        images, maps = zip(*pairs, strict=True)
        return LabelMaps(path, split, names, images, maps, digest.hexdigest(), files, first, none)
    raise HirelabError(
        f"{path} has no images with label maps in a layout that is known: "
        "{train,val,test}/ beside {train,val,test}annot/ (CamVid), images/ beside annotations/ "
        "(ADE20K), or JPEGImages/ beside SegmentationClass/ (VOC)"
    )


Found = tuple[list[tuple[str, str]], tuple[str, ...], int, int]
"""Pairs of image and label map, classes, the stored values of class 0 and of none."""


def _camvid(contents: Mapping[str, str], files: Any, split: str) -> Found | None:
    images = _images(contents, split)
    top = _top(contents, f"{split}annot")
    if top is None:
        known = [s for s in ("train", "val", "test") if _top(contents, f"{s}annot") is not None]
        if known:
            raise HirelabError(f"there is no split {split!r}; there is {', '.join(known)}")
        return None
    pairs = [(n, f"{top}/{PurePosixPath(n).stem}.png") for n in images]
    own = [name for name in contents if PurePosixPath(name).name == "classes.txt"]
    if own:
        return pairs, _names(files.read(own[0])), 0, NO_LABEL
    return pairs, CAMVID, 0, len(CAMVID)


def _ade20k(contents: Mapping[str, str], files: Any, split: str) -> Found | None:
    top = _top(contents, "annotations")
    if top is None or _top(contents, "images") is None:
        return None
    folder = {"train": "training", "val": "validation"}.get(split, split)
    images = [n for n in _images(contents, folder) if "/images/" in f"/{n}"]
    pairs = [(n, f"{top}/{folder}/{PurePosixPath(n).stem}.png") for n in images]
    table = [name for name in contents if PurePosixPath(name).name == "objectInfo150.txt"]
    names = _object_names(files.read(table[0])) if table else ADE20K
    return pairs, names, 1, 0


def _voc(contents: Mapping[str, str], files: Any, split: str) -> Found | None:
    top = _top(contents, "SegmentationClass")
    if top is None:
        return None
    lists = [n for n in contents if n.endswith(f"ImageSets/Segmentation/{split}.txt")]
    if not lists:
        raise HirelabError(f"there is no ImageSets/Segmentation/{split}.txt")
    stems = files.read(lists[0]).decode(errors="replace").split()
    images = _top(contents, "JPEGImages")
    return [(f"{images}/{s}.jpg", f"{top}/{s}.png") for s in stems], VOC, 0, NO_LABEL


def _top(contents: Mapping[str, str], folder: str) -> str | None:
    """The path of the first folder of that name, or None."""
    for name in contents:
        parts = PurePosixPath(name).parts
        parts = parts if name.endswith("/") else parts[:-1]
        if folder in parts:
            return "/".join(parts[: parts.index(folder) + 1])
    return None


def _images(contents: Mapping[str, str], folder: str) -> list[str]:
    """The images that lie in a folder of that name, not deeper, sorted."""
    found = (
        name
        for name in contents
        if PurePosixPath(name).parent.name == folder
        and "annotations" not in PurePosixPath(name).parts
        and PurePosixPath(name).suffix.lower() in suffixes()
    )
    return sorted(found)


def _names(content: bytes) -> tuple[str, ...]:
    """Names of classes, one a line."""
    lines = (line.strip() for line in content.decode(errors="replace").splitlines())
    return tuple(line for line in lines if line)


def _object_names(content: bytes) -> tuple[str, ...]:
    """ADE20K's names: the first word of the last column of its table."""
    rows: Sequence[str] = content.decode(errors="replace").splitlines()[1:]
    return tuple(row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip())

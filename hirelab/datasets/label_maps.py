"""Images with a class for every pixel: the layouts that are in use, read where they lie.

    LabelMaps         one split: names, classes, and pairs of an image and its labels
    open_label_maps   a data set's name, a folder or a zip, and a split -> `LabelMaps`

A layout is known by its folders:

    CamVid    {train,val,test}/<name>.jpg, {train,val,test}annot/<name>.png; 11 means none
    ADE20K    images/{training,validation}/<name>.jpg, annotations/.../<name>.png; 0 means none,
              k means class k - 1
    VOC       JPEGImages/<name>.jpg, SegmentationClass/<name>.png,
              ImageSets/Segmentation/{train,val}.txt; 255 means none

Folders of one's own take one of these forms, best CamVid's, with a classes.txt beside, one name a
line; none is then 255, in ADE20K's form still 0. Read, every label is 0 to K-1 or `NO_LABEL`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from .._shared.errors import HirelabError
from .images import open_image, open_values, suffixes
from .subsets import locate, open_files, quote_first, refuse, visible

__all__ = ["NO_LABEL", "LabelMaps", "label_map_splits", "open_label_maps"]

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
        except (OSError, ValueError) as error:
            raise HirelabError(f"{self.names[index]} cannot be read: {error}") from error
        return image, self.labels(index, image.size)

    def labels(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """The labels of an image of this (width, height), uint8 (H, W).

        Raises:
            HirelabError: a map of another size, in colour, or with labels that are no class.
        """
        stored = self._stored(index)
        if stored.shape != size[::-1]:
            raise HirelabError(
                f"{self.maps[index]} has {stored.shape[1]} x {stored.shape[0]} pixels and its "
                f"image {size[0]} x {size[1]}: a label map has a label for every pixel; save it "
                "in the image's size, without smoothing."
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
        return labels.astype(np.uint8)

    def _stored(self, index: int) -> np.ndarray:
        """The values of a label map's file, (H, W)."""
        name = self.maps[index]
        try:
            found = open_values(self._files.read(name), name)
        except OSError as error:
            raise HirelabError(f"{name} cannot be read ({error}): get a fresh copy") from error
        if found.mode not in ("L", "P", "1") and not found.mode.startswith("I"):
            raise HirelabError(
                f"{name} has colours ({found.mode}) where each pixel's label is expected: convert "
                "colours to class numbers, 0 to K-1, in a grey or palette PNG."
            )
        return np.asarray(found).astype(np.int64)


def open_label_maps(
    source: str | os.PathLike[str],
    split: str = "train",
    wrong: Callable[[str], None] = refuse,
) -> LabelMaps:
    """The images and label maps of a split.

    Args:
        source: a data set's name, a folder or a zip; see this module for the layouts.
        split: "train", "val" or "test".
        wrong: takes a sentence about images or maps that are missing; what comes back is without
            them. By default the first one is raised.

    Raises:
        HirelabError: nothing there, no layout that is known, no such split, classes.txt without a
            name or with too many; and by default an image without a label map, or one listed and
            missing.
    """
    path = locate(source)
    files = open_files(path, "a folder or a zip of images and label maps")
    contents = visible(files)
    found = _find(contents, files)
    if found is None:
        raise HirelabError(
            f"{path} has no images with label maps in a layout that is known: "
            "{train,val,test}/ beside {train,val,test}annot/ (CamVid), images/{training,validation}"
            "/ beside annotations/ (ADE20K), or JPEGImages/ beside SegmentationClass/ (VOC)"
        )
    if split not in found.pairs:
        raise HirelabError(
            f"{path}: there is no split {split!r}; there is {', '.join(found.pairs)}"
        )
    pairs = found.pairs[split]
    for which, what in ((0, "are listed and not there"), (1, "have no label map")):
        lacking = [pair[0] for pair in pairs if pair[which] not in contents]
        if lacking:
            wrong(
                f"{path}: {len(lacking)} of {len(pairs)} images of {split!r} {what} "
                f"({quote_first(lacking)}): add them or remove the images"
            )
        pairs = [pair for pair in pairs if pair[which] in contents]
    if not found.pairs[split]:
        raise HirelabError(f"{path} has no image of the split {split!r}")
    digest = hashlib.sha256()
    for pair in pairs:
        for name in pair:
            digest.update(f"{name}\0{contents[name]}\n".encode())
    images, maps = tuple(image for image, _ in pairs), tuple(labels for _, labels in pairs)
    return LabelMaps(
        *(path, split, found.classes, images, maps, digest.hexdigest()),
        *(files, found.first, found.none),
    )


def label_map_splits(files: Any) -> tuple[str, ...]:
    """The splits of which there are label maps; () where there is no layout of them.

    Args:
        files: as `subsets.open_files` gives them.

    Raises:
        HirelabError: classes.txt is without a name or has too many.
    """
    found = _find(visible(files), files)
    return tuple(found.pairs) if found else ()


@dataclass(frozen=True)
class _Found:
    """What a layout has: {split: pairs of image and label map}, the classes, and the stored values
    of class 0 and of none."""

    pairs: dict[str, list[tuple[str, str]]]
    classes: tuple[str, ...]
    first: int
    none: int


def _find(contents: Mapping[str, str], files: Any) -> _Found | None:
    """The layout of a source, read with the class names that lie beside."""
    for layout in (_voc, _ade20k, _camvid):
        if (found := layout(contents, files)) is not None:
            break
    else:
        return None
    own = [name for name in contents if PurePosixPath(name).name == "classes.txt"]
    if not own:
        return found
    names = _names(files.read(own[0]))
    if not 1 <= len(names) <= NO_LABEL:
        raise HirelabError(
            f"{own[0]} has {len(names)} names of classes: give 1 to {NO_LABEL}, one a line, in the "
            f"order of their labels ({NO_LABEL} itself means none)"
        )
    # 11 means none of CamVid's own classes only
    return _Found(found.pairs, names, found.first, found.none if found.first else NO_LABEL)


def _camvid(contents: Mapping[str, str], files: Any) -> _Found | None:
    pairs = {}
    for split in ("train", "val", "test"):
        if (top := _top(contents, f"{split}annot")) is None:
            continue
        by_stem = {PurePosixPath(name).stem: name for name in _images(contents, f"{split}annot")}
        stems = {name: PurePosixPath(name).stem for name in _images(contents, split)}
        pairs[split] = [(n, by_stem.get(s, f"{top}/{s}.png")) for n, s in stems.items()]
    return _Found(pairs, CAMVID, 0, len(CAMVID)) if pairs else None


def _ade20k(contents: Mapping[str, str], files: Any) -> _Found | None:
    top, pairs = _top(contents, "annotations"), {}
    for split, folder in (("train", "training"), ("val", "validation")):
        # COCO has folders called so too, without these inside
        if top is None or _top(contents, folder, f"{top}/") is None:
            continue
        images = [n for n in _images(contents, folder) if "/images/" in f"/{n}"]
        pairs[split] = [(n, f"{top}/{folder}/{PurePosixPath(n).stem}.png") for n in images]
    if not pairs:
        return None
    table = [name for name in contents if PurePosixPath(name).name == "objectInfo150.txt"]
    names = _object_names(files.read(table[0])) if table else ADE20K
    return _Found(pairs, names, 1, 0)


def _voc(contents: Mapping[str, str], files: Any) -> _Found | None:
    if (top := _top(contents, "SegmentationClass")) is None:
        return None
    images, pairs = _top(contents, "JPEGImages"), {}
    for split in ("train", "val"):
        for table in (n for n in contents if n.endswith(f"ImageSets/Segmentation/{split}.txt")):
            stems = files.read(table).decode(errors="replace").split()
            pairs[split] = [(f"{images}/{s}.jpg", f"{top}/{s}.png") for s in stems]
            break
    if not pairs:
        raise HirelabError(
            f"{top} has no ImageSets/Segmentation/train.txt or val.txt beside: list the images of "
            "each split there, one name a line"
        )
    return _Found(pairs, VOC, 0, NO_LABEL)


def _top(contents: Mapping[str, str], folder: str, below: str = "") -> str | None:
    """The path of the first folder of that name, or None."""
    for name in contents:
        if not name.startswith(below):
            continue
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

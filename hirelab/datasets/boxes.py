"""Images with boxes and masks in COCO's form: one JSON file beside the images.

    BoxedImages    one split: images, classes, and what is on each
    open_boxes     a data set's name, a folder or a zip, and a split -> `BoxedImages`

Where the JSON files are named by split (``instances_train2017.json``, ``val.json``), a split is
that file. A source with one JSON file has no split; then every fifth image by its id is "val" and
the others "train".

Ids have holes and people leave fields out. What has one sensible meaning is read so and counted in
`BoxedImages.notes` (a box over the image's edge is cut, an empty one dropped); the rest is an
error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from .._shared.errors import HirelabError
from .images import open_image
from .subsets import locate, open_files, quote_first

__all__ = ["Box", "BoxedImages", "open_boxes"]


@dataclass(frozen=True, eq=False)
class Box:
    """One object.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image, x2 > x1 and y2 > y1.
        label: index into the classes.
        shape: COCO's segmentation, as it stands: polygons, or a run-length code; None without one.
        crowd: many objects in one: not trained on, and in evaluation neither found nor missed.
        area: of the mask, in pixels, by the data.
    """

    box: tuple[float, float, float, float]
    label: int
    shape: Any
    crowd: bool
    area: float


@dataclass(frozen=True, eq=False)
class BoxedImages:
    """One split of images with boxes.

    Attributes:
        source: folder or archive.
        split: "train" or "val".
        classes: names of the categories, by their ids; a label is an index into them.
        category_ids: COCO's id of each class.
        ids: COCO's id of every image.
        names: path of every image inside the source.
        sizes: (width, height) of every image, by the JSON.
        objects: of every image; an image may have none.
        notes: {what was put right: how often}.
        fingerprint: sha256 over the JSON and the images' sizes and contents or times.
    """

    source: Path
    split: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    ids: tuple[int, ...]
    names: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    objects: tuple[tuple[Box, ...], ...]
    notes: dict[str, int]
    fingerprint: str
    _files: Any

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Image.Image:
        """An image, RGB.

        Raises:
            HirelabError: it cannot be read, or has another size than the JSON says.
        """
        name = self.names[index]
        try:
            image = open_image(self._files.read(name))
        except OSError as error:
            raise HirelabError(f"{name} cannot be read: {error}") from error
        if image.size != self.sizes[index]:
            width, height = self.sizes[index]
            raise HirelabError(
                f"{name} has {image.width} x {image.height} pixels and by the JSON {width} x "
                f"{height}: its boxes would be in the wrong places; correct one of them."
            )
        return image

    def masks(self, index: int) -> np.ndarray:
        """uint8 (N, H, W): the mask of every object of an image, in their order.

        An object without a segmentation has its box.

        Raises:
            HirelabError: a segmentation that is neither polygons nor a run-length code.
        """
        width, height = self.sizes[index]
        objects = self.objects[index]
        found = np.zeros((len(objects), height, width), np.uint8)
        for mask, one in zip(found, objects, strict=True):
            mask[:] = shape_mask(one.shape, one.box, height, width, self.names[index])
        return found


def shape_mask(
    shape: Any, box: Sequence[float], height: int, width: int, name: str = "an image"
) -> np.ndarray:
    """COCO's segmentation as uint8 (height, width); without one, its box.

    Raises:
        HirelabError: it is neither polygons nor a run-length code of this size.
    """
    from pycocotools import mask as coco

    if not shape:
        x1, y1, x2, y2 = box
        shape = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    try:
        if isinstance(shape, list):
            codes = coco.merge(coco.frPyObjects(shape, height, width))
        elif isinstance(shape["counts"], list):
            codes = coco.frPyObjects(shape, *shape["size"])
        else:
            codes = shape
        mask = coco.decode(codes)
        if mask.shape != (height, width):
            raise ValueError(f"it is {mask.shape[1]} x {mask.shape[0]} pixels")
    # pycocotools raises all kinds
    except Exception as error:
        raise HirelabError(
            f"A segmentation of {name} ({width} x {height}) is neither polygons of at least three "
            f"corners nor a run-length code of that size ({error}): correct the JSON."
        ) from error
    return mask


def open_boxes(source: str | os.PathLike[str], split: str = "train") -> BoxedImages:
    """The images of a split with their boxes.

    Args:
        source: a data set's name, a folder or a zip with images and JSON files in COCO's form.
        split: "train" or "val".

    Raises:
        HirelabError: nothing there, no such JSON or one that is not COCO's form (saying what it
            lacks), an image listed and missing, an object of a category or image that is not
            listed.
    """
    path = locate(source)
    files = open_files(path, "a folder or a zip of images and a JSON file in COCO's form")
    contents = dict(files.listing())
    table, whole = _json_of(contents, split, path)
    text = files.read(table)
    content = _parsed(text, table)
    classes, label = _categories(content["categories"], table)
    images = sorted(content["images"], key=lambda one: one["id"])
    known = {one["id"]: one for one in images}
    if len(known) < len(images):
        raise HirelabError(f"{table}: two images have the same id: give each its own")
    notes: dict[str, int] = {}
    objects: dict[int, list[Box]] = {number: [] for number in known}
    for one in content["annotations"]:
        image = known.get(one.get("image_id"))
        if image is None or one.get("category_id") not in label:
            raise HirelabError(
                f"{table}: annotation {one.get('id')} is of image {one.get('image_id')} and "
                f"category {one.get('category_id')}, and one of them is not listed: add it, or "
                "remove the annotation"
            )
        if (box := _box(one, image, table, notes)) is not None:
            objects[image["id"]].append(
                Box(
                    box,
                    label[one["category_id"]],
                    one.get("segmentation"),
                    bool(one.get("iscrowd", 0)),
                    float(one.get("area") or (box[2] - box[0]) * (box[3] - box[1])),
                )
            )
    if whole:  # one file for all: a split by the order of ids, which nothing else changes
        images = [one for i, one in enumerate(images) if (i % 5 == 4) == (split == "val")]
    places = _places(contents, images, split, table)
    digest = hashlib.sha256(text)
    for name in places:
        digest.update(f"{name}\0{contents[name]}\n".encode())
    return BoxedImages(
        path,
        split,
        classes,
        tuple(label),
        tuple(one["id"] for one in images),
        tuple(places),
        tuple((one["width"], one["height"]) for one in images),
        tuple(tuple(objects[one["id"]]) for one in images),
        notes,
        digest.hexdigest(),
        files,
    )


def _json_of(contents: Mapping[str, str], split: str, path: Path) -> tuple[str, bool]:
    """The JSON file of a split, and whether it is one for all splits."""
    if split not in ("train", "val"):
        raise HirelabError(f"split is {split!r}; boxes have the splits 'train' and 'val'")
    tables = [
        name
        for name in contents
        if name.endswith(".json") and not PurePosixPath(name).name.startswith(".")
    ]
    own = [n for n in tables if split in PurePosixPath(n).stem.replace("_", " ").lower()]
    # captions and keypoints lie beside the instances in COCO as published
    own = [n for n in own if "instances" in n] or own
    if own:
        return min(own, key=len), False
    instances = [n for n in tables if "instances" in n] or tables
    if len(instances) == 1:
        return instances[0], True
    found = quote_first(tables) or "none"
    raise HirelabError(
        f"{path} needs a JSON file in COCO's form whose name has {split!r} in it, or one alone; "
        f"it has {found}"
    )


def _parsed(text: bytes, table: str) -> dict[str, Any]:
    """The content of a JSON file of COCO's form."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise HirelabError(f"{table} is no JSON ({error}): get a fresh copy") from error
    wanted = {
        "images": ("id", "file_name", "width", "height"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    lacking = [n for n in wanted if not isinstance(content, dict) or n not in content]
    if lacking:
        raise HirelabError(
            f"{table} lacks {' and '.join(lacking)}: COCO's form has images, annotations and "
            "categories"
        )
    for part, names in wanted.items():
        for number, one in enumerate(content[part]):
            missing = [n for n in names if not isinstance(one, dict) or n not in one]
            if missing:
                raise HirelabError(
                    f"{table}: number {number} of {part} lacks {' and '.join(missing)}"
                )
    return content


def _categories(
    categories: Sequence[Mapping[str, Any]], table: str
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names by id, and {id: label}. COCO's ids have holes; labels have none."""
    ordered = sorted(categories, key=lambda one: one["id"])
    label = {one["id"]: i for i, one in enumerate(ordered)}
    if not ordered or len(label) < len(ordered):
        raise HirelabError(f"{table} has no categories, or two with the same id")
    return tuple(str(one["name"]) for one in ordered), label


def _box(
    one: Mapping[str, Any], image: Mapping[str, Any], table: str, notes: dict[str, int]
) -> tuple[float, float, float, float] | None:
    """The corners of an annotation's box inside its image; None where nothing of it is there."""
    try:
        x, y, width, height = map(float, one["bbox"])
    except (TypeError, ValueError) as error:
        raise HirelabError(
            f"{table}: the bbox of annotation {one.get('id')} is {one['bbox']!r}; it has four "
            "numbers: x, y, width, height"
        ) from error
    if not np.isfinite([x, y, width, height]).all():
        raise HirelabError(f"{table}: the bbox of annotation {one.get('id')} is {one['bbox']!r}")
    x1, x2 = (min(max(v, 0.0), float(image["width"])) for v in (x, x + width))
    y1, y2 = (min(max(v, 0.0), float(image["height"])) for v in (y, y + height))
    if x2 - x1 <= 0 or y2 - y1 <= 0:
        notes["empty boxes dropped"] = notes.get("empty boxes dropped", 0) + 1
        return None
    # half a pixel over the edge is how rounded coordinates look
    if max(x1 - x, y1 - y, x + width - x2, y + height - y2) > 0.5:
        notes["boxes cut at the edge"] = notes.get("boxes cut at the edge", 0) + 1
    return x1, y1, x2, y2


def _places(
    contents: Mapping[str, str], images: Sequence[Mapping[str, Any]], split: str, table: str
) -> list[str]:
    """Where each listed image lies."""
    by_name: dict[str, list[str]] = {}
    for name in contents:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    places, missing = [], []
    for one in images:
        file = PurePosixPath(str(one["file_name"]))
        found = [n for n in by_name.get(file.name, []) if f"/{n}".endswith(f"/{file}")]
        # of two images of one name in two splits, the one in this split's folder
        found = [n for n in found if split in PurePosixPath(n).parent.name] or found
        if found:
            places.append(found[0])
        else:
            missing.append(str(file))
    if missing:
        raise HirelabError(
            f"{table} lists {len(missing)} of {len(images)} images that are not there "
            f"({quote_first(missing)}): add them, or remove them from the JSON"
        )
    return places

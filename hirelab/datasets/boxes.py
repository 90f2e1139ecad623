"""Images with boxes and masks in COCO's form: one JSON file beside the images.

    BoxedImages    one split: images, classes, and what is on each
    open_boxes     a data set's name, a folder or a zip, and a split -> `BoxedImages`

Where the JSON files are named by split (``instances_train2017.json``, ``val.json``), or lie in
folders named so, a split is that file. A source with one JSON file of no split's name has no split;
then every fifth image by its id is "val" and the others "train".

Ids have holes and people leave fields out. What has one sensible meaning is read so and counted in
`BoxedImages.notes` (a box over the image's edge is cut, an empty one dropped); the rest is an
error.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from .._shared.errors import HirelabError, brief, first_line
from .._shared.reading import parse_json
from .images import MAX_PIXELS, open_image
from .subsets import locate, open_files, quote_first, refuse, visible

__all__ = ["Box", "BoxedImages", "has_boxes", "open_boxes"]

FAR = 10
"""A polygon's corners lie at most so many times the image's longer side away."""

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
"""The words in a JSON file's name that make it a split's."""


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
        except (OSError, ValueError) as error:
            raise HirelabError(f"{name} cannot be read: {error}") from error
        self.check_size(index, image.size)
        return image

    def check_size(self, index: int, size: tuple[int, int]) -> None:
        """Compares an image's (width, height) with the JSON.

        Raises:
            HirelabError: they differ.
        """
        if size != self.sizes[index]:
            (wide, high), (width, height) = size, self.sizes[index]
            raise HirelabError(
                f"{self.names[index]} has {wide} x {high} pixels and by the JSON {width} x "
                f"{height}: its boxes would be in the wrong places; correct one of them."
            )

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
    if not shape:
        x1, y1, x2, y2 = box
        shape = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    try:
        if isinstance(shape, list):
            return _polygon_mask(shape, height, width)
        return _run_length_mask(shape, height, width)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise HirelabError(
            f"A segmentation of {name} ({width} x {height}) is neither polygons of at least three "
            f"corners nor a run-length code of that size ({first_line(error)}): correct the JSON."
        ) from error


def _polygon_mask(polygons: list[Any], height: int, width: int) -> np.ndarray:
    """The union of polygons [x, y, x, y, ...] as uint8 (height, width).

    Raises:
        ValueError, TypeError: fewer than three corners, or corners far outside of the image:
            pycocotools trusts them and would write beyond its memory.
    """
    from pycocotools import mask as coco

    far = FAR * max(height, width)
    for one in polygons:
        if not isinstance(one, list) or len(one) < 6 or len(one) % 2:
            raise ValueError(f"a polygon is {brief(one)}")
        for value in one:
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not abs(value) < far
            ):
                raise ValueError(f"a corner is at {brief(value)}")
    mask = coco.decode(coco.frPyObjects(polygons, height, width))
    return mask.max(axis=2)


def _run_length_mask(code: Any, height: int, width: int) -> np.ndarray:
    """A run-length code {"size": [height, width], "counts": runs of 0 and 1 in turn, down the
    columns, as a list or packed into a string} as uint8 (height, width).

    Raises:
        ValueError, TypeError, KeyError: anything else, or runs that do not fill the size.
    """
    counts = code["counts"]
    if list(code["size"]) != [height, width]:
        raise ValueError(f"its size is {brief(code['size'])}")
    if not isinstance(counts, list):
        counts = _unpacked(counts.encode("ascii") if isinstance(counts, str) else counts)
    if any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in counts):
        raise ValueError("a run is no whole number from 0")
    if sum(counts) != height * width:
        raise ValueError(f"its runs are {brief(sum(counts))} pixels")
    runs = np.repeat(np.arange(len(counts), dtype=np.int64) % 2, counts)
    return np.ascontiguousarray(runs.astype(np.uint8).reshape(width, height).T)


def _unpacked(text: bytes) -> list[int]:
    """The runs of COCO's packed run-length code: six bits a character, of which five count and one
    says that more follow, the lowest first; from the third run on the difference to the run two
    before. Source: pycocotools' rleFrString."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"it has the character {chr(character)!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # the sign
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("it is cut short")
    return runs


def open_boxes(
    source: str | os.PathLike[str],
    split: str = "train",
    wrong: Callable[[str], None] = refuse,
) -> BoxedImages:
    """The images of a split with their boxes.

    Args:
        source: a data set's name, a folder or a zip with images and JSON files in COCO's form.
        split: "train" or "val".
        wrong: takes a sentence about an annotation or image that cannot be used; what comes back
            is without it. By default the first one is raised.

    Raises:
        HirelabError: nothing there, no such JSON or one that is not COCO's form (saying what it
            lacks), no image of that split; and by default an image listed and missing, a bad box,
            an object of a category or image that is not listed.
    """
    path = locate(source)
    files = open_files(path, "a folder or a zip of images and a JSON file in COCO's form")
    contents = visible(files)
    table, whole = _json_of(contents, split, path)
    text = _read(files, table)
    content = _parsed(text, table, wrong)
    classes, label = _categories(content["categories"], table)
    known = _by_id(content["images"], "images", table)
    images = [known[number] for number in sorted(known)]
    if whole:  # one file for all: a split by the order of ids, which nothing else changes
        images = [one for i, one in enumerate(images) if (i % 5 == 4) == (split == "val")]
    if not images:
        few = f": it lists {len(known)}, and every fifth is of 'val'" if whole else ""
        raise HirelabError(f"{table} has no image of the split {split!r}{few}; add images")
    notes: dict[str, int] = {}
    objects: dict[int, list[Box]] = {one["id"]: [] for one in images}
    for one in content["annotations"]:
        number, category = one["image_id"], one["category_id"]
        if not all(_is_whole(i) for i in (number, category)) or not (
            number in known and category in label
        ):
            wrong(
                f"{table}: annotation {brief(one.get('id'))} is of image {brief(number)} and "
                f"category {brief(category)}, and one of them is not listed: add it, or remove the "
                "annotation"
            )
        elif number in objects and (box := _box(one, known[number], table, notes, wrong)):
            objects[number].append(
                Box(
                    box,
                    label[category],
                    one.get("segmentation"),
                    bool(one.get("iscrowd", 0)),
                    _area(one, box),
                )
            )
    places = _places(contents, images, split, table, wrong)
    images = [one for one in images if one["id"] in places]
    digest = hashlib.sha256(text)
    for name in places.values():
        digest.update(f"{name}\0{contents[name]}\n".encode())
    return BoxedImages(
        path,
        split,
        classes,
        tuple(label),
        tuple(one["id"] for one in images),
        tuple(places.values()),
        tuple((one["width"], one["height"]) for one in images),
        tuple(tuple(objects[one["id"]]) for one in images),
        notes,
        digest.hexdigest(),
        files,
    )


def has_boxes(files: Any) -> bool:
    """Whether a JSON file is meant to be of COCO's form, right or not: by its name, or by boxes.

    Args:
        files: as `subsets.open_files` gives them.
    """
    tables = _tables(visible(files))
    return any("instances" in name or b'"bbox"' in _read(files, name) for name in tables)


def _read(files: Any, name: str) -> bytes:
    try:
        return files.read(name)
    except OSError as error:
        raise HirelabError(f"{name} cannot be read ({error}): get a fresh copy") from error


def _tables(names: Iterable[str]) -> dict[str, str]:
    """{JSON file: its split, "" where neither its name nor its folder has a split's}."""
    found = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() == ".json":
            found[name] = next(filter(None, map(_split, (path.stem, path.parent.name))), "")
    # captions and keypoints lie beside the instances in COCO as published
    return {n: s for n, s in found.items() if "instances" in n} or found


def _split(name: str) -> str:
    """The split that a file or folder is named by: a word of its name, "test" included."""
    words = re.findall("[a-z]+", name.lower())
    named = {"test": ("test",), **SPLITS}
    return next((split for split, some in named.items() if set(some) & set(words)), "")


def _json_of(contents: Mapping[str, str], split: str, path: Path) -> tuple[str, bool]:
    """The JSON file of a split, and whether it is one for all splits."""
    if split not in SPLITS:
        raise HirelabError(f"split is {split!r}; boxes have the splits 'train' and 'val'")
    tables = _tables(contents)
    if own := [name for name, of in tables.items() if of == split]:
        return min(own, key=len), False
    # one that is named by the other split is not cut: its own split is all of it
    if len(tables) == 1 and "" in tables.values():
        return next(iter(tables)), True
    found = quote_first(list(tables)) or "none"
    raise HirelabError(
        f"{path} needs a JSON file in COCO's form whose name has {split!r} in it, or one alone "
        f"without a split in its name; it has {found}"
    )


def _parsed(text: bytes, table: str, wrong: Callable[[str], None]) -> dict[str, Any]:
    """The content of a JSON file of COCO's form, without the annotations that lack a field."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise HirelabError(f"{table} is no JSON ({first_line(error)}): get a fresh copy") from error
    wanted = {
        "images": ("id", "file_name", "width", "height"),
        "categories": ("id", "name"),
        "annotations": ("image_id", "category_id", "bbox"),
    }
    is_form = isinstance(content, dict)
    lacking = [n for n in wanted if not is_form or not isinstance(content.get(n), list)]
    if lacking:
        raise HirelabError(
            f"{table} lacks {' and '.join(lacking)}: COCO's form has lists of images, annotations "
            "and categories"
        )
    for part, names in wanted.items():
        kept = []
        for number, one in enumerate(content[part]):
            missing = [n for n in names if not isinstance(one, dict) or n not in one]
            if missing:
                # without its fields an image or category cannot be told apart from another
                tell = wrong if part == "annotations" else refuse
                tell(f"{table}: number {number} of {part} lacks {' and '.join(missing)}: add it")
            else:
                kept.append(one)
        content[part] = kept
    for one in content["images"]:
        size = one["width"], one["height"]
        if not all(_is_whole(side) and 0 < side <= MAX_PIXELS for side in size):
            raise HirelabError(
                f"{table}: image {brief(one['id'])} has width and height {brief(size[0])} and "
                f"{brief(size[1])}; they are its pixels, whole numbers from 1"
            )
    return content


def _is_whole(value: Any) -> bool:
    """Whether a JSON value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _by_id(some: Sequence[dict[str, Any]], part: str, table: str) -> dict[int, dict[str, Any]]:
    """{id: image or category}."""
    for one in some:
        if not _is_whole(one["id"]):
            raise HirelabError(
                f"{table}: an id of {part} is {brief(one['id'])}; give whole numbers"
            )
    found = {one["id"]: one for one in some}
    if len(found) < len(some):
        raise HirelabError(f"{table}: two of {part} have the same id: give each its own")
    return found


def _categories(
    categories: Sequence[dict[str, Any]], table: str
) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names by id, and {id: label}. COCO's ids have holes; labels have none."""
    known = _by_id(categories, "categories", table)
    if not known:
        raise HirelabError(f"{table} has no categories: list one for each class of object")
    label = {number: i for i, number in enumerate(sorted(known))}
    return tuple(str(known[number]["name"]) for number in label), label


def _box(
    one: Mapping[str, Any],
    image: Mapping[str, Any],
    table: str,
    notes: dict[str, int],
    wrong: Callable[[str], None],
) -> tuple[float, float, float, float] | None:
    """The corners of an annotation's box inside its image; None where nothing of it is there."""
    try:
        x, y, width, height = map(float, one["bbox"])
        if not np.isfinite([x, y, width, height]).all():
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        wrong(
            f"{table}: the bbox of annotation {brief(one.get('id'))} is {brief(one['bbox'])}; it "
            "has four numbers: x, y, width, height"
        )
        return None
    x1, x2 = (min(max(v, 0.0), float(image["width"])) for v in (x, x + width))
    y1, y2 = (min(max(v, 0.0), float(image["height"])) for v in (y, y + height))
    if x2 - x1 <= 0 or y2 - y1 <= 0:
        notes["empty boxes dropped"] = notes.get("empty boxes dropped", 0) + 1
        return None
    # half a pixel over the edge is how rounded coordinates look
    if max(x1 - x, y1 - y, x + width - x2, y + height - y2) > 0.5:
        notes["boxes cut at the edge"] = notes.get("boxes cut at the edge", 0) + 1
    return x1, y1, x2, y2


def _area(one: Mapping[str, Any], box: tuple[float, float, float, float]) -> float:
    """The area that an annotation states; that of its box where it states none."""
    stated = one.get("area")
    if isinstance(stated, int | float) and 0 < stated <= MAX_PIXELS:
        return float(stated)
    return (box[2] - box[0]) * (box[3] - box[1])


def _places(
    contents: Mapping[str, str],
    images: Sequence[Mapping[str, Any]],
    split: str,
    table: str,
    wrong: Callable[[str], None],
) -> dict[int, str]:
    """{id: where the image lies} of the listed images that are there."""
    by_name: dict[str, list[str]] = {}
    for name in contents:
        by_name.setdefault(PurePosixPath(name).name, []).append(name)
    places, missing = {}, []
    for one in images:
        file = PurePosixPath(str(one["file_name"]))
        found = [n for n in by_name.get(file.name, []) if f"/{n}".endswith(f"/{file}")]
        # of two images of one name in two splits, the one in this split's folder
        found = [n for n in found if _split(PurePosixPath(n).parent.name) == split] or found
        if found:
            places[one["id"]] = found[0]
        else:
            missing.append(str(file))
    if missing:
        wrong(
            f"{table} lists {len(missing)} of {len(images)} images that are not there "
            f"({quote_first(missing)}): add them, or remove them from the JSON"
        )
    return places

"""What data sets there are, and whether one is whole.

listing  what is known by name, what it costs, where it is, and its terms
check    a name, folder or zip -> `DatasetReport`: what it holds and what is wrong with it
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.tables import table
from .boxes import SPLITS, BoxedImages, has_boxes, open_boxes, shape_mask
from .images import open_image, suffixes
from .label_maps import NO_LABEL, LabelMaps, label_map_splits, open_label_maps
from .subsets import (
    DATA_SETS,
    DataSet,
    Layout,
    find_data_set,
    layout,
    locate,
    open_files,
    quote_first,
    visible,
)
from .words import word

__all__ = ["DatasetReport", "Part", "check", "listing"]

SHOWN = 20
"""Classes that a report lists one by one, of more the most and the least frequent; and problems."""

STRIDE = 32
"""Pixels of an image that the last stage of a network sees as one."""


def listing() -> str:
    """The data sets known by name: what they are, what they cost, where they are; their terms."""
    rows = [("name", "what", "task", "classes", "images", "about MB", "where")]
    terms: dict[str, list[str]] = {}
    for data in DATA_SETS.values():
        terms.setdefault(data.terms, []).append(data.name)
        absent = "made here when first used" if data.make else "not here"
        mb = f"{data.megabytes:,}" if data.megabytes else "?"
        counts, where = (f"{data.classes:,}", f"{data.images:,}", mb), find_data_set(data)
        rows.append((data.name, data.title, ", ".join(data.tasks), *counts, str(where or absent)))
    notes = [f"terms of {', '.join(names)}: {text}" for text, names in terms.items()]
    return "\n".join([table(rows, "lllrrrl"), "", *notes])


@dataclass(frozen=True)
class Part:
    """What a source holds for one task.

    Attributes:
        task: "classes", "boxes" or "pixels".
        images: {split: how many, readable or not}.
        counts: {split: {class: its images, its objects without crowds, or its pixels}}.
        empty: {split: images without an object, or pixels without a class}; {} of class folders.
    """

    task: str
    images: dict[str, int]
    counts: dict[str, dict[str, int]]
    empty: dict[str, int]

    def __str__(self) -> str:
        return "\n".join([self._line(split) for split in self.images] + self._rows())

    def _line(self, split: str) -> str:
        """What a split holds, in a line."""
        of_class, empty = self.counts[split], self.empty.get(split, 0)
        total, classes = sum(of_class.values()), f"{len(of_class):,} classes"
        shown = [self._shown(split, label) for label in sorted(of_class, key=of_class.__getitem__)]
        each = shown[0] if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}"
        line = f"{split}: {self.images[split]:,} images"
        if self.task == "classes":
            return f"{line} of {classes}, {each} of each"
        if self.task == "boxes":
            return (
                f"{line}, {total:,} objects of {classes}, {each} of each; images without: {empty:,}"
            )
        none = _percent(empty, total + empty)
        return f"{line}, pixels of {classes}, {each} each; {none} without a class"

    def _rows(self) -> list[str]:
        """A row for every class, or for those with most and least."""
        pooled: Counter[str] = Counter()
        for counts in self.counts.values():
            pooled.update(counts)
        many, half = len(pooled) > SHOWN, SHOWN // 2
        if many and self.task == "classes":  # of a thousand classes, the line says enough
            return []
        rows = [
            (label, *(self._shown(split, label) for split in self.counts), word(label))
            for label in (sorted(pooled, key=pooled.__getitem__, reverse=True) if many else pooled)
        ]
        if many:
            rows[half:-half] = [("...", *[""] * len(self.counts), "")]
        head = {"classes": "images of", "boxes": "objects of", "pixels": "pixels of"}[self.task]
        shown = table([(head, *self.counts, ""), *rows], "l" + "r" * len(self.counts) + "l")
        return [f"  {line}" for line in shown.splitlines()]

    def _shown(self, split: str, label: str) -> str:
        count = self.counts[split].get(label, 0)
        if self.task != "pixels":
            return f"{count:,}"
        return _percent(count, sum(self.counts[split].values()) + self.empty[split])


@dataclass(frozen=True)
class DatasetReport:
    """What a source of labelled images holds, and what is wrong with it.

    Attributes:
        source: the folder or archive.
        parts: what it holds for each task; one archive can serve two.
        unreadable: {path of an image inside the source: why}.
        problems: what else is wrong, a sentence each.
        notes: what is no fault but worth knowing, a sentence each.
    """

    source: Path
    parts: tuple[Part, ...]
    unreadable: dict[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every image can be read and nothing else is wrong."""
        return not self.unreadable and not self.problems

    def __str__(self) -> str:
        lines = [str(self.source)]
        for part in self.parts:
            lines += [f"  {part.task}"] if len(self.parts) > 1 else []
            lines += [f"  {line}" for line in str(part).splitlines()]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  wrong: {problem}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:  # a whole set in colour needs no sentence for each image
            lines.append(f"  wrong: {len(self.problems) - SHOWN:,} more, all in `problems`")
        lines += [f"  unreadable: {name}: {why}" for name, why in self.unreadable.items()]
        wrong = len(self.problems) + len(self.unreadable)
        every = "every image can be read"
        if any(part.task != "classes" for part in self.parts):
            every = "every image and all its labels can be read"
        lines.append(f"  faults: {wrong:,}" if wrong else f"  {every}")
        return "\n".join(lines)


def check(source: str | os.PathLike[str]) -> DatasetReport:
    """Read every image of a source and its labels, all splits, and say what is wrong.

    Boxes and label maps are looked for first; a source without either has class folders.

    Args:
        source: see `subsets.locate`; the published counts are known of a name only.

    Raises:
        HirelabError: nothing there, or nothing that can be opened as a folder or zip.
    """
    path, known = locate(source), DATA_SETS.get(str(source))
    files = open_files(path, "a folder or a zip of labelled images")
    problems: list[str] = []
    notes: list[str] = []
    opened = _opened(path, files, known, problems.append)
    if opened or problems:
        names = list(dict.fromkeys(name for images in opened for name in images.names))
        sizes, unreadable = _read(files, names)
        problems += _in_both(opened)
        parts = _dense_parts(opened, sizes, problems.append, notes.append)
        notes += _dense_notes(files, opened, sizes)
    else:
        there = layout(path)
        part, names = _class_folders(there, problems.append, notes.append)
        parts = [part] if part.images else []
        _, unreadable = _read(there.files, names)
    if known is not None:
        problems = _differences(known, parts) + problems
    # one JSON for two splits has its faults twice
    return DatasetReport(
        path, tuple(parts), unreadable, tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes))
    )


def _read(files: Any, names: Sequence[str]) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """{image: its (width, height)} of those that can be read; {image: why not} of the others."""
    sizes, unreadable = {}, {}
    for name in tqdm(names, "reading", unit=" images", disable=None):
        try:
            sizes[name] = open_image(files.read(name)).size
        except (ValueError, OSError) as error:
            unreadable[name] = str(error)
    return sizes, unreadable


# --- class folders -----------------------------------------------------------------------------


def _class_folders(
    there: Layout, wrong: Callable[[str], None], note: Callable[[str], None]
) -> tuple[Part, list[str]]:
    """What class folders hold, and the path of every image in them."""
    rows = dict(there.images)
    stray = list(there.outside)
    if len(rows) > 1:  # what lies beside the splits belongs to none of them
        stray += [name for name, _, _ in rows.pop("all", [])]
    order = sorted(rows, key=lambda split: (split != "train", split != "val", split))
    counts = {
        split: dict(sorted(Counter(label for _, label, _ in rows[split]).items()))
        for split in order
    }
    if not rows:
        wrong("it holds no images in class folders")
    for split, empty in there.empty.items():
        if split in rows:
            wrong(f"class folders of {split} without an image: {_all(empty)}")
    if {"train", "val"} <= set(counts):
        for one, other in (("train", "val"), ("val", "train")):
            if missing := sorted(set(counts[one]) - set(counts[other])):
                wrong(f"classes of {one} that {other} lacks: {_all(missing)}")
    if stray:
        note(f"images in no split's class folder: {len(stray):,} ({quote_first(stray)})")
    if there.others:
        note(f"files that are no images by their suffix: {there.others:,}")
    images = {split: len(rows[split]) for split in order}
    names = [name for split in order for name, _, _ in rows[split]]
    return Part("classes", images, counts, {}), names


# --- boxes and pixels --------------------------------------------------------------------------


def _opened(
    path: Path, files: Any, known: DataSet | None, wrong: Callable[[str], None]
) -> list[BoxedImages | LabelMaps]:
    """Every split with boxes, then every split with label maps; a fault of one leaves the rest."""
    found: list[BoxedImages | LabelMaps] = []

    def attempt(open_split: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return open_split(*arguments)
        except HirelabError as error:
            wrong(str(error))
            return None

    if "boxes" in known.tasks if known else attempt(has_boxes, files):
        found += filter(None, [attempt(open_boxes, path, split, wrong) for split in SPLITS])
    if "pixels" in known.tasks if known else attempt(label_map_splits, files):
        # without a layout, opening one says which there are
        for split in attempt(label_map_splits, files) or ("train",):
            found += filter(None, [attempt(open_label_maps, path, split, wrong)])
    return found


def _dense_parts(
    opened: Sequence[BoxedImages | LabelMaps],
    sizes: Mapping[str, tuple[int, int]],
    wrong: Callable[[str], None],
    note: Callable[[str], None],
) -> list[Part]:
    """Counts of objects and pixels, with every label of the images that can be read looked at."""
    parts: dict[str, Part] = {}
    for images in opened:
        split = images.split
        if isinstance(images, BoxedImages):
            task, one, (counts, empty) = "boxes", "an object", _objects(images, sizes, wrong)
        else:
            task, one, (counts, empty) = "pixels", "a pixel", _pixels(images, sizes, wrong)
        part = parts.setdefault(task, Part(task, {}, {}, {}))
        part.images[split], part.empty[split] = len(images), empty
        part.counts[split] = dict(zip(images.classes, counts, strict=True))
        if none := [name for name, count in part.counts[split].items() if not count]:
            note(f"classes of {split} without {one}: {_all(none)}")
    return list(parts.values())


def _in_both(opened: Sequence[BoxedImages | LabelMaps]) -> Iterable[str]:
    """Images in two splits of a task: what is learned from must not be judged on."""
    for one, other in combinations(opened, 2):
        if type(one) is type(other) and (both := sorted({*one.names} & {*other.names})):
            yield f"images in both {one.split} and {other.split}: {_all(both)}"


def _objects(
    images: BoxedImages, sizes: Mapping[str, tuple[int, int]], wrong: Callable[[str], None]
) -> tuple[list[int], int]:
    """Objects of each class, without crowds, and how many images have none."""
    for index, name in enumerate(tqdm(images.names, "boxes", unit=" images", disable=None)):
        try:
            if name in sizes:
                images.check_size(index, sizes[name])
            width, height = images.sizes[index]
            for one in images.objects[index]:
                shape_mask(one.shape, one.box, height, width, name)
        except HirelabError as error:
            wrong(str(error))
    labels = [one.label for some in images.objects for one in some if not one.crowd]
    counts = np.bincount(np.array(labels, np.int64), minlength=len(images.classes))
    return counts.tolist(), sum(not some for some in images.objects)


def _pixels(
    images: LabelMaps, sizes: Mapping[str, tuple[int, int]], wrong: Callable[[str], None]
) -> tuple[list[int], int]:
    """Pixels of each class, and how many have none."""
    counts = np.zeros(NO_LABEL + 1, np.int64)
    for index, name in enumerate(tqdm(images.names, "label maps", unit=" images", disable=None)):
        if name in sizes:
            try:
                labels = images.labels(index, sizes[name])
                counts += np.bincount(labels.ravel(), minlength=len(counts))
            except HirelabError as error:
                wrong(str(error))
    return counts[: len(images.classes)].tolist(), int(counts[NO_LABEL])


def _dense_notes(
    files: Any, opened: Sequence[BoxedImages | LabelMaps], sizes: Mapping[str, tuple[int, int]]
) -> Iterable[str]:
    """What is no fault: what was put right, crowds, images that are small or that nothing lists."""
    boxed = [images for images in opened if isinstance(images, BoxedImages)]
    for kind in dict.fromkeys(kind for images in boxed for kind in images.notes):
        yield f"{kind}: {sum(images.notes.get(kind, 0) for images in boxed):,}"
    crowds = sum(one.crowd for images in boxed for some in images.objects for one in some)
    if crowds:
        yield f"crowds, which are not trained on: {crowds:,}"
    if small := [name for name, size in sizes.items() if min(size) < STRIDE]:
        yield f"images with a side of less than {STRIDE} pixels: {_all(small)}"
    used = set(sizes).union(*(images.names for images in opened))
    used.update(*(images.maps for images in opened if isinstance(images, LabelMaps)))
    images = [n for n in visible(files) if PurePosixPath(n).suffix.lower() in suffixes()]
    if unused := [name for name in images if name not in used]:
        yield f"images that belong to no split: {len(unused):,} ({quote_first(unused)})"


# --- in words ----------------------------------------------------------------------------------


def _differences(known: DataSet, parts: Sequence[Part]) -> list[str]:
    """Where the counts are not the published ones."""
    found = []
    splits = {"train": known.train, "val": known.val, "test": known.test}
    for part in parts or [Part(known.tasks[0], {}, {}, {})]:
        for split, published in ((s, n) for s, n in splits.items() if n):
            compared = [("images", part.images.get(split, 0), published)]
            if part.task == known.tasks[0]:
                compared.append(("classes", len(part.counts.get(split, {})), known.classes))
            found += [
                f"{known.name} as published has {there:,} {what} in {split}, this {here:,}"
                for what, here, there in compared
                if here != there
            ]
    return found


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _all(names: Sequence[str]) -> str:
    return f"{len(names):,} ({quote_first(names, 10)})"

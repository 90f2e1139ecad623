"""What data sets there are, and whether one is whole.

listing  what is known by name, what it costs, where it is, and its terms
check    a name, folder or zip -> `DatasetReport`: what it holds and what is wrong with it
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from .._shared.tables import table
from .images import open_image
from .subsets import DATA_SETS, DataSet, find_data_set, layout, locate, quote_first
from .words import word

__all__ = ["DatasetReport", "check", "listing"]


def listing() -> str:
    """The data sets known by name: what they are, what they cost, where they are; their terms."""
    rows = [("name", "what", "classes", "images", "MB", "where")]
    terms: dict[str, list[str]] = {}
    for data in DATA_SETS.values():
        terms.setdefault(data.terms, []).append(data.name)
        absent = "made here when first used" if data.make else "not here"
        classes, images, mb = data.classes, data.train + data.val, data.megabytes
        counts = (f"{classes:,}", f"{images:,}", f"{mb:,}")
        rows.append((data.name, data.title, *counts, str(find_data_set(data) or absent)))
    notes = [f"terms of {', '.join(names)}: {text}" for text, names in terms.items()]
    return "\n".join([table(rows, "llrrrl"), "", *notes])


@dataclass(frozen=True)
class DatasetReport:
    """What a source of labelled images holds, and what is wrong with it.

    Attributes:
        source: the folder or archive.
        counts: {split: {class: images in it, readable or not}}.
        unreadable: {path inside the source: why}.
        problems: what else is wrong, a sentence each.
        notes: what is no fault but worth knowing, a sentence each.
    """

    source: Path
    counts: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every image can be read and nothing else is wrong."""
        return not self.unreadable and not self.problems

    def __str__(self) -> str:
        lines = [str(self.source)]
        for split, of_class in self.counts.items():
            least, most = min(of_class.values()), max(of_class.values())
            each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            lines.append(
                f"  {split}: {sum(of_class.values()):,} images of {len(of_class):,} classes, "
                f"{each} of each"
            )
        classes = sorted({label for counts in self.counts.values() for label in counts})
        if 0 < len(classes) <= 20:
            rows = []
            for label in classes:
                of_split = [f"{of_class.get(label, 0):,}" for of_class in self.counts.values()]
                rows.append((label, *of_split, word(label)))
            align = "l" + "r" * len(self.counts) + "l"
            lines += [f"    {line}" for line in table(rows, align).splitlines()]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  wrong: {problem}" for problem in self.problems]
        lines += [f"  unreadable: {name}: {why}" for name, why in self.unreadable.items()]
        wrong = len(self.problems) + len(self.unreadable)
        lines.append(f"  faults: {wrong:,}" if wrong else "  every image can be read")
        return "\n".join(lines)


def check(source: str | os.PathLike[str]) -> DatasetReport:
    """Read every image of a source, all splits, and say what is wrong.

    Args:
        source: see `subsets.locate`; the published counts are known of a name only.

    Raises:
        HirelabError: nothing there, or nothing that can be opened as a folder or zip.
    """
    path = locate(source)
    there = layout(path)
    rows = dict(there.images)
    stray = list(there.outside)
    if len(rows) > 1:  # what lies beside the splits belongs to none of them
        stray += [name for name, _, _ in rows.pop("all", [])]
    order = sorted(rows, key=lambda split: (split != "train", split != "val", split))
    counts: dict[str, dict[str, int]] = {}
    for split in order:
        labels = sorted(label for _, label, _ in rows[split])
        counts[split] = dict.fromkeys(labels, 0)
        for label in labels:
            counts[split][label] += 1

    problems = [] if rows else ["it holds no images in class folders"]
    for split, empty in there.empty.items():
        if split in rows:
            problems.append(f"class folders of {split} without an image: {_all(empty)}")
    if {"train", "val"} <= set(counts):
        for one, other in (("train", "val"), ("val", "train")):
            if missing := sorted(set(counts[one]) - set(counts[other])):
                problems.append(f"classes of {one} that {other} lacks: {_all(missing)}")
    if (known := DATA_SETS.get(str(source))) is not None:
        problems += _differences(known, counts)

    unreadable = {}
    every = [name for split in order for name, _, _ in rows[split]]
    for name in tqdm(every, "reading", unit=" images", disable=None):
        try:
            open_image(there.files.read(name))
        except (ValueError, OSError) as error:
            unreadable[name] = str(error)

    notes = []
    if stray:
        notes.append(f"images in no split's class folder: {len(stray):,} ({quote_first(stray)})")
    if there.others:
        notes.append(f"files that are no images by their suffix: {there.others:,}")
    return DatasetReport(path, counts, unreadable, tuple(problems), tuple(notes))


def _differences(known: DataSet, counts: dict[str, dict[str, int]]) -> list[str]:
    """Where the counts are not the published ones."""
    found = []
    for split, published in (("train", known.train), ("val", known.val)):
        classes = counts.get(split, {})
        for what, here, there in (
            ("images", sum(classes.values()), published),
            ("classes", len(classes), known.classes),
        ):
            if here != there:
                found.append(
                    f"{known.name} as published has {there:,} {what} in {split}, this {here:,}"
                )
    return found


def _all(names: list[str]) -> str:
    return f"{len(names):,} ({quote_first(names, 10)})"

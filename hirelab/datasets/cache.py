"""Pictures decoded once: a memory-mapped array of small squares, read as fast as memory.

Decoding a JPEG takes longer than a small network's training step on it. `decoded` reads every
picture of a `Pictures` once, cuts it to a square (see `samples.square`) and keeps the bytes in one
.npy file, which every process maps and none copies.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from .._files import UserError, atomic, write_atomic
from .samples import picture, square
from .subsets import Pictures, own_folder

VERSION = 1
"""Part of every key: raise it when the same pictures would come out as other pixels."""


@dataclass(frozen=True, eq=False)
class Squares:
    """Decoded squares of a split and their labels.

    Attributes:
        pictures: where they come from.
        pixels: uint8 (N, size, size, 3), mapped from the file.
        labels: int64 (N,).
        kept: int64 (N,), the index in ``pictures`` of each.
        skipped: {name of a picture that could not be read: why}.
    """

    pictures: Pictures
    pixels: np.ndarray
    labels: np.ndarray
    kept: np.ndarray
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.labels)

    def report(self) -> str:
        """What was skipped, in a sentence; "" where nothing was."""
        if not self.skipped:
            return ""
        first = "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:3])
        more = " ..." if len(self.skipped) > 3 else ""
        return f"{len(self.skipped)} of {len(self.pictures)} pictures were skipped: {first}{more}"


def decoded(
    pictures: Pictures, size: int, folder: Path | None = None, progress: bool = True
) -> Squares:
    """The squares of ``pictures``, ``size`` pixels a side: from the cache, else made and kept.

    A picture that cannot be read is skipped, counted and named; a class that loses all its
    pictures so is an error.

    Args:
        folder: where caches lie; default ``decoded`` in `subsets.own_folder`.

    Raises:
        UserError: a class without a readable picture; too little room on the disk.
    """
    folder = own_folder() / "decoded" if folder is None else folder
    # all that determines the pixels
    key = f"{VERSION} {pictures.fingerprint} {size} square bicubic Pillow {PIL.__version__}"
    stem = f"{pictures.split}-{size}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    array, notes = folder / f"{stem}.npy", folder / f"{stem}.json"
    if not (array.exists() and notes.exists()):
        _decode(pictures, size, array, notes, progress)
    said = json.loads(notes.read_text())
    pixels = np.load(array, mmap_mode="r")
    kept = np.array(said["kept"], dtype=np.int64)
    lost = sorted(set(pictures.labels.tolist()) - set(pictures.labels[kept].tolist()))
    squares = Squares(pictures, pixels, pictures.labels[kept], kept, said["skipped"])
    if lost:
        names = ", ".join(pictures.classes[i] for i in lost[:3])
        raise UserError(f"no picture of {names} can be read ({squares.report()})")
    return squares


def _decode(pictures: Pictures, size: int, array: Path, notes: Path, progress: bool) -> None:
    array.parent.mkdir(parents=True, exist_ok=True)
    need = len(pictures) * size * size * 3
    free = shutil.disk_usage(array.parent).free
    if need > free:
        raise UserError(
            f"decoding {len(pictures):,} pictures needs {need / 1e6:,.0f} MB and {array.parent} "
            f"has {free / 1e6:,.0f} MB left: free some, or name another folder in HIRELAB_CACHE"
        )
    kept: list[int] = []
    skipped: dict[str, str] = {}
    bar = tqdm(
        range(len(pictures)),
        f"decoding {pictures.split} at {size} px",
        unit=" pictures",
        disable=None if progress else True,
    )
    with atomic(array) as temporary:
        # The head of the file says how many pictures follow, which is known only at the end: room
        # is made for all, and what skipped pictures leave is cut off.
        shape = (len(pictures), size, size, 3)
        room = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for i in bar:
            try:
                room[len(kept)] = np.asarray(square(picture(pictures.read(i)), size))
            # a damaged archive fails before a damaged picture can
            except (ValueError, OSError, KeyError, zlib.error, zipfile.BadZipFile) as error:
                skipped[pictures.names[i]] = str(error)
            else:
                kept.append(i)
        room.flush()
        if skipped:
            _shorten(temporary, room[: len(kept)])
    write_atomic(notes, json.dumps({"kept": kept, "skipped": skipped}))


def _shorten(path: Path, rows: np.ndarray) -> None:
    """Rewrite the array in ``path`` as ``rows``, which are mapped from it."""
    with atomic(path) as shorter, open(shorter, "wb") as file:
        np.save(file, rows)

"""Images decoded once: a memory-mapped array of small squares, read as fast as memory.

Decoding a JPEG takes longer than a small network's training step on it. `decoded` reads every
image of `LabelledImages` once, cuts it to a square (see `samples.square`) and keeps the bytes in
one .npy file, which every process maps and none copies.

Two files make a cache: the array, and beside it in JSON which images it has. Each is written
whole or not at all, the JSON last, so that a process killed at any moment leaves none.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.files import atomic, write_atomic
from .samples import open_image, square
from .subsets import LabelledImages, own_folder

VERSION = 1
"""Part of every key: raise it when the same images would come out as other pixels."""


@dataclass(frozen=True, eq=False)
class Squares:
    """Decoded squares of a split and their labels.

    Attributes:
        images: where they come from.
        pixels: uint8 (N, size, size, 3), mapped from the file.
        labels: int64 (N,).
        kept: int64 (N,), the index in ``images`` of each.
        skipped: {name of an image that could not be read: why}.
    """

    images: LabelledImages
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
        return f"{len(self.skipped)} of {len(self.images)} images were skipped: {first}{more}"


def decoded(
    images: LabelledImages, size: int, folder: Path | None = None, progress: bool = True
) -> Squares:
    """The squares of ``images``, ``size`` pixels a side: from the cache, else made and kept.

    An image that cannot be read is skipped, counted and named; a class that loses all its
    images so is an error.

    Args:
        folder: where caches lie; default ``decoded`` in `subsets.own_folder`.

    Raises:
        HirelabError: a class without a readable image; too little room on the disk.
    """
    folder = own_folder() / "decoded" if folder is None else folder
    # all that determines the pixels
    key = f"{VERSION} {images.fingerprint} {size} square bicubic Pillow {PIL.__version__}"
    stem = f"{images.split}-{size}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    array, notes = folder / f"{stem}.npy", folder / f"{stem}.json"
    squares = _load(images, size, array, notes)
    if squares is None:
        with writing(folder, "decoded images"):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f".{stem}.lock") as alone:
                # another process may have made it meanwhile
                squares = _load(images, size, array, notes)
                if squares is None:
                    for left in folder.glob(f".{stem}.*.*") if alone else ():
                        left.unlink()  # by a process that was killed
                    squares = _decode(images, size, array, notes, progress)
    lost = sorted(set(images.labels.tolist()) - set(squares.labels.tolist()))
    if lost:
        names = ", ".join(images.classes[i] for i in lost[:3])
        raise HirelabError(f"no image of {names} can be read ({squares.report()})")
    return squares


def _load(images: LabelledImages, size: int, array: Path, notes: Path) -> Squares | None:
    """The squares in the cache; None where there are none, or more than these can be read now."""
    try:
        said = json.loads(notes.read_text())
        pixels = np.load(array, mmap_mode="r")
        kept, skipped = np.array(said["kept"], dtype=np.int64), said["skipped"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if pixels.dtype != np.uint8 or pixels.shape != (len(kept), size, size, 3):
        return None
    if skipped:
        # a change of permissions, say, leaves size and time as they were
        index = {name: i for i, name in enumerate(images.names)}
        if any(not isinstance(_square(images, index[name], size), str) for name in skipped):
            return None
    return Squares(images, pixels, images.labels[kept], kept, skipped)


def _square(images: LabelledImages, index: int, size: int) -> np.ndarray | str:
    """An image's square, or why there is none."""
    try:
        return np.asarray(square(open_image(images.read(index)), size))
    except (ValueError, OSError) as error:
        return str(error)


def _decode(images: LabelledImages, size: int, array: Path, notes: Path, progress: bool) -> Squares:
    need = len(images) * size * size * 3
    free = shutil.disk_usage(array.parent).free
    if need > free:
        raise HirelabError(
            f"decoding {len(images):,} images needs {need / 1e6:,.0f} MB and {array.parent} "
            f"has {free / 1e6:,.0f} MB left: free some, or name another folder in HIRELAB_CACHE"
        )
    kept: list[int] = []
    skipped: dict[str, str] = {}
    bar = tqdm(
        range(len(images)),
        f"decoding {images.split} at {size} px",
        unit=" images",
        disable=None if progress else True,
    )
    notes.unlink(missing_ok=True)
    with atomic(array) as temporary, open(temporary, "wb") as file:
        # The head says how many images follow, which is known only at the end. Numpy leaves
        # room in it for any number, so it is written again. Writing, unlike a mapping, says so
        # when the disk is full.
        head = _write_head(file, len(images), size)
        for i in bar:
            values = _square(images, i, size)
            if isinstance(values, str):
                skipped[images.names[i]] = values
            else:
                file.write(values.tobytes())
                kept.append(i)
        file.seek(0)
        assert _write_head(file, len(kept), size) == head
        file.flush()
    write_atomic(notes, json.dumps({"kept": kept, "skipped": skipped}))
    pixels = np.load(array, mmap_mode="r")
    return Squares(images, pixels, images.labels[kept], np.array(kept, np.int64), skipped)


def _write_head(file: BinaryIO, count: int, size: int) -> int:
    """Write the head of an .npy file of squares; returns where it ends."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.tell()


# --- writing beside other processes, on disks that end -----------------------------------------


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[bool]:
    """Waits until no other process holds the lock file ``path``, then holds it for the block.

    Gives False, and does not wait, where the system has no such locks: callers write so that they
    do not disturb each other even then, but must not clean up. ``waiting`` is said if it must wait.
    The system frees the lock of a process that is killed; the empty file stays.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # some network file systems
            yield False
            return
        yield True


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Turns what the disk refuses in the block into a sentence with the cure."""
    try:
        yield
    except OSError as error:
        raise HirelabError(
            f"{what} cannot be written to {folder} ({error}): free some room "
            f"or check the folder's permissions, or name another folder in HIRELAB_CACHE"
        ) from error

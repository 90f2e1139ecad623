"""Images decoded once: a memory-mapped array of small squares, read as fast as memory.

Decoding a JPEG takes longer than a small network's training step on it. `decode` reads every
image of `LabelledImages` once, cuts it square (see `transforms.square`) and keeps the bytes in
one .npy file, which every process maps and none copies.

Two files make a cache: the array, and beside it in JSON which images it has. Each is written
whole or not at all, the JSON last, so that a process killed at any moment leaves none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.files import atomic, check_room, locked, write_atomic, writing
from .images import open_image
from .subsets import LabelledImages, own_folder
from .transforms import check_side, square

VERSION = 1
"""Part of every key: raise it when the same images would come out as other pixels."""


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """The images of a split, decoded and cut square, and their labels.

    Attributes:
        images: where they come from.
        pixels: uint8 (N, img_size, img_size, 3), mapped from the file, not writable.
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


def decode(
    images: LabelledImages, img_size: int, folder: Path | None = None, progress: bool = True
) -> DecodedImages:
    """``images`` as squares of ``img_size`` pixels a side: from the cache, else made and kept.

    An image that cannot be read is skipped, counted and named; a class that loses all its
    images so is an error.

    Args:
        folder: where caches lie; default ``decoded`` in `subsets.own_folder`.
        progress: show a bar while decoding, on a terminal.

    Raises:
        HirelabError: a class without a readable image; too little room on the disk.
    """
    size = check_side(img_size)
    folder = own_folder() / "decoded" if folder is None else folder
    # all that determines the pixels
    key = f"{VERSION} {images.fingerprint} {size} square bicubic Pillow {PIL.__version__}"
    stem = f"{images.split}-{size}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    array, notes = folder / f"{stem}.npy", folder / f"{stem}.json"
    decoded = _load(images, size, array, notes)
    if decoded is None:
        with writing(folder, "decoded images"):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f".{stem}.lock"):
                # another process may have made it meanwhile
                decoded = _load(images, size, array, notes)
                if decoded is None:
                    for left in folder.glob(f".{stem}.*.*"):
                        left.unlink()  # by a process that was killed
                    decoded = _decode(images, size, array, notes, progress)
    lost = sorted(set(images.labels.tolist()) - set(decoded.labels.tolist()))
    if lost:
        names = ", ".join(images.classes[i] for i in lost[:3])
        raise HirelabError(f"no image of {names} can be read ({decoded.report()})")
    return decoded


def _load(images: LabelledImages, size: int, array: Path, notes: Path) -> DecodedImages | None:
    """The squares in the cache; None where there are none, or more than these can be read now."""
    try:
        facts = json.loads(notes.read_text())
        pixels = np.load(array, mmap_mode="r")
        kept, skipped = np.array(facts["kept"], dtype=np.int64), facts["skipped"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if pixels.dtype != np.uint8 or pixels.shape != (len(kept), size, size, 3):
        return None
    if skipped:
        # a change of permissions, say, leaves size and time as they were
        index = {name: i for i, name in enumerate(images.names)}
        if any(not isinstance(_square(images, index[name], size), str) for name in skipped):
            return None
    return DecodedImages(images, pixels, images.labels[kept], kept, skipped)


def _square(images: LabelledImages, index: int, size: int) -> np.ndarray | str:
    """An image's square, or why there is none."""
    try:
        return np.asarray(square(open_image(images.read(index)), size))
    except (ValueError, OSError) as error:
        return str(error)


def _squares(
    images: LabelledImages, size: int, indices: Iterable[int]
) -> Iterator[np.ndarray | str]:
    """`_square` of one image after another, in order, several at once on as many threads as there
    are cores: Pillow decodes and resizes without Python's lock."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[np.ndarray | str]] = deque()
        for index in indices:
            ahead.append(pool.submit(_square, images, index, size))
            if len(ahead) > 4 * workers:  # so many in memory, however slow the disk
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _decode(
    images: LabelledImages, size: int, array: Path, notes: Path, progress: bool
) -> DecodedImages:
    need = len(images) * size * size * 3
    check_room(array.parent, need, f"decoding {len(images):,} images")
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
        for i, values in enumerate(_squares(images, size, bar)):
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
    return DecodedImages(images, pixels, images.labels[kept], np.array(kept, np.int64), skipped)


def _write_head(file: BinaryIO, count: int, size: int) -> int:
    """Write the head of an .npy file of squares; returns where it ends."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.tell()

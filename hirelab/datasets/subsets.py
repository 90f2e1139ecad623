"""Labelled pictures: subsets of ImageNet by name, any folder of class folders, a zip of one.

    DATA_SETS      what is known by name: classes, counts, publisher's address, hash, megabytes
    locate         a name or path -> where it lies on this machine, or how to get it
    open_pictures  a name or path, and a split -> `Pictures`: names, labels, bytes

A layout is read, not declared: `{train,val}/<class>/<picture>` in a folder or an archive, with any
folders above it. Without the split folders, all pictures are one split, called "all". Zip archives
are read in place and never unpacked.

`HIRELAB_DATA` names folders (separated as in PATH) that are searched before hirelab's own, which
is where `hirelab data get` puts what it brings.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torchvision.datasets.imagenette import Imagenette

from .._files import UserError
from .._names import unknown
from .samples import suffixes

__all__ = [
    "DATA_SETS",
    "DataSet",
    "Pictures",
    "locate",
    "open_pictures",
    "search_folders",
]

_IMAGENET_TERMS = "ImageNet's terms: research and teaching only, not to be passed on"


@dataclass(frozen=True)
class DataSet:
    """A published data set: what it holds, where it comes from, how to tell that it is whole.

    Attributes:
        name: the name on the command line.
        title: what it is, in a line.
        classes: how many; folders are named by WordNet id.
        train, val: pictures of each split.
        url: the publisher's archive; "" where the publisher wants a signature first.
        md5: of that archive, by the publisher (by this project's own download where he gives none).
        megabytes: of that archive.
        files: patterns of files and folders that are taken for it in `search_folders`.
        terms: what its owner allows.
    """

    name: str
    title: str
    classes: int
    train: int
    val: int
    url: str
    md5: str
    megabytes: int
    files: tuple[str, ...]
    terms: str = _IMAGENET_TERMS


def _imagenette(size: str, suffix: str, megabytes: int, *packs: str) -> DataSet:
    url, md5 = Imagenette._ARCHIVES[size]  # the publisher's, kept by torchvision
    name = f"imagenette{suffix}"
    return DataSet(
        name,
        f"Imagenette 2: ten easily told classes of ImageNet, shorter side {size}",
        *(10, 9469, 3925),
        url,
        md5,
        megabytes,
        (*packs, Path(url).stem, Path(url).name),
    )


DATA_SETS: dict[str, DataSet] = {
    data.name: data
    for data in (
        _imagenette("160px", "", 99, "imagenette_160px*.zip"),
        _imagenette("320px", "-320", 341),
        _imagenette("full", "-full", 1556),
        DataSet(
            "tinyimagenet",
            "Tiny-ImageNet: 200 classes of ImageNet at 64 x 64",
            *(200, 100_000, 10_000),
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
            248,
            ("tinyimagenet*.zip", "tiny-imagenet-200", "tiny-imagenet-200.zip"),
        ),
        DataSet(
            "imagenet",
            "ImageNet-1k (ILSVRC 2012) in class folders",
            *(1000, 1_281_167, 50_000),
            *("", "", 150_000),
            ("imagenet", "imagenet-1k", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
        ),
    )
}

WORDS: dict[str, str] = {wnid: words[0] for wnid, words in Imagenette._WNID_TO_CLASS.items()}
"""What the classes of Imagenette are called, by WordNet id."""


# --- where data lies ---------------------------------------------------------------------------


def own_folder() -> Path:
    """Where `hirelab data get` and the caches put things: HIRELAB_CACHE, else ~/.cache/hirelab."""
    named = os.environ.get("HIRELAB_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named).expanduser() if named else Path(base) / "hirelab"


def search_folders() -> list[Path]:
    """The folders in which data is looked for: those of HIRELAB_DATA, then hirelab's own."""
    named = os.environ.get("HIRELAB_DATA", "").split(os.pathsep)
    return [*(Path(one).expanduser() for one in named if one), own_folder() / "data"]


def locate(source: str | os.PathLike[str]) -> Path:
    """The archive or folder of a data set's name, or the given path where one lies there.

    Raises:
        UserError: for a name that is unknown, or known and not here (the message says which
            command brings it and how many megabytes that is), and for a path with nothing there.
    """
    known = DATA_SETS.get(str(source))
    if known is None:
        path = Path(source).expanduser()
        if path.exists():
            return path
        cure = f"Known by name: {', '.join(DATA_SETS)}; or give the path of a folder or zip."
        raise UserError(unknown("data set", str(source), DATA_SETS, cure))
    for folder in search_folders():
        for pattern in known.files:
            found = sorted(folder.glob(pattern)) if folder.is_dir() else []
            # an archive of tar is not read in place: `get` unpacks it
            found = [one for one in found if one.is_dir() or one.suffix == ".zip"]
            if found:
                return found[0]
    looked = ", ".join(str(folder) for folder in search_folders())
    if not known.url:
        raise UserError(
            f"{known.name} is not here (looked in {looked}): its publisher gives it on request at "
            f"image-net.org ({known.megabytes:,} MB); put its folder, with train/ and val/, into a "
            f"folder that HIRELAB_DATA names"
        )
    raise UserError(
        f"{known.name} is not here (looked in {looked}): `hirelab data get {known.name}` downloads "
        f"{known.megabytes:,} MB, or name the folder that has it in HIRELAB_DATA"
    )


# --- reading it --------------------------------------------------------------------------------


class _Folder:
    """The files below a folder, by their path inside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def listing(self) -> Iterable[tuple[str, str]]:
        """(path inside, what tells this content from another) of every file."""
        for top, folders, files in os.walk(self.path):
            folders.sort()
            inside = Path(top).relative_to(self.path)
            for file in sorted(files):
                status = os.stat(os.path.join(top, file))
                yield (inside / file).as_posix(), f"{status.st_size} {status.st_mtime_ns}"

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Zip:
    """The files in a zip archive. Opened once in each process: a file position is not shared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            self._archive()
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(
                f"{path} cannot be read as a zip archive ({error}): download it again"
            ) from error

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), zipfile.ZipFile(self.path)
        return self._open[1]

    def listing(self) -> Iterable[tuple[str, str]]:
        for info in sorted(self._archive().infolist(), key=lambda one: one.filename):
            if not info.is_dir():
                yield info.filename, f"{info.file_size} {info.CRC:08x}"

    def read(self, name: str) -> bytes:
        return self._archive().read(name)

    def __getstate__(self) -> dict:
        return {"path": self.path, "_open": None}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures of one split: names and labels in memory, bytes where they lie.

    Attributes:
        source: the folder or archive.
        split: "train", "val", another split's folder name, or "all".
        classes: names of the class folders, sorted; a label is an index into them.
        names: path of every picture inside the source, sorted.
        labels: int64, of every picture.
        fingerprint: sha256 over names, sizes and CRC (of a zip) or time of change (of a folder):
            another fingerprint, another data set.
    """

    source: Path
    split: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    fingerprint: str
    _files: _Folder | _Zip

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The file of a picture, as it lies there."""
        return self._files.read(self.names[index])

    def words(self) -> list[str]:
        """The classes in words where they are known, else their folders' names."""
        return [WORDS.get(name, name) for name in self.classes]


def open_pictures(
    source: str | os.PathLike[str], split: str = "train", classes: Sequence[str] | None = None
) -> Pictures:
    """The pictures of a split of ``source``: a data set's name, a folder, a zip.

    Args:
        source: see `locate`.
        split: "train", "val" or any folder that holds class folders; "all" takes every picture
            of a source without splits.
        classes: the class names that labels shall follow (those of "train", for "val"), where the
            split may lack some; a class of the split that is not among them is an error.

    Raises:
        UserError: nothing there, no such split (naming those there are), a class folder without
            a picture, a class that ``classes`` lacks.
    """
    path = locate(source)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is a file and no zip archive: give a folder of class folders or a zip of one"
        )
    files = _Folder(path) if path.is_dir() else _Zip(path)
    splits: dict[str, list[tuple[str, str, str]]] = {}
    folders: dict[str, set[str]] = {}
    for name, content in files.listing():
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        # Tiny-ImageNet as published has train/<class>/images/<picture>
        middle = parts[:-1][:-1] if len(parts) > 2 and parts[-2] == "images" else parts[:-1]
        if not middle:
            continue
        known = [part for part in middle[:-1] if part in ("train", "val", "test")]
        where = known[-1] if known else "all"
        folders.setdefault(where, set()).add(middle[-1])
        if PurePosixPath(name).suffix.lower() in suffixes():
            splits.setdefault(where, []).append((name, middle[-1], content))
    if split not in splits:
        there = ", ".join(sorted(splits)) or "none: it holds no pictures in class folders"
        raise UserError(
            f"{path} has no split {split!r}; it has {there}. Pictures lie in <split>/<class>/"
        )
    rows = splits[split]
    found = tuple(sorted({label for _, label, _ in rows}))
    if empty := sorted(folders[split] - set(found)):
        raise UserError(
            f"{path}: {len(empty)} class folders of {split!r} hold no picture ({_some(empty)}): "
            f"add pictures or remove the folders"
        )
    order = tuple(classes) if classes is not None else found
    if strange := sorted(set(found) - set(order)):
        raise UserError(
            f"{path}: {split!r} has {len(strange)} classes that training does not know "
            f"({_some(strange)}): use the same class folders in every split"
        )
    index = {label: i for i, label in enumerate(order)}
    digest = hashlib.sha256()
    for name, _, content in rows:
        digest.update(f"{name}\0{content}\n".encode())
    return Pictures(
        path,
        split,
        order,
        tuple(name for name, _, _ in rows),
        np.array([index[label] for _, label, _ in rows], dtype=np.int64),
        digest.hexdigest(),
        files,
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown + (", ..." if len(names) > most else "")

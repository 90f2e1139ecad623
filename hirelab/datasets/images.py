"""Opening one image: a photograph by name, a file, bytes, a PIL image or an array -> upright RGB.

The photographs are those that ship inside scikit-image, so nothing is downloaded. Their origin, as
scikit-image's documentation of `skimage.data` states it:

    name       file                   origin and terms
    cat        chelsea.png            Stefan van der Walt; CC0
    coffee     coffee.png             Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0
    astronaut  astronaut.png          Eileen Collins, NASA Great Images; public domain
    rocket     rocket.jpg             DSCOVR on Falcon 9, SpaceX; public domain
    galaxies   hubble_deep_field.jpg  Hubble deep field, NASA, HubbleSite; public domain
    retina     retina.jpg             Mikael Häggström, doi:10.15347/wjm/2014.008; CC0 1.0
    tissue     ihc.png                colonic glands, Center for Microscopy And Molecular
                                      Imaging; no known copyright restrictions

scikit-image ships further images for which it states no terms; they are left out, because
notebooks are published with the images they show.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .._shared.checks import check_whole
from .._shared.errors import HirelabError, first_line

__all__ = ["MAX_PIXELS", "PHOTOGRAPHS", "Source", "open_image", "suffixes"]

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""What `open_image` opens: a photograph's name or a path, a file's bytes, a PIL image, an array."""

_FILES = {
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "astronaut": "astronaut.png",
    "rocket": "rocket.jpg",
    "galaxies": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "tissue": "ihc.png",
}
PHOTOGRAPHS: tuple[str, ...] = tuple(_FILES)
"""Names of the photographs that need no download; `open_image` opens them by name."""

MAX_PIXELS = 150_000_000
"""Largest image that is opened unless told otherwise, in pixels: 0.6 GB of memory."""

_PART = 4_000_000
"""So many values at once become brightness."""

# Pillow recognises these formats but does not decode them itself: it needs Ghostscript, Windows
# or a handler that is not there. Such a file is not an image here.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def open_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """One image, upright and in RGB, as a new PIL image of the image's own size.

    `source` is one of
    - a name in `PHOTOGRAPHS` (a file that is called so opens as "./cat" or Path("cat"));
    - the path of an image file in any format that Pillow decodes; of an animation or of several
      pages, the first;
    - the bytes of such a file;
    - a PIL image of any mode;
    - an array (H, W), (H, W, 3) or (H, W, 4): uint8 in 0..255, uint16 in 0..65535 or float in
      0..1, all meaning black to full brightness.

    A rotation in the EXIF data is carried out. Transparency is composited on white. Greyscale
    becomes three equal channels, 16 bits are scaled to 8, CMYK is converted by Pillow's simple
    formula; colour profiles are ignored.

    Raises FileNotFoundError for a missing file, with near names; ValueError for a folder, a file
    that is empty, damaged or not an image, an image of more than `max_pixels` pixels, and an
    array of another shape, dtype or range or with NaN or infinite values; TypeError for any
    other source.
    """
    limit = check_whole("max_pixels", max_pixels, 1)
    if isinstance(source, np.ndarray):
        return _from_array(source, limit)
    if isinstance(source, Image.Image):
        return _rgb(source, "The given PIL image", limit)
    if isinstance(source, bytes):
        return _from_file(io.BytesIO(source), f"The given file of {len(source):,} bytes", limit)
    if isinstance(source, str | os.PathLike):
        path = _existing_file(source)
        with path.open("rb") as file:
            return _from_file(file, repr(str(path)), limit)
    raise TypeError(
        f"An image is opened from a name, a path, bytes, a PIL image or a numpy array, not from "
        f"{type(source).__name__}; a normalised tensor becomes arrays with pixels()."
    )


@functools.cache
def suffixes() -> tuple[str, ...]:
    """The file suffixes that count as images in a folder: lower case, with the dot, sorted."""
    known = Image.registered_extensions()
    return tuple(sorted(suffix for suffix, name in known.items() if name in _formats()))


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow decodes by itself, in its own order of trying."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_DECODED)


# --- files -----------------------------------------------------------------------------------


def _existing_file(source: str | os.PathLike[str]) -> Path:
    """The file behind a photograph's name or a path; an error with near names where none is."""
    if isinstance(source, str) and source in _FILES:
        path = Path(str(importlib.resources.files("skimage.data"))) / _FILES[source]
        if not path.is_file():
            raise FileNotFoundError(
                f"The photograph {source!r} is missing from the installed scikit-image "
                f"({str(path)!r}): reinstall scikit-image from its wheel."
            )
        return path
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise HirelabError(
            f"{str(path)!r} is a folder; open_image() opens one file, iter_images() a folder."
        )
    if path.exists():
        raise HirelabError(f"{str(path)!r} is not a regular file: give the path of an image file.")
    raise FileNotFoundError(f"There is no {_absence(path)}")


def _absence(path: Path) -> str:
    """What is not there and what may have been meant, to follow "There is no"."""
    if path.parent == Path() and not path.suffix:
        near = difflib.get_close_matches(path.name.lower(), PHOTOGRAPHS, n=1)
        names = ", ".join(PHOTOGRAPHS)
        meant = (
            f"did you mean {near[0]!r} of {names}?" if near else f"give a path or one of {names}."
        )
        return f"file or photograph {path.name!r}: {meant}"
    if not path.parent.is_dir():
        return f"file {str(path)!r}, for its folder does not exist: check the path."
    present = {file.name.lower(): file.name for file in path.parent.iterdir()}
    near = [present[name] for name in difflib.get_close_matches(path.name.lower(), present)]
    meant = f"did you mean {' or '.join(map(repr, near))}?" if near else "check the path."
    return f"file {str(path)!r}: {meant}"


# --- decoding --------------------------------------------------------------------------------


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Turns whatever Pillow raises on a bad file into a ValueError that says what to do."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels; the limit here is `max_pixels`.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except Image.DecompressionBombError as error:
        raise HirelabError(
            f"{what} has more pixels than Pillow opens, a guard against decompression bombs: "
            f"make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except UnidentifiedImageError as error:
        raise HirelabError(
            f"{what} is empty or not an image in a format that Pillow decodes: give an image "
            f"file, such as a JPEG or PNG."
        ) from error
    # Decoders raise nearly every kind of exception on damaged data.
    except Exception as error:
        raise HirelabError(
            f"{what} is damaged, cut short or of a kind that Pillow does not decode "
            f"({first_line(error)}): get a fresh copy, or save it again as PNG."
        ) from error


def _from_file(file: IO[bytes], what: str, limit: int) -> Image.Image:
    return _rgb(_opened(file, what), what, limit)


def _opened(file: IO[bytes], what: str) -> Image.Image:
    with _decoding(what):
        return Image.open(file, formats=_formats())


def open_values(data: bytes, what: str) -> Image.Image:
    """An image file's bytes as they are stored: in the file's own mode, neither turned nor scaled.

    Args:
        what: what messages call it.

    Raises:
        HirelabError: damaged, no image, or one of more than `MAX_PIXELS`.
    """
    image = _opened(io.BytesIO(data), what)
    _check_size(image.size, what, MAX_PIXELS)
    with _decoding(what):
        image.load()
    return image


def _rgb(image: Image.Image, what: str, limit: int) -> Image.Image:
    """A new upright RGB image of `image`, which messages call `what`."""
    _check_size(image.size, what, limit)
    with _decoding(what):
        image.load()
        image = _upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion cuts these off at 255 instead of scaling them.
        image = Image.fromarray(_eight_bit(_deep_values(image, what), what))
    with _decoding(what):
        if not image.has_transparency_data:
            return image.convert("RGB")  # a copy, where it is RGB
        # every copy of an image as large as is allowed takes 0.6 GB
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF data turns it, itself where nothing is to turn."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def _deep_values(image: Image.Image, what: str) -> np.ndarray:
    """The values of an image of 16, 32 or floating point bits as uint16 or float, (H, W)."""
    values = np.asarray(image)
    if image.mode != "I":
        return values
    # Pillow keeps 16 bits in 32 for some formats; real 32-bit data has no agreed white.
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise HirelabError(
            f"{what} holds 32-bit values from {low} to {high} where 0 to 65535 is expected: "
            f"rescale it to 8 or 16 bits."
        )
    return values.astype(np.uint16)


def _from_array(array: np.ndarray, limit: int) -> Image.Image:
    """A new RGB image of an array as `open_image` takes it."""
    what = f"The array of shape {array.shape}"
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise HirelabError(f"{what} is no image: give (H, W), (H, W, 3) or (H, W, 4).")
    _check_size((array.shape[1], array.shape[0]), what, limit)
    return _rgb(Image.fromarray(_eight_bit(array, what)), what, limit)


def _eight_bit(values: np.ndarray, what: str) -> np.ndarray:
    """Brightness as uint8: uint8 as it is, uint16 scaled from 0..65535, float from 0..1."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "uf" or values.dtype == np.uint32 or values.dtype == np.uint64:
        raise HirelabError(
            f"{what} has dtype {values.dtype} where uint8, uint16 or float is expected: convert "
            f"it, for values in 0..255 with .astype(numpy.uint8)."
        )
    found = np.empty(values.shape, np.uint8)
    rows = max(1, _PART // max(1, values[:1].size))
    for first in range(0, len(values), rows):  # in parts: a copy of all as float takes gigabytes
        part = values[first : first + rows]
        if values.dtype.kind == "u":
            found[first : first + rows] = (part.astype(np.uint32) + 128) // 257
            continue
        if not np.isfinite(part).all():
            raise HirelabError(
                f"{what} holds NaN or infinite values: replace them, see nan_to_num."
            )
        # Rounding first lets the last digit of a float computation overshoot black and white.
        levels = np.rint(part * np.float32(255))
        if levels.min() < 0 or levels.max() > 255:
            raise HirelabError(
                f"{what} is float and runs from {values.min():g} to {values.max():g} where 0 to 1 "
                f"is expected: rescale or clip it, or give uint8 for 0 to 255."
            )
        found[first : first + rows] = levels
    return found


def _check_size(size: tuple[int, int], what: str, limit: int) -> None:
    """Raises ValueError where (width, height) is empty or exceeds `limit` pixels."""
    width, height = size
    if width * height == 0:
        raise HirelabError(f"{what} has no pixels: give at least 1 x 1.")
    if width * height > limit:
        raise HirelabError(
            f"{what} has {width} x {height} = {width * height:,} pixels where at most {limit:,} "
            f"are opened: make it smaller, or raise max_pixels."
        )

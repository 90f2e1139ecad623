"""Photographs for the lab: from a name, a file, a folder or an array to a network's input.

    image    any source          -> upright RGB image
    images   many sources        -> [(name, image), ...]
    square     image             -> size x size image (the evaluation crop)
    normalise  images            -> tensor (N, 3, H, W), what a network takes
    pixels     tensor (N, 3, H, W) -> uint8 array (N, H, W, 3), what a screen takes
    samples    all of it in one call

Without a source, the photographs are those that ship inside scikit-image, so nothing is ever
downloaded. Their origin, as scikit-image's documentation of `skimage.data` states it:

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

import difflib
import functools
import importlib.resources
import io
import operator
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .._shared.errors import HirelabError

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "PHOTOGRAPHS",
    "Source",
    "iter_images",
    "normalise",
    "normalise_bytes",
    "open_image",
    "pixels",
    "samples",
    "square",
    "suffixes",
]

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""What `image` opens: a photograph's name or a path, a file's bytes, a PIL image, an array."""

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
"""Names of the photographs that need no download; `image` opens them by name."""

# The usual mean and standard deviation of ImageNet's red, green and blue in 0..1, as in
# timm.data.IMAGENET_DEFAULT_MEAN and _STD. Importing timm for six numbers takes seconds.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_PIXELS = 150_000_000
"""Largest image that is opened unless told otherwise, in pixels: 0.6 GB of memory."""

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
    limit = _whole("max_pixels", max_pixels)
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


def iter_images(
    source: Source | Sequence[Source] | None = None, n: int | None = 4
) -> list[tuple[str, Image.Image]]:
    """The first `n` images of `source`, or all with n=None, as (name, upright RGB image).

    `source` is None for the sample photographs, a folder, anything that `image` takes, or a
    list or tuple of all these. Of a folder come the files whose suffix is in `suffixes()`, sorted
    by name, without hidden files and without its subfolders.

    `n` is at least 1; fewer come back where a source of your own holds fewer. Raises ValueError
    for another `n`, for more sample photographs than there are, and for a source without
    images; for an image that cannot be opened, what `image` raises, naming the file.
    """
    return [(name, open_image(one)) for name, one in _chosen(source, n)]


def square(image: Image.Image, size: int) -> Image.Image:
    """The middle of an RGB image as size x size pixels: the evaluation crop without a margin.

    The shorter side is resized to `size` with bicubic interpolation and the centre cut out, pixel
    for pixel as torchvision's Resize and CenterCrop do; an image more than 16 times as long as
    wide loses its ends first. Raises ValueError for a size that is not a whole number from 1 and
    for anything but a PIL image in mode RGB.
    """
    size = _whole("size", size)
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        given = getattr(image, "mode", type(image).__name__)
        raise HirelabError(
            f"square() takes a PIL image in mode RGB, not {given}: use open_image()."
        )
    short = min(image.size)
    # Resized whole, a 10,000 x 1 image would need 1.5 GB for ends that are cut off anyway.
    image = _centre(image, [min(side, 16 * short) for side in image.size])
    resized = [int(size * side / short) for side in image.size]
    return _centre(image.resize(resized, Image.Resampling.BICUBIC), [size, size])


def normalise(
    images: np.ndarray | Sequence[Image.Image | np.ndarray],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Tensor:
    """Images as a network takes them: (value / 255 - mean) / std, float32, (N, 3, H, W).

    `images` is a uint8 array (N, H, W, 3) or a list of RGB images of one size; `mean` and `std`
    are of red, green and blue in 0..1. `pixels` is the exact inverse. Raises ValueError for other
    shapes, modes and dtypes, no image at all, images of different sizes, and a mean or std
    that is not three finite numbers, std above 0.
    """
    batch = torch.from_numpy(_stack(images)).permute(0, 3, 1, 2).contiguous()
    return normalise_bytes(batch, mean, std)


def normalise_bytes(
    x: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """A batch of bytes as a network takes it: what `normalise` does, on any device.

    `x` is uint8 (N, 3, H, W) and stays as it is; the result is float32 of the same shape.
    Raises HirelabError for another dtype, and for a mean or std as `normalise` does.
    """
    if x.dtype != torch.uint8:
        raise HirelabError(f"normalise_bytes() takes uint8, not {x.dtype}.")
    centre, spread = (v.to(x.device) for v in _statistics(mean, std))
    return x.to(torch.float32).div_(255).sub_(centre).div_(spread)


def pixels(
    x: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> np.ndarray:
    """Normalised images (N, 3, H, W) as uint8 (N, H, W, 3), the inverse of `normalise`.

    Values beyond black and white are clipped. Raises ValueError for another shape or dtype, for
    NaN or infinite values, and for a mean or std as `normalise` does.
    """
    centre, spread = _statistics(mean, std)
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        given = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise HirelabError(f"pixels() takes a float tensor (N, 3, H, W), not {given}.")
    x = x.detach().to("cpu", torch.float32)
    if not torch.isfinite(x).all():
        raise HirelabError(
            "pixels() was given NaN or infinite values, which are no colour: look for the step "
            "that made them."
        )
    levels = (x * spread + centre).mul_(255).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def samples(
    n: int | None = 4, size: int = 224, source: Source | Sequence[Source] | None = None
) -> tuple[Tensor, list[str]]:
    """Photographs ready for a network, (N, 3, size, size) float32, and their names.

    They are the `images` of `source`, cut by `square` and brought by `normalise` to ImageNet's
    mean and standard deviation; N is `n`, or less where a source of your own holds fewer, or all
    with n=None. Raises what these four functions raise.
    """
    # One image at a time: only the small squares are kept, however large the files are.
    chosen = [(name, square(open_image(one), size)) for name, one in _chosen(source, n)]
    return normalise([image for _, image in chosen]), [name for name, _ in chosen]


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


# --- sources ---------------------------------------------------------------------------------


def _chosen(source: Any, n: int | None) -> list[tuple[str, Source]]:
    """The first `n` (name, source of one image) of `source`, nothing opened yet."""
    count = None if n is None else _whole("n", n, cure="or None for all of them")
    if source is None and count is not None and count > len(PHOTOGRAPHS):
        raise HirelabError(
            f"There are {len(PHOTOGRAPHS)} sample photographs and n is {count}: ask for at most "
            f"{len(PHOTOGRAPHS)}, or give a folder of your own as source."
        )
    found = _listed(PHOTOGRAPHS if source is None else source)
    if not found:
        raise HirelabError("The list of sources is empty: give at least one image.")
    return found[:count]


def _listed(source: Any, position: int = 1) -> list[tuple[str, Source]]:
    """Every (name, source of one image) in `source`; `position` names what has no name."""
    if isinstance(source, list | tuple):
        return [pair for i, one in enumerate(source, 1) for pair in _listed(one, i)]
    if isinstance(source, str) and source in _FILES:
        return [(source, source)]
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if path.is_dir():
            return [(file.name, file) for file in _image_files(path)]
        return [(path.name, source)]
    return [
        (
            Path(os.fsdecode(getattr(source, "filename", None) or "")).name or f"image {position}",
            source,
        )
    ]


def _image_files(folder: Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name; a ValueError where there is none."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    # Hidden files with an image's suffix are notes of the operating system, such as "._cat.jpg".
    found = [f for f in files if f.suffix.lower() in suffixes() and not f.name.startswith(".")]
    if not found:
        holds = f"none of its {len(files)} files is an image" if files else "it holds no file"
        raise HirelabError(
            f"There is no image in the folder {str(folder)!r}, {holds}: put files there that "
            f"end in one of {', '.join(suffixes())}."
        )
    return found


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
            f"{what} is damaged, cut short or of a kind that Pillow does not decode ({error}): "
            f"get a fresh copy, or save it again as PNG."
        ) from error


def _from_file(file: IO[bytes], what: str, limit: int) -> Image.Image:
    with _decoding(what):
        image = Image.open(file, formats=_formats())
    return _rgb(image, what, limit)


def _rgb(image: Image.Image, what: str, limit: int) -> Image.Image:
    """A new upright RGB image of `image`, which messages call `what`."""
    _check_size(image.size, what, limit)
    with _decoding(what):
        image.load()
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion cuts these off at 255 instead of scaling them.
        image = Image.fromarray(_eight_bit(_deep_values(image, what), what))
    with _decoding(what):
        if not image.has_transparency_data:
            return image.convert("RGB") if image.mode != "RGB" else image
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white


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
    """A new RGB image of an array as `image` takes it."""
    what = f"The array of shape {array.shape}"
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise HirelabError(f"{what} is no image: give (H, W), (H, W, 3) or (H, W, 4).")
    _check_size((array.shape[1], array.shape[0]), what, limit)
    return _rgb(Image.fromarray(_eight_bit(array, what)), what, limit)


def _eight_bit(values: np.ndarray, what: str) -> np.ndarray:
    """Brightness as uint8: uint8 as it is, uint16 scaled from 0..65535, float from 0..1."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind != "f":
        raise HirelabError(
            f"{what} has dtype {values.dtype} where uint8, uint16 or float is expected: convert "
            f"it, for values in 0..255 with .astype(numpy.uint8)."
        )
    if not np.isfinite(values).all():
        raise HirelabError(f"{what} holds NaN or infinite values: replace them, see nan_to_num.")
    # Rounding first lets the last digit of a float computation overshoot black and white.
    levels = np.rint(values * np.float32(255))
    if levels.min() < 0 or levels.max() > 255:
        raise HirelabError(
            f"{what} is float and runs from {values.min():g} to {values.max():g} where 0 to 1 is "
            f"expected: rescale or clip it, or give uint8 for 0 to 255."
        )
    return levels.astype(np.uint8)


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


# --- pixels and numbers ----------------------------------------------------------------------


def _centre(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """The middle of `image`, `size` = (width, height); halves of a pixel round to even."""
    left, top = (round((old - new) / 2) for old, new in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def _stack(images: Any) -> np.ndarray:
    """Images of one size as a new writable uint8 array (N, H, W, 3)."""
    if isinstance(images, Image.Image):
        raise HirelabError("normalise() takes a list of images, not one: write [image].")
    for image in images:
        if isinstance(image, Image.Image) and image.mode != "RGB":
            raise HirelabError(f"normalise() takes mode RGB, not {image.mode}: use open_image().")
    arrays = [np.asarray(image) for image in images]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise HirelabError(
            f"normalise() takes images of one size, not of {shapes}: cut them with square()."
        )
    batch = np.array(arrays)
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != np.uint8 or not batch.size:
        raise HirelabError(
            f"normalise() takes uint8 of shape (N, H, W, 3), none of them 0, not {batch.dtype} of "
            f"shape {batch.shape}."
        )
    return batch


def _statistics(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as tensors (3, 1, 1), checked."""
    centre, spread = (torch.as_tensor(v, dtype=torch.float32) for v in (mean, std))
    finite = all(v.shape == (3,) and v.isfinite().all() for v in (centre, spread))
    if not finite or (spread <= 0).any():
        raise HirelabError(
            f"mean and std are three finite numbers each, std above 0, not mean {mean} and std "
            f"{std}."
        )
    return centre.view(3, 1, 1), spread.view(3, 1, 1)


def _whole(name: str, value: Any, cure: str = "such as 4") -> int:
    """`value` as an int from 1 on, or a ValueError that calls it `name`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1 or isinstance(value, bool):
        raise HirelabError(f"{name} is {value!r} and must be a whole number from 1 on, {cure}.")
    return number

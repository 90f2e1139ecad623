"""Images for the lab: photographs that need no download, your own files, labelled sets.

iter_images  many sources -> [(name, upright RGB image), ...]
samples      the same, cut square and normalised as a network takes them
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError, unknown
from .images import PHOTOGRAPHS, Source, open_image, suffixes
from .transforms import IMAGENET_MEAN, IMAGENET_STD, check_side, normalise, square

__all__ = ["iter_images", "samples"]

_Named = tuple[str, Callable[[], Image.Image]]
"""The name of an image, and what opens it."""


def samples(
    n: int | None = 4,
    img_size: int | None = None,
    source: Source | Sequence[Source] | None = None,
    model: nn.Module | None = None,
) -> tuple[Tensor, list[str]]:
    """Images ready for a network, and their names: ``x, names = samples()``.

    Args:
        n: how many, at least 1; None for all. Fewer come back where the source holds fewer.
        img_size: side in pixels, 1 to 8192; by default that of ``model``, or 224 without one.
        source: see `iter_images`; by default photographs that need no download.
        model: the network they are for. Its mean, standard deviation and size are taken as timm
            resolves them from its ``pretrained_cfg``; without a network, ImageNet's.

    Returns:
        float32 (N, 3, img_size, img_size), cut by `square` and brought by `normalise` to the mean
        and standard deviation; and N names.

    Raises:
        HirelabError: what `iter_images`, `square` and `normalise` raise, and a ``model`` that is
            no network.
        FileNotFoundError: a file that does not exist.
    """
    side, mean, std = _wanted(model)
    size = check_side(side if img_size is None else img_size)
    # One image at a time: only the small squares are kept, however large the files are.
    chosen = [(name, square(opened(), size)) for name, opened in _chosen(source, n)]
    return normalise([image for _, image in chosen], mean, std), [name for name, _ in chosen]


def iter_images(
    source: Source | Sequence[Source] | None = None, n: int | None = 4
) -> list[tuple[str, Image.Image]]:
    """The first `n` images of `source`, or all with n=None, as (name, upright RGB image).

    `source` is None for the sample photographs; or one of the following, or a list of them:

    - anything that `open_image` takes;
    - a folder: the files in it whose suffix is in `suffixes()`, sorted by name, without hidden
      files and without its subfolders;
    - a labelled set, which is a name of `subsets.DATA_SETS`, a zip, or a folder without images of
      its own but with class folders: of its split val (else test, else train, else all that it
      has) the first image of every class, then the second, and so on. They are named by their
      class, in words where those are known. (A zip of images without folders is read too.)

    Raises:
        HirelabError: an `n` that is no whole number from 1, more sample photographs than there
            are, a source without images, and an image that cannot be read, naming it.
        FileNotFoundError: a file that does not exist, with near names.
    """
    return [(name, opened()) for name, opened in _chosen(source, n)]


def _wanted(model: nn.Module | None) -> tuple[Any, Sequence[float], Sequence[float]]:
    """(img_size, mean, std) of the images that a network was made for."""
    if model is not None and not isinstance(model, nn.Module):
        raise HirelabError(f"model is a {type(model).__name__}; give a network, a torch.nn.Module.")
    if not (cfg := getattr(model, "pretrained_cfg", None)):
        return 224, IMAGENET_MEAN, IMAGENET_STD
    from timm.data import resolve_model_data_config  # takes seconds: only where it is needed

    config = resolve_model_data_config(model, pretrained_cfg=cfg)
    mean, std = (v if len(v) == 3 else tuple(v) * 3 for v in (config["mean"], config["std"]))
    return config["input_size"][1:], mean, std


def _chosen(source: Any, n: int | None) -> list[_Named]:
    """The first `n` images of `source`, nothing opened yet."""
    count = None if n is None else check_whole("n", n, 1)
    if source is None and count is not None and count > len(PHOTOGRAPHS):
        raise HirelabError(
            f"There are {len(PHOTOGRAPHS)} sample photographs and n is {count}: ask for at most "
            f"{len(PHOTOGRAPHS)}, or give a folder of your own as source."
        )
    found = _listed(PHOTOGRAPHS if source is None else source)[:count]
    if not found:
        raise HirelabError("The list of sources is empty: give at least one image.")
    return found


def _listed(source: Any, position: int = 1) -> list[_Named]:
    """Every image in `source`; `position` names what has no name."""
    if isinstance(source, list | tuple):
        return [pair for i, one in enumerate(source, 1) for pair in _listed(one, i)]
    if isinstance(source, str) and source in PHOTOGRAPHS:
        return [(source, partial(open_image, source))]
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if path.is_dir():
            return _folder(path)
        if path.suffix.lower() == ".zip" or (not path.exists() and _is_data_set(source)):
            return _labelled(source)
        return [(path.name, partial(open_image, source))]
    name = Path(os.fsdecode(getattr(source, "filename", None) or "")).name
    return [(name or f"image {position}", partial(open_image, source))]


def _is_data_set(name: str | os.PathLike[str]) -> bool:
    """Whether a data set is called so; an error with near names where one nearly is."""
    from .subsets import DATA_SETS  # torchvision, which only labelled sets need

    near = isinstance(name, str) and not Path(name).suffix and get_close_matches(name, DATA_SETS, 1)
    if near and name not in DATA_SETS:
        cure = f"Known by name: {', '.join((*PHOTOGRAPHS, *DATA_SETS))}; or give a path."
        raise HirelabError(unknown("file, photograph or data set", name, DATA_SETS, cure))
    return name in DATA_SETS


def _folder(folder: Path) -> list[_Named]:
    """The image files directly in `folder`, sorted by name; else those of its class folders."""
    inside = sorted(folder.iterdir())
    files = [path for path in inside if path.is_file()]
    # Hidden files with an image's suffix are notes of the operating system, such as "._cat.jpg".
    found = [f for f in files if f.suffix.lower() in suffixes() and not f.name.startswith(".")]
    if found:
        return [(file.name, partial(open_image, file)) for file in found]
    if len(files) < len(inside):
        try:
            return _labelled(folder)
        except HirelabError:
            pass  # no image in its folders either
    holds = f"none of its {len(files)} files is an image" if files else "it holds no file"
    raise HirelabError(
        f"There is no image in the folder {str(folder)!r}, {holds}: put images there (.jpg, .png, "
        ".webp and what else Pillow reads), or folders of images, one for each class."
    )


def _labelled(source: str | os.PathLike[str]) -> list[_Named]:
    """The images of a labelled set, the classes in turn; of a zip also those in no folder."""
    from .subsets import layout, locate, open_images

    there = layout(locate(source))

    def opened(name: str) -> Image.Image:
        try:
            return open_image(there.files.read(name))
        except (HirelabError, OSError) as error:
            raise HirelabError(f"{name} in {there.path}: {error}") from error

    if there.outside and not there.images:
        return [(name, partial(opened, name)) for name in there.outside]
    split = next((s for s in ("val", "test", "train") if s in there.images), "all")
    images = open_images(there.path, split)
    seen = [0] * len(images.classes)
    order = []
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        order.append((seen[label], label, name))
        seen[label] += 1
    words = images.words()
    return [(words[label], partial(opened, name)) for _, label, name in sorted(order)]

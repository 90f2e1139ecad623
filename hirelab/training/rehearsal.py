"""What `hirelab train` does before it begins: everything it was given is tried, nothing written.

A run's folder belongs to the run that was asked for, so that a mistake which shows at the first
step would have taken the folder. Here the network reads a blank image of every size of the recipe,
and the recipe augments one, before the images are listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch._inductor.cpp_builder import get_cpp_compiler

from .._shared.errors import HirelabError
from ..datasets.cache import DecodedImages
from ..datasets.subsets import locate
from .data import AugmentedDataset
from .network import build_network
from .recipes import Recipe
from .runs import RunConfig, check_folder

__all__ = ["check_compiler", "rehearse"]

CLASSES = 10
"""Of the network that is tried; how many the data set has is known once its images are listed."""


def rehearse(
    model: str,
    data: str | Path,
    recipe: Recipe,
    out: str | Path,
    model_arguments: Mapping[str, Any],
    seed: int,
    tensorboard: bool = False,
) -> None:
    """Try everything that `loop.train` is given but the images; arguments as there.

    Raises:
        HirelabError: the name of weights instead of a network, an unknown network or one that does
            not take these arguments or sizes, an unknown data set, an augmentation that timm does
            not know, a folder that holds something else, a missing package.
    """
    name, _, tag = model.partition(".")
    if tag:
        raise HirelabError(
            f"{model} names weights, and training starts from random ones: give the network, {name}"
        )
    if tensorboard and find_spec("tensorboard") is None:
        raise HirelabError("--tensorboard needs it: pip install 'hirelab[tensorboard]'")
    config = RunConfig(model, dict(model_arguments), seed, recipe, (), {})
    check_folder(Path(out), config, but=("classes", "data_fingerprints", "images", "skipped"))
    locate(data)
    check_compiler(recipe)
    _try_network(model, recipe, model_arguments)
    _try_augmentation(recipe)


def check_compiler(recipe: Recipe) -> None:
    """Make sure that a recipe which compiles finds what torch.compile builds with.

    Raises:
        HirelabError: there is no C++ compiler.
    """
    if not recipe.compile:
        return
    try:
        get_cpp_compiler()
    except Exception as error:  # torch has one of its own, and asks the system for others
        raise HirelabError(
            "the recipe compiles the network (compile=True) and torch finds no C++ compiler "
            f"({str(error).splitlines()[0]}): install one, such as g++, or name it in CXX; without "
            "it, train with --set compile=False"
        ) from error


def _try_network(model: str, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    network = build_network(model, CLASSES, recipe.drop_path, arguments).eval()
    for size in sorted({recipe.img_size_at(epoch) for epoch in range(recipe.epochs)}):
        try:
            with torch.no_grad():
                logits = network(torch.zeros(1, 3, size, size))
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise HirelabError(
                f"{model} cannot read images of {size} x {size} pixels, as the recipe has them "
                f"({error}): change img_size and start_img_size with --set, or the network"
            ) from error
        if logits.shape != (1, CLASSES):
            raise HirelabError(
                f"{model} answers {list(logits.shape)} for an image and {CLASSES} classes: give a "
                f"classifier"
            )


def _try_augmentation(recipe: Recipe) -> None:
    blank = np.zeros((1, recipe.stored_size, recipe.stored_size, 3), np.uint8)
    images = cast("DecodedImages", SimpleNamespace(pixels=blank, labels=np.zeros(1, int)))
    try:
        AugmentedDataset(images, recipe, seed=0)[0, 0, 0]
    except Exception as error:  # timm asserts, looks up, converts: every fault has another kind
        raise HirelabError(
            f"timm cannot augment with auto_augment={recipe.auto_augment!r}, "
            f"color_jitter={recipe.color_jitter!r}, scale={recipe.scale!r} "
            f"({type(error).__name__}: {error})"
        ) from error

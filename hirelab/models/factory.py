"""Networks by name (`create`), from a file (`load`), or without numbers (`skeleton`)."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import timm
import torch

from .._shared.errors import HirelabError, unknown
from .checkpoints import architecture, checkpoint_filter_fn, load_into, read
from .hire_mlp import HireMLP, default_cfgs


def model_names() -> list[str]:
    """The names that `create` and timm.create_model know from here, smallest first."""
    return list(default_cfgs)


def create(name: str, *, seed: int | None = None, **kwargs: Any) -> HireMLP:
    """A Hire-MLP in evaluation mode: ``timm.create_model(name, **kwargs).eval()``.

    Args:
        name: one of `model_names`, with ".TAG" for other than its first weights.
        seed: seeds the initial weights, and leaves PyTorch's own random state as it was.
        kwargs: any argument of `HireMLP`, and timm's (pretrained, features_only, ...).

    Returns:
        A `HireMLP`, or timm's wrapper of one with ``features_only=True``.

    Raises:
        HirelabError: for an unknown name; the message suggests near ones.
        FileNotFoundError, RuntimeError: for weights that cannot be had; the message says why.
    """
    if name.partition(".")[0] not in default_cfgs:
        cure = f"hirelab has {', '.join(model_names())}; other networks come from timm."
        raise HirelabError(unknown("network", name, default_cfgs, cure))
    devices = range(torch.cuda.device_count())  # manual_seed seeds them too
    with torch.random.fork_rng(devices=devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        # timm's own wrapper of one with features_only=True
        return cast("HireMLP", timm.create_model(name, **kwargs).eval())


def load(path: str | Path, **kwargs: Any) -> HireMLP:
    """A network in evaluation mode with the weights of a file: ours, or the authors'.

    Sizes, regions, branches and classes are read off the shapes, so that any checkpoint of a
    Hire-MLP fits; the authors' segmentation backbones come without a head and with ``stage_norms``.
    Nothing in the file is executed.

    Args:
        path: safetensors, or a file of torch.save.
        kwargs: what leaves no trace in weights: shift, padding, cross_region, restore, drop rates.

    Raises:
        FileNotFoundError, HirelabError: one sentence that says what is wrong with the file.
    """
    state = checkpoint_filter_fn(read(path))
    found = architecture(state)
    model = HireMLP(**{**found, **kwargs})
    if found["stage_norms"] and "norm.weight" not in state:
        # a segmentation backbone normalises its last stage by that stage's own norm
        last = f"stage_norms.{len(found['dims']) - 1}."
        own = {k: v for k, v in state.items() if k.startswith(last)}
        state |= {k.replace(last, "norm."): v for k, v in own.items()}
    load_into(model, state, str(path))
    return model.eval()


def skeleton(network: str | HireMLP) -> tuple[str, HireMLP]:
    """(name, network) on PyTorch's meta device: shapes without numbers, which cost no memory.

    Args:
        network: a name of `model_names`, or a network, which is left as it is.

    Raises:
        HirelabError: for an unknown name, or something else than a Hire-MLP.
    """
    if isinstance(network, str):
        return network, _by_name(network)
    if not isinstance(network, HireMLP):
        raise HirelabError(
            f"network is a {type(network).__name__}; give a Hire-MLP or the name of one."
        )
    return type(network).__name__, deepcopy(network).to("meta").eval()


@lru_cache(maxsize=16)
def _by_name(name: str) -> HireMLP:
    """Built once, for readers that change nothing."""
    return create(name, device="meta")

"""Networks by name (`create`), from a file (`load`), or without numbers (`skeleton`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, cast

import timm
import torch

from .._shared.checks import check_whole
from .._shared.errors import HirelabError, naming, unknown
from ..hooks.forward import model_name
from .checkpoints import architecture, check_fits, checkpoint_filter_fn, load_into, read
from .hire_mlp import HireMLP, default_cfgs


def model_names(pretrained: bool = False) -> list[str]:
    """The names that `create` and timm.create_model know from here, smallest first.

    Args:
        pretrained: only what has trained weights, as NAME.TAG where there is a tag. NAME alone
            then means the first of its network's.
    """
    if not pretrained:
        return list(default_cfgs)
    every = [(name, tag, cfg) for name, d in default_cfgs.items() for tag, cfg in d.cfgs.items()]
    return [f"{name}.{tag}".rstrip(".") for name, tag, cfg in every if cfg.has_weights]


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Weights that are drawn inside follow from ``seed``, and PyTorch's own random state is
    afterwards as it was; None changes nothing."""
    if seed is not None:
        seed = check_whole("seed", seed, -(2**63), 2**64 - 1)
    devices = range(torch.cuda.device_count())  # manual_seed seeds them too
    with torch.random.fork_rng(devices=devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def create(name: str, *, seed: int | None = None, **kwargs: Any) -> HireMLP:
    """A Hire-MLP in evaluation mode: ``timm.create_model(name, **kwargs).eval()``.

    Args:
        name: one of `model_names`: NAME is an architecture, and with ``pretrained=True`` its first
            weights; NAME.TAG means those weights. So it is in timm, and in every command.
        seed: seeds the initial weights, and leaves PyTorch's own random state as it was.
        kwargs: any argument of `HireMLP`, and timm's (pretrained, features_only, ...).

    Returns:
        A `HireMLP`, or timm's wrapper of one with ``features_only=True``.

    Raises:
        HirelabError: for an unknown name or tag (the message suggests near ones), and for weights
            that nobody has trained.
        FileNotFoundError, RuntimeError: for weights that cannot be had; the message says why.
    """
    _check_name(name, bool(kwargs.get("pretrained")) and not _OWN_WEIGHTS & kwargs.keys())
    with seeded(seed):
        # timm's own wrapper of one with features_only=True
        try:
            return cast("HireMLP", timm.create_model(name, **kwargs).eval())
        except TypeError as error:
            before, _, argument = str(error).rpartition("unexpected keyword argument ")
            if not before:
                raise
            known = [name for name in signature(HireMLP).parameters if name != "self"]
            cure = "help(hirelab.models.HireMLP) lists them."
            raise HirelabError(unknown("argument", argument.strip("'"), known, cure)) from error


_OWN_WEIGHTS = {"pretrained_cfg", "pretrained_cfg_overlay"}
"""timm's arguments by which a caller brings weights of his own."""


def _check_name(name: str, pretrained: bool) -> None:
    """Make sure that a network is called so, and that it has weights where they are asked for."""
    architecture, _, tag = name.partition(".")
    if architecture not in default_cfgs:
        cure = f"hirelab has {', '.join(model_names())}; other networks come from timm."
        raise HirelabError(unknown("network", name, default_cfgs, cure))
    cfgs, trained = default_cfgs[architecture].cfgs, ", ".join(model_names(pretrained=True))
    if tag and tag not in cfgs:
        known = [f"{architecture}.{one}" for one in cfgs if one]
        raise HirelabError(unknown("network", name, known, f"Trained are {trained}."))
    asked = cfgs[tag] if tag else default_cfgs[architecture].default
    if pretrained and not asked.has_weights:
        raise HirelabError(f"{name} has no trained weights; trained are {trained}.")


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
    with naming(path):
        state = checkpoint_filter_fn(read(path))
        found = architecture(state)
    if found["stage_norms"] and "norm.weight" not in state:
        # a segmentation backbone normalises its last stage by that stage's own norm
        last = f"stage_norms.{len(found['dims']) - 1}."
        own = {k: v for k, v in state.items() if k.startswith(last)}
        state |= {k.replace(last, "norm."): v for k, v in own.items()}
    # without numbers first: shapes that do not agree could ask for more memory than there is
    with naming(path), torch.device("meta"):
        check_fits(HireMLP(**{**found, **kwargs}), state, str(path))
    model = HireMLP(**{**found, **kwargs})
    load_into(model, state, str(path))
    return model.eval()


def skeleton(network: str | HireMLP) -> tuple[str, HireMLP]:
    """(timm's name, network) on PyTorch's meta device: shapes without numbers or their memory.

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
    return model_name(network), deepcopy(network).to("meta").eval()


@lru_cache(maxsize=16)
def _by_name(name: str) -> HireMLP:
    """Built once, for readers that change nothing."""
    return create(name, device="meta")

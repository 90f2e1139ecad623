"""The network that a run trains, built by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from .._shared.errors import HirelabError, unknown

__all__ = ["build_network"]


def build_network(
    name: str, classes: int, drop_path: float, arguments: Mapping[str, Any]
) -> nn.Module:
    """A network of timm's or ours for so many classes, untrained, in training mode.

    Args:
        drop_path: highest rate of stochastic depth.
        arguments: the network's own, besides these.

    Raises:
        HirelabError: there is none of that name, or it does not take these arguments.
    """
    import hirelab.models  # noqa: F401  (registers the networks with timm)

    if not timm.is_model(name):
        raise HirelabError(unknown("network", name, timm.list_models(), "See timm.list_models()."))
    try:
        return timm.create_model(name, num_classes=classes, drop_path_rate=drop_path, **arguments)
    except (TypeError, ValueError) as error:
        raise HirelabError(f"{name} with {dict(arguments)}: {error}") from error

"""What a detector or a segmenter stands on: the maps of a network's four stages.

    Backbone       any network of timm's as four maps
    DenseNetwork   base of detectors and segmenters: a backbone, what it was built from, its file

The network inside is whole (`Backbone.network`), so that points, edits and measurements reach it
under the names that they have in a classifier.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import timm
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import BatchNormAct2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from .._shared.errors import HirelabError, first_line, unknown
from .._shared.files import atomic
from .._shared.reading import parse_json
from ..models.checkpoints import load_into, read

__all__ = ["Backbone", "DenseNetwork", "sort_settings"]

_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


class Backbone(nn.Module):
    """The outputs of the last four stages of a network, finest first: 1/4 to 1/32 of the image.

    Args:
        name: of timm's networks, or ours.
        pretrained: with the trained weights that this name has.
        frozen_norm: BatchNorm keeps the statistics and weights that it came with, also while the
            rest trains: the custom with two images a device, whose statistics say little.
        stage_norms: of a Hire-MLP: a BatchNorm for each map, as the authors' segmentation backbone
            has (``extra_norm``).
        arguments: the network's own.

    Attributes:
        network: the network itself, without its head.
        channels: of the four maps.

    Raises:
        HirelabError: there is no such network, it does not take the arguments, or it does not have
            four stages.
    """

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = False,
        frozen_norm: bool = False,
        stage_norms: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        import hirelab.models  # noqa: F401  (registers the networks with timm)

        if not timm.is_model(name):
            cure = "See timm.list_models()."
            raise HirelabError(unknown("backbone", name, timm.list_models(), cure))
        if stage_norms:
            arguments = {**arguments, "stage_norms": True}
        try:
            # the getter leaves the network whole; timm's other wrappers take it apart
            whole = timm.create_model(name, pretrained=pretrained, **arguments)
            self.body = FeatureGetterNet(whole, (-4, -3, -2, -1), norm=stage_norms)
        except (TypeError, ValueError, AssertionError, AttributeError) as error:
            raise HirelabError(f"{name} with {arguments} is no backbone: {error}") from error
        self.channels: list[int] = self.body.feature_info.channels()
        reductions = self.body.feature_info.reduction()
        if reductions != [4, 8, 16, 32]:
            raise HirelabError(
                f"The last four maps of {name} are 1/{', 1/'.join(map(str, reductions))} of the "
                "image; a pyramid takes 1/4, 1/8, 1/16 and 1/32: choose another backbone."
            )
        self.frozen_norm = frozen_norm
        if frozen_norm:
            for module in self.modules():
                if isinstance(module, _NORMS):
                    module.requires_grad_(False)
        self.train(self.training)

    @property
    def network(self) -> nn.Module:
        return self.body.model

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps (B, C, H/4, W/4) to (B, C, H/32, W/32), rounded up."""
        return self.body(x)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, _NORMS):
                    module.eval()
        return self


class DenseNetwork(nn.Module):
    """Base of `Detector` and `Segmenter`.

    Attributes:
        backbone: the maps that its head reads.
        classes: names of what it knows; a label is an index into them.
        config: what builds the same network again, without weights.
    """

    backbone: Backbone
    classes: tuple[str, ...]
    config: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write the weights and what they belong to, in one safetensors file."""
        state = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        with atomic(Path(path)) as temporary:
            save_file(state, temporary, {"hirelab": json.dumps(self.config)})


def read_config(path: str | Path) -> dict[str, Any]:
    """What the network in a file of `DenseNetwork.save` was built from.

    Raises:
        HirelabError: the file is none.
    """
    try:
        with safe_open(path, "pt") as file:
            config = parse_json((file.metadata() or {})["hirelab"])
        if not isinstance(config, dict):
            raise ValueError(f"its config is a {type(config).__name__}")
        return config
    except FileNotFoundError:
        raise HirelabError(f"There is no file {str(path)!r}: check the path.") from None
    except Exception as error:  # safetensors' own errors have no common base of their own
        raise HirelabError(
            f"{path} is no detector or segmenter that hirelab wrote ({first_line(error)}); a "
            "backbone's weights are loaded with hirelab.load."
        ) from error


def load_weights(network: DenseNetwork, path: str | Path) -> None:
    """Put the weights of a file into the network that its config built.

    Raises:
        HirelabError: they are of another network.
    """
    load_into(network, read(path), str(path))


def class_names(classes: int | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Names of classes, from names or from how many there are.

    Raises:
        HirelabError: there is none, or a name comes twice.
    """
    if isinstance(classes, int):
        names = tuple(f"class {i}" for i in range(classes))
    else:
        names = tuple(map(str, classes))
    if not names or len(set(names)) < len(names):
        raise HirelabError(
            f"classes is {classes!r}; give how many there are, at least 1, or their names, each "
            "once."
        )
    return names


def sort_settings(network: type[DenseNetwork], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a network's class takes them: what it does not know is its backbone's, so that
    ``cross_region="none"`` needs no dictionary inside another."""
    own = inspect.signature(network).parameters
    known = {name: value for name, value in settings.items() if name in own}
    other = {name: value for name, value in settings.items() if name not in own}
    if other:
        known["arguments"] = {**(known.get("arguments") or {}), **other}
    return known

"""What the explorers look at: a square image and the stages of a network."""

from __future__ import annotations

from collections.abc import Sized
from functools import cache
from typing import Any, cast

from PIL import Image
from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..analysis.pyramid import stage_grids
from ..datasets.images import open_image
from ..datasets.transforms import pixels, square
from ..models.hire_mlp import HireMLP

SIDE = 224  # pixels; the input of the paper's networks


def square_image(source: Any = None) -> Image.Image:
    """A 224 x 224 RGB image from a normalised tensor (3, H, W), or from anything that
    `hirelab.datasets.open_image` opens (a file, a name, a PIL image, an array).

    Raises:
        HirelabError: for a tensor of another shape, or one with NaN.
    """
    if source is None:
        source = "coffee"
    if isinstance(source, Tensor):
        if source.dim() != 3 or source.shape[0] != 3:
            raise HirelabError(
                f"The image is a tensor of shape {list(source.shape)}; give one image "
                "(3, height, width), say x[0] of a batch x."
            )
        source = Image.fromarray(pixels(source[None])[0])
    return square(open_image(source), SIDE)


def check_network(model: nn.Module) -> HireMLP:
    """The network itself, or a HirelabError for one that is no Hire-MLP."""
    if not all(hasattr(model, name) for name in ("stages", "feature_info", "shift_cycle")):
        raise HirelabError(
            f"{type(model).__name__} is not a whole Hire-MLP; give one made by hirelab.create."
        )
    return cast("HireMLP", model)  # one that torch.compile wrapped is no instance


def stage_table(model: nn.Module | None) -> list[dict[str, int]]:
    """grid, dim and cycle of every stage of a network at 224 x 224 pixels.

    Without a network: those of Hire-MLP-Tiny, whose stages Small and Base share.

    Raises:
        HirelabError: for a network that is not a Hire-MLP.
    """
    if model is None:
        return list(_tiny_stages())
    network = check_network(model)
    grids = stage_grids(network, (SIDE, SIDE))
    return [
        {"grid": rows, "dim": info["num_chs"], "cycle": cycle}
        # pruned networks still list all their stages in feature_info
        for (rows, _), info, cycle in zip(
            grids, network.feature_info, network.shift_cycle, strict=False
        )
    ]


@cache
def _tiny_stages() -> list[dict[str, int]]:
    """The stages of an explorer without a network; building one takes a tenth of a second."""
    from ..models import create

    return stage_table(create("hire_mlp_tiny", device="meta"))


def missing_stage(stages: Sized, stage: int) -> str | None:
    """Why a network of these stages has no such one (they count from 1), or None."""
    if stage <= len(stages):
        return None
    return f"Stage {stage} is not there: the network has {len(stages)}, from 1 on."

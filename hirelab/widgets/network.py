"""What explorers look at of a network: the sizes of its stages, or what runs through its blocks.

Two bases: `StageExplorer` needs only sizes, and takes those of Hire-MLP-Tiny where no network is
given; `ModelExplorer` runs the network on an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar, cast

import numpy as np
from PIL import Image
from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..analysis.pyramid import stage_grids
from ..datasets.transforms import check_side
from ..hooks.forward import eval_mode, is_trained, pretrained_cfg
from ..hooks.points import Cache
from ..models import create
from ..models.hire_mlp import BRANCHES, HireBlock, HireMixing, HireMLP, HireStage
from .controls import Depends
from .explorer import Explorer
from .inputs import GIVEN, SIDE, image_name, square_image


def check_network(model: nn.Module) -> HireMLP:
    """The network itself.

    Raises:
        HirelabError: for a network whose stages are not Hire-MLP's.
    """
    if not all(hasattr(model, name) for name in ("stages", "feature_info", "shift_cycle")):
        raise HirelabError(
            f"{type(model).__name__} is not a whole Hire-MLP; give one made by hirelab.create."
        )
    return cast(HireMLP, model)


def magnitude(value: Tensor) -> np.ndarray:
    """(rows, columns) of a point's tensor for one image, (1, C, rows, columns): the root mean
    square over channels."""
    return value[0].float().square().mean(0).sqrt().cpu().numpy()


# ------------------------------------------------------------------ stages


@dataclass(frozen=True)
class Stage:
    """A stage at the size of the image that is looked at.

    Attributes:
        name: of the stage's module, as in the names of points: "stages.2".
        grid: tokens along a side.
        dim: channels.
        cycle: block b shifts by (b mod cycle) * shift.
    """

    name: str
    grid: int
    dim: int
    cycle: int


def stage_table(model: nn.Module | None, img_size: int = SIDE) -> Sequence[Stage]:
    """The stages of a network at an image of ``img_size`` pixels a side; or those of Hire-MLP-Tiny,
    whose stages Small and Base share.

    Raises:
        HirelabError: for a network that is not a Hire-MLP.
    """
    hire = check_network(_tiny() if model is None else model)
    grids = stage_grids(hire, (img_size, img_size))
    return tuple(
        Stage(f"stages.{i}", rows, info["num_chs"], cycle)
        # pruned networks still list all their stages in feature_info
        for i, ((rows, _), info, cycle) in enumerate(
            zip(grids, hire.feature_info, hire.shift_cycle, strict=False)
        )
    )


@cache
def _tiny() -> nn.Module:
    """The network of an explorer that needs only sizes; building it takes a tenth of a second."""
    return create("hire_mlp_tiny", device="meta")


def trained_size(model: nn.Module | None) -> int:
    """The side of the images that a network was made for, in pixels; 224 where nothing tells."""
    _, *sides = pretrained_cfg(model).get("input_size", (3, SIDE, SIDE)) if model else (3, SIDE)
    return min(sides)


class SizedExplorer(Explorer):
    """Base of the explorers of a network, and of an image where they are `pictured`.

    Args:
        model: the network; checked by the subclass.
        image: see `square_image`.
        img_size: the side of the image in pixels; by default the one the network was made for.
    """

    def __init__(
        self,
        model: nn.Module | None,
        image: Any = None,
        img_size: int | None = None,
        **settings: Any,
    ):
        self.img_size = check_side(trained_size(model) if img_size is None else img_size)
        self._image = self.fitted(image)
        self._image_name = image_name(image)  # for a reader
        self._first = (self._image, self._image_name)
        super().__init__(**settings)

    def fitted(self, image: Any) -> Image.Image:
        """An image, whatever it is given as, as this explorer shows it."""
        return square_image(image, self.img_size)

    def look_at(self, image: Any) -> None:
        if not self.pictured:
            super().look_at(image)
        self._show_image(self.fitted(image))
        self._image_name = image_name(image)
        self.set(**self.given)

    def reset(self) -> None:
        """Go back to the settings, and to the image, that the explorer was made with; a live view
        follows."""
        image, self._image_name = self._first
        self._show_image(image)
        super().reset()

    def _show_image(self, image: Image.Image) -> None:
        """Let the next frame be of this image; nothing that was made of the last one is kept."""
        if image is not self._image:
            self._image = image
            self._live_frame.cache_clear()


class StageExplorer(SizedExplorer):
    """Base of the explorers of a stage's map, which ask a network for nothing but its sizes."""

    def __init__(
        self,
        model: nn.Module | None = None,
        image: Any = None,
        img_size: int | None = None,
        **settings: Any,
    ):
        if model is not None:
            check_network(model)
        size = trained_size(model) if img_size is None else img_size
        self._stages = stage_table(model, check_side(size))
        super().__init__(model, image, size, **settings)

    def limits(self) -> dict[str, Any]:
        return {"stage": range(len(self._stages))}

    def stage(self, settings: Any) -> Stage:
        """The stage that the settings choose."""
        return self._stages[settings.stage]

    def last_token(self, stage: int) -> int:
        """The last token of a line of a stage's map; the first is 0."""
        return self._stages[stage].grid - 1


# ------------------------------------------------------------------ the network itself


class ModelExplorer(SizedExplorer):
    """Base of the explorers that run a network on an image and look at one of its blocks.

    A subclass writes ``run``, which reads the network; the last ``KEPT`` results are kept, since
    network and image are fixed. Its settings have a ``stage`` and a ``block``, counted from 0.

    Args:
        model: a Hire-MLP; by default the trained Hire-MLP-Pico that comes with hirelab.
        image: see `square_image`.
        img_size: the side of the image in pixels; by default the one the network was made for.
    """

    KEPT: ClassVar[int] = 8
    USUAL: ClassVar[str] = "hire_mlp_pico"  # the trained network that stands in for none
    pictured = True

    def __init__(
        self,
        model: nn.Module | None = None,
        image: Any = None,
        img_size: int | None = None,
        **settings: Any,
    ):
        if model is None:
            model = create(self.USUAL, pretrained=True)
        self._model = check_network(model)
        self._read = lru_cache(maxsize=self.KEPT)(self.run)
        super().__init__(model, image, img_size, **settings)

    def _show_image(self, image: Image.Image) -> None:
        super()._show_image(image)
        self._read.cache_clear()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def limits(self) -> dict[str, Any]:
        stages = range(len(self._model.stages))
        return {
            "stage": stages[-1],
            "block": Depends(("stage",), lambda stage: len(self._blocks(stage)) - 1),
        }

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that the network's blocks have."""
        hire = self._blocks(0)[0].hire
        return tuple(name for name in BRANCHES if getattr(hire, name) is not None)

    def block_name(self, settings: Any) -> str:
        """The name of the chosen block's module, with which the names of its points begin."""
        return f"stages.{settings.stage}.blocks.{settings.block}"

    def hire_module(self, settings: Any) -> HireMixing:
        """The hire module of the chosen block."""
        return cast(HireBlock, self._blocks(settings.stage)[settings.block]).hire

    def _shown(self, photograph: str) -> Image.Image:
        """The image of that name; the reader's own for "the given one"."""
        return self._image if photograph == GIVEN else square_image(photograph, self.img_size)

    def untrained_note(self) -> str:
        """What a figure says of weights that were never trained; else nothing.

        The weights are asked, and not who made them: a reader's own network may be fresh.
        """
        return "; the weights are untrained" if is_trained(self._model).trained is False else ""

    def activations(self, x: Tensor, names: str | Sequence[str]) -> Cache:
        """The tensors of the points that a pattern names, or several, in evaluation mode."""
        with eval_mode(self._model):
            return self._model.run_with_cache(x, names, stop_early=True)[1]

    def _blocks(self, stage: int) -> nn.Sequential:
        return cast(HireStage, self._model.stages[stage]).blocks

"""What explorers look at of a network: the sizes of its stages, or what runs through its blocks.

Two bases: `StageExplorer` needs only sizes, and takes those of Hire-MLP-Tiny where no network is
given; `ModelExplorer` runs the network on an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..analysis.pyramid import stage_grids
from ..hooks.forward import eval_mode, is_trained
from ..models import create
from ..models.hire_mlp import BRANCHES, HireBlock, HireMixing, HireMLP, HireStage
from .explorer import Explorer
from .inputs import SIDE, square_image


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


# ------------------------------------------------------------------ stages


@dataclass(frozen=True)
class Stage:
    """A stage at 224 x 224 pixels.

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


def stage_table(model: nn.Module | None) -> Sequence[Stage]:
    """The stages of a network, or those of Hire-MLP-Tiny, whose stages Small and Base share.

    Raises:
        HirelabError: for a network that is not a Hire-MLP.
    """
    if model is None:
        return _tiny_stages()
    hire = check_network(model)
    grids = stage_grids(hire, (SIDE, SIDE))
    return tuple(
        Stage(f"stages.{i}", rows, info["num_chs"], cycle)
        # pruned networks still list all their stages in feature_info
        for i, ((rows, _), info, cycle) in enumerate(
            zip(grids, hire.feature_info, hire.shift_cycle, strict=False)
        )
    )


@cache
def _tiny_stages() -> Sequence[Stage]:
    """The stages of an explorer without a network; building one takes a tenth of a second."""
    return stage_table(create("hire_mlp_tiny", device="meta"))


class StageExplorer(Explorer):
    """Base of the explorers of a stage's map, which ask a network for nothing but its sizes."""

    def __init__(self, model: nn.Module | None = None, **settings: Any):
        self._stages = stage_table(model)
        super().__init__(**settings)

    def limits(self) -> dict[str, Any]:
        return {"stage": range(len(self._stages))}

    def stage(self, settings: Any) -> Stage:
        """The stage that the settings choose."""
        return self._stages[settings.stage]


# ------------------------------------------------------------------ the network itself


class ModelExplorer(Explorer):
    """Base of the explorers that run a network on an image and look at one of its blocks.

    A subclass writes ``run``, which reads the network; the last ``KEPT`` results are kept, since
    network and image are fixed. Its settings have a ``stage`` and a ``block``, counted from 0.

    Args:
        model: a Hire-MLP; by default an untrained Hire-MLP-Tiny.
        image: a tensor (3, H, W), a file, a sample's name, a PIL image or an array.
    """

    KEPT: ClassVar[int] = 8

    def __init__(self, model: nn.Module | None = None, image: Any = None, **settings: Any):
        self._model = create("hire_mlp_tiny", seed=0) if model is None else check_network(model)
        self._given = square_image(image)
        self._read = lru_cache(maxsize=self.KEPT)(self.run)
        super().__init__(**settings)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def limits(self) -> dict[str, Any]:
        depths = [len(self._blocks(stage)) for stage in range(len(self._model.stages))]
        return {"stage": len(depths) - 1, "block": max(depths) - 1}

    def block_name(self, settings: Any) -> str:
        """The name of the chosen block's module, with which the names of its points begin."""
        return f"stages.{settings.stage}.blocks.{settings.block}"

    def hire_module(self, settings: Any) -> HireMixing:
        """The hire module of the chosen block."""
        return cast(HireBlock, self._blocks(settings.stage)[settings.block]).hire

    def untrained_note(self) -> str:
        """What a figure says of weights that were never trained; else nothing.

        The weights are asked, and not who made them: a reader's own network may be fresh.
        """
        return "; the weights are untrained" if is_trained(self._model).trained is False else ""

    def missing_block(self, settings: Any) -> str | None:
        """Why the chosen stage has no such block, or None."""
        depth = len(self._blocks(settings.stage))
        if settings.block < depth:
            return None
        last = f"0 to {depth - 1}" if depth > 1 else "block 0 alone"
        return f"Block {settings.block} does not exist: stage {settings.stage} has {last}."

    def missing_branch(self, settings: Any, branch: str) -> str | None:
        """Why the chosen block has no such branch, or None; other words are no branches."""
        if branch not in BRANCHES or getattr(self.hire_module(settings), branch) is not None:
            return None
        return f"The {branch} branch does not exist: the network was built without it."

    def activations(self, x: Tensor, names: str) -> Any:
        """The `Cache` of the points that a pattern names, in evaluation mode."""
        with eval_mode(self._model):
            return self._model.run_with_cache(x, names, stop_early=True)[1]

    def _blocks(self, stage: int) -> nn.Sequential:
        return cast(HireStage, self._model.stages[stage]).blocks

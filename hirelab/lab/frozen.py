"""The explorers of the gallery, frozen: pages whose controls move without a kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ablation.tables import find_tables
from ..models import create
from ..models.kin import KIN
from ..widgets import (
    AblationExplorer,
    AttributionExplorer,
    BlockExplorer,
    CostExplorer,
    DenseExplorer,
    Explorer,
    KinExplorer,
    NetworkExplorer,
    ReachExplorer,
    RearrangementPlayer,
    ReceptiveFieldExplorer,
    RegionExplorer,
    ShiftExplorer,
)
from ..widgets.controls import Choice, Slider
from ..widgets.dense import SCENES
from .outputs import Shown


@dataclass(frozen=True)
class Frozen:
    """An explorer and what moves on its page.

    Attributes:
        page: the page's file name.
        explorer: as the page shows it at first.
        over: for each setting that moves, its values; what the page shows at first is added.
        also: further combinations, each as ``over``: see `Explorer.freeze`.
    """

    page: str
    explorer: Explorer
    over: Mapping[str, Iterable[Any]]
    also: Sequence[Mapping[str, Iterable[Any]]] = ()

    @property
    def name(self) -> str:
        """The explorer's class, as a notebook's output names it."""
        return type(self.explorer).__name__

    @property
    def pictures(self) -> int:
        """How many combinations are drawn."""
        asked = (self.moving(), *self.also)
        return sum(math.prod(len(list(values)) for values in over.values()) for over in asked)

    def moving(self) -> dict[str, list[Any]]:
        """The values of ``over``, and those that the explorer stands at."""
        now = self.explorer.settings
        return {name: _with(list(given), getattr(now, name)) for name, given in self.over.items()}

    def begin_as(self, shown: Shown) -> None:
        """Let the page begin as a notebook shows the explorer, on its image.

        Raises:
            HirelabError: for settings that this explorer's network has not.
        """
        if shown.image is not None and self.explorer.pictured:
            self.explorer.look_at(shown.image)
        self.explorer.set(**shown.settings)

    def write(self, folder: Path) -> Path:
        """Draw everything and write the page."""
        return self.explorer.freeze(folder / self.page, *self.also, **self.moving())


def _with(values: list[Any], one: Any) -> list[Any]:
    """The values and one more, among numbers where it belongs; as they are where they have it."""
    if one in values:
        return values
    numbers = all(isinstance(value, int) for value in [one, *values])
    return sorted([one, *values]) if numbers else [one, *values]


def frozen_explorers() -> list[Frozen]:
    """A page for every explorer, with the settings that its notebook asks the reader to move.

    Each begins as its notebook shows it (`Frozen.begin_as`), or else as here. A photograph in every
    image weighs thirty kilobytes or more, so such explorers move less.
    """
    trained: Any = create("hire_mlp_pico", pretrained=True)
    player = RearrangementPlayer(frame=25)
    depth = max(len(stage.blocks) for stage in trained.stages)
    attribution = AttributionExplorer(trained, "rocket", trained.pretrained_cfg["label_names"])
    classes = every(attribution, "target")
    both = (True, False)
    others = [name for name in KIN if name != "Hire-MLP-S"]
    squares = ("AS-MLP-T", "Swin-T", "ConvNeXt-T")
    return [
        Frozen(
            "network.html",
            NetworkExplorer(),
            {
                "stage": range(4),
                "block": range(depth),
                "point": ("out", "hire.height.mixed", "hire.width.mixed"),
            },
            [  # the first token and one further in; the last map has 3 rows, those before 6 or more
                {"stage": stages, "block": range(depth), "row": line, "column": line}
                for stages, line in ((range(3), (0, 4)), ([3], (0, 2)))
            ],
        ),
        Frozen("player.html", player, {"frame": range(player.last + 1), "shift": range(4)}),
        Frozen(
            "regions.html",
            RegionExplorer(),
            {
                "stage": (1, 3),
                "region_height": range(1, 9),
                "padding": ("circular", "zero"),
                "pick": (0, 2),
            },
        ),
        Frozen(
            "shift.html",
            ShiftExplorer(),
            {"shift": range(-3, 4), "region": range(2, 5), "restore": both, "token": (0, 6)},
        ),
        Frozen(
            "block.html",
            BlockExplorer(trained, "cat"),
            {"stage": range(4), "block": range(depth), "carry_back": both},
            [{"stage": range(4), "block": range(depth), "channel": (0, 1)}],
        ),
        Frozen(
            "cost.html",
            CostExplorer(),
            {"region": range(1, 9), "dim": (128, 320), "size": (7, 14, 28, 56)},
        ),
        Frozen(
            "field.html",
            ReceptiveFieldExplorer(trained, "rocket"),
            {
                "stage": range(4),
                "position": ("centre", "corner", "top edge"),
                "paths": ("full", "spatial", "height", "width"),
            },
        ),
        Frozen(
            "reach.html",
            ReachExplorer(),
            {"stage": (1, 2, 3), "blocks": range(1, 13)},
            [{"stage": [2], "blocks": range(1, 13), "shift": [3]}],
        ),
        Frozen(
            "attribution.html",
            attribution,
            {
                "point": ("block output", "height branch"),
                "stage": range(4),
                "target": classes,
            },
            [{"method": ("gradient", "SmoothGrad"), "target": classes}],
        ),
        Frozen(
            "dense.html",
            DenseExplorer(),
            {"photograph": (SCENES[1], *SCENES[3:5]), "threshold": (10, 50, 90), "stage": range(4)},
        ),
        Frozen(
            "kin.html",
            KinExplorer(),
            {"right": others, "blocks": (*range(1, 7), 9, 14)},
            [
                {
                    "right": squares,
                    "row": (0, 4),
                    "column": (0, 5),
                    "blocks": (1, 2, 3, 5, 9, 14),
                },
                {"left": ["AS-MLP-T"], "right": squares[1:], "blocks": (1, 2, 3, 5, 14)},
            ],
        ),
        Frozen(
            "ablation.html",
            AblationExplorer(),
            {"table": [table.name for table in find_tables()], "metric": ("top1", "loss")},
        ),
    ]


def every(explorer: Explorer, setting: str) -> list[Any]:
    """All values that a setting of an explorer can have."""
    control = explorer.controls[setting]
    if isinstance(control, Choice):
        return list(control.options)
    if isinstance(control, Slider):
        return list(range(control.low, control.high + 1))
    return [True, False]

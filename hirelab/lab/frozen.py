"""The explorers of the gallery, frozen: pages whose controls move without a kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True)
class Frozen:
    """An explorer and what moves on its page.

    Attributes:
        page: the page's file name.
        explorer: as the page shows it at first.
        over: for each setting that moves, its values.
    """

    page: str
    explorer: Explorer
    over: Mapping[str, Iterable[Any]]

    @property
    def name(self) -> str:
        """The explorer's class, as a notebook's output names it."""
        return type(self.explorer).__name__

    @property
    def pictures(self) -> int:
        """How many combinations are drawn."""
        return math.prod(len(list(values)) for values in self.over.values())

    def write(self, folder: Path) -> Path:
        """Draw everything and write the page."""
        return self.explorer.freeze(folder / self.page, **self.over)


def frozen_explorers() -> list[Frozen]:
    """A page for every explorer, with the settings that its notebook asks the reader to move.

    A photograph in every image weighs thirty kilobytes or more, so such explorers move less.
    """
    trained: Any = create("hire_mlp_pico", pretrained=True)
    player = RearrangementPlayer(frame=25)
    depth = max(len(stage.blocks) for stage in trained.stages)
    attribution = AttributionExplorer(trained, "rocket", trained.pretrained_cfg["label_names"])
    both = (True, False)
    return [
        Frozen(
            "network.html",
            NetworkExplorer(),
            {
                "stage": range(4),
                "block": range(depth),
                "point": ("out", "hire.height.mixed", "hire.width.mixed"),
            },
        ),
        Frozen("player.html", player, {"frame": range(player.last + 1), "shift": range(4)}),
        Frozen(
            "regions.html",
            RegionExplorer(view="tokens", pick=0),
            {
                "stage": (1, 3),
                "region_height": range(1, 9),
                "pick": (0, 2),
                "padding": ("circular", "zero"),
            },
        ),
        Frozen(
            "shift.html",
            ShiftExplorer(),
            {"shift": range(-3, 4), "region": range(2, 5), "token": (0, 6), "restore": both},
        ),
        Frozen(
            "block.html",
            BlockExplorer(trained, "cat"),
            {"stage": range(4), "block": range(depth), "carry_back": both},
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
            {"blocks": range(1, 13), "stage": (1, 2, 3)},
        ),
        Frozen(
            "attribution.html",
            attribution,
            {
                "target": every(attribution, "target"),
                "stage": range(4),
                "point": ("block output", "height branch"),
            },
        ),
        Frozen(
            "dense.html",
            DenseExplorer(row=45, column=45),
            {"photograph": SCENES[1:5], "stage": range(4), "threshold": (10, 50, 90)},
        ),
        Frozen(
            "kin.html",
            KinExplorer(row=7, column=7),
            {
                "right": [name for name in KIN if name != "Hire-MLP-S"],
                "stage": (1, 2),
                "blocks": range(1, 7),
            },
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

"""The explorers of the gallery, frozen: pages whose sliders move without a kernel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..ablation.tables import find_tables
from ..models import create
from ..widgets import (
    AblationExplorer,
    AttributionExplorer,
    BlockExplorer,
    CostExplorer,
    Explorer,
    ReachExplorer,
    RearrangementPlayer,
    ReceptiveFieldExplorer,
    RegionExplorer,
    ShiftExplorer,
)


def frozen_pages(folder: str | Path) -> list[tuple[str, str]]:
    """Write pages whose sliders move without a kernel; returns (title, file name) of each.

    One page per explorer, with the settings that teach most: fewer than a hundred images per
    page keep it to a few megabytes.
    """
    folder = Path(folder)
    region = RegionExplorer(stage=1, pick=0, view="tokens")
    shift = ShiftExplorer()
    player = RearrangementPlayer()
    cost = CostExplorer()
    block = BlockExplorer(image="cat", stage=0, block=0)
    reach = ReachExplorer()
    trained = create("hire_mlp_pico", pretrained=True)
    card: Any = trained.pretrained_cfg
    field = ReceptiveFieldExplorer(trained, "cat")
    attribution = AttributionExplorer(trained, "rocket", card["label_names"])
    ablation = AblationExplorer()
    tables = [table.name for table in find_tables()]
    pages: list[tuple[Explorer, str, dict[str, Iterable[Any]]]] = [
        (region, "regions.html", {"region_height": range(1, 9), "region_width": range(1, 9)}),
        (
            shift,
            "shift.html",
            {"shift": range(-4, 5), "region": range(1, 6), "restore": (True, False)},
        ),
        (player, "player.html", {"frame": range(player.settings.frame, player.last + 1)}),
        (cost, "cost.html", {"region": range(1, 9), "size": (7, 14, 28, 56)}),
        (block, "block.html", {"stage": range(4), "block": range(2)}),
        (reach, "reach.html", {"blocks": range(1, 13)}),
        (field, "field.html", {"stage": range(4), "block": range(2)}),
        (
            attribution,
            "attribution.html",
            {"point": ("block output", "height branch", "width branch"), "stage": range(4)},
        ),
        (ablation, "ablation.html", {"table": tables, "metric": ("top1", "loss")}),
    ]
    for explorer, name, over in pages:
        explorer.freeze(folder / name, **over)
    return [(explorer.title, name) for explorer, name, _ in pages]

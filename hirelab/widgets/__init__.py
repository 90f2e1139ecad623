"""Explorers: objects that show themselves as live controls, as a still, or as a frozen page."""

from pathlib import Path

from ..models import create
from .attribution import AttributionExplorer
from .block import BlockExplorer
from .cost import CostExplorer
from .explorer import Explorer
from .field import ReceptiveFieldExplorer
from .player import RearrangementPlayer
from .reach import ReachExplorer
from .region import RegionExplorer
from .shift import ShiftExplorer

__all__ = [
    "AttributionExplorer",
    "BlockExplorer",
    "CostExplorer",
    "Explorer",
    "ReachExplorer",
    "RearrangementPlayer",
    "ReceptiveFieldExplorer",
    "RegionExplorer",
    "ShiftExplorer",
    "frozen_pages",
]


def frozen_pages(folder: str | Path) -> list[tuple[str, str]]:
    """Write pages whose sliders move without a kernel; returns (title, file name) of each.

    One page an explorer, with the settings that teach most: fewer than a hundred images a page
    keep it to a few megabytes.
    """
    folder = Path(folder)
    region = RegionExplorer(stage=2, pick=0, view="tokens")
    shift = ShiftExplorer()
    player = RearrangementPlayer()
    cost = CostExplorer()
    block = BlockExplorer(image="cat", stage=1, block=1)
    reach = ReachExplorer()
    trained = create("hire_mlp_pico", pretrained=True)
    names = trained.pretrained_cfg["label_names"]
    field = ReceptiveFieldExplorer(trained, "cat")
    attribution = AttributionExplorer(trained, "rocket", names)
    pages = [
        (region, "regions.html", {"region_height": range(1, 9), "region_width": range(1, 9)}),
        (
            shift,
            "shift.html",
            {"shift": range(-4, 5), "region": range(1, 6), "restore": (True, False)},
        ),
        (player, "player.html", {"frame": range(player.settings.frame, player.last + 1)}),
        (cost, "cost.html", {"region": range(1, 9), "size": (7, 14, 28, 56)}),
        (block, "block.html", {"stage": range(1, 5), "block": range(1, 3)}),
        (reach, "reach.html", {"blocks": range(1, 13)}),
        (field, "field.html", {"stage": range(1, 5), "block": range(1, 3)}),
        (
            attribution,
            "attribution.html",
            {"point": ("block output", "height branch", "width branch"), "stage": range(1, 5)},
        ),
    ]
    for explorer, name, over in pages:
        explorer.freeze(folder / name, **over)
    return [(explorer.title, name) for explorer, name, _ in pages]

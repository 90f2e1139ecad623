"""Explorers: objects that show themselves as live controls, as a still, or as a frozen page."""

from .block import BlockExplorer
from .cost import CostExplorer
from .explorer import Explorer
from .player import RearrangementPlayer
from .region import RegionExplorer
from .shift import ShiftExplorer

__all__ = [
    "BlockExplorer",
    "CostExplorer",
    "Explorer",
    "RearrangementPlayer",
    "RegionExplorer",
    "ShiftExplorer",
]

"""Explorers: objects that show themselves as live controls, as a still, or as a frozen page."""

from .ablation import AblationExplorer
from .attribution import AttributionExplorer
from .block import BlockExplorer
from .cost import CostExplorer
from .dense import DenseExplorer
from .explorer import Explorer
from .field import ReceptiveFieldExplorer
from .kin import KinExplorer
from .overview import NetworkExplorer
from .player import RearrangementPlayer
from .reach import ReachExplorer
from .region import RegionExplorer
from .shift import ShiftExplorer

__all__ = [
    "AblationExplorer",
    "AttributionExplorer",
    "BlockExplorer",
    "CostExplorer",
    "DenseExplorer",
    "Explorer",
    "KinExplorer",
    "NetworkExplorer",
    "ReachExplorer",
    "RearrangementPlayer",
    "ReceptiveFieldExplorer",
    "RegionExplorer",
    "ShiftExplorer",
]

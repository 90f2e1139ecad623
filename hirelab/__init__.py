"""hirelab: look inside Hire-MLP.

Importing the package registers the networks with timm. Drawing and widgets load when first used,
so the core needs neither matplotlib nor ipywidgets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import edit
from .datasets.samples import samples
from .models import create, deploy, load, model_names
from .probes import Cache, Point, Probe
from .rearrange import Rearrangement

if TYPE_CHECKING:
    from .widgets import (
        BlockExplorer,
        CostExplorer,
        RearrangementPlayer,
        RegionExplorer,
        ShiftExplorer,
    )

__version__ = "0.1.0"

_EXPLORERS = (
    "BlockExplorer",
    "CostExplorer",
    "RearrangementPlayer",
    "RegionExplorer",
    "ShiftExplorer",
)
__all__ = [
    "BlockExplorer",
    "Cache",
    "CostExplorer",
    "Point",
    "Probe",
    "Rearrangement",
    "RearrangementPlayer",
    "RegionExplorer",
    "ShiftExplorer",
    "create",
    "deploy",
    "edit",
    "load",
    "model_names",
    "samples",
]


def __getattr__(name: str):
    """Explorers on first use (PEP 562)."""
    if name in _EXPLORERS:
        from . import widgets

        return getattr(widgets, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

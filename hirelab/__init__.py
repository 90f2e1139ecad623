"""hirelab: look inside Hire-MLP.

Importing the package registers the networks with timm. Drawing and widgets load when first used,
so the core needs neither matplotlib nor ipywidgets.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .hooks import edit
from .datasets.samples import samples
from .models import create, deploy, load, model_names
from .hooks.points import Cache, Point, Probe
from .analysis.provenance import descendants, provenance
from .rearrange import Rearrangement
from .analysis.receptive_field import compare_fields, receptive_field

if TYPE_CHECKING:
    from .analysis.advice import advise
    from .analysis.attribution import attribute, grad_cam
    from .analysis.faithfulness import deletion_insertion, pointing_game, randomisation_check
    from .widgets import (
        AttributionExplorer,
        BlockExplorer,
        CostExplorer,
        ReachExplorer,
        RearrangementPlayer,
        ReceptiveFieldExplorer,
        RegionExplorer,
        ShiftExplorer,
    )

__version__ = "0.1.0"

# Where names are found that load when first used (PEP 562): widgets bring ipywidgets, and captum,
# which attributions are made with, brings matplotlib.
_LATER = {
    "AttributionExplorer": "widgets",
    "BlockExplorer": "widgets",
    "CostExplorer": "widgets",
    "ReachExplorer": "widgets",
    "RearrangementPlayer": "widgets",
    "ReceptiveFieldExplorer": "widgets",
    "RegionExplorer": "widgets",
    "ShiftExplorer": "widgets",
    "advise": "advice",
    "attribute": "attribution",
    "deletion_insertion": "faithfulness",
    "grad_cam": "attribution",
    "pointing_game": "faithfulness",
    "randomisation_check": "faithfulness",
}
__all__ = [
    "AttributionExplorer",
    "BlockExplorer",
    "Cache",
    "CostExplorer",
    "Point",
    "Probe",
    "ReachExplorer",
    "Rearrangement",
    "RearrangementPlayer",
    "ReceptiveFieldExplorer",
    "RegionExplorer",
    "ShiftExplorer",
    "advise",
    "attribute",
    "compare_fields",
    "create",
    "deletion_insertion",
    "deploy",
    "descendants",
    "edit",
    "grad_cam",
    "load",
    "model_names",
    "pointing_game",
    "provenance",
    "randomisation_check",
    "receptive_field",
    "samples",
]


def __getattr__(name: str):
    if name in _LATER:
        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

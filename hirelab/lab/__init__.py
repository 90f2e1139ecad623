"""The project as a place: notebooks, gallery, exercises, benchmarks, JupyterLab."""

from .._shared.imports import attach_modules

__getattr__, __dir__, __all__ = attach_modules(__name__, __path__)

"""Measurements: each takes a network and images and returns a result that can be kept and drawn."""

from .._shared.imports import attach_modules

__getattr__, __dir__, __all__ = attach_modules(__name__, __path__)

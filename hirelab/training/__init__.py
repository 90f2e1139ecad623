"""Training and what comes of it: recipes, the loop, run folders, evaluation, released weights."""

from .._shared.imports import attach_modules

__getattr__, __dir__, __all__ = attach_modules(__name__, __path__)

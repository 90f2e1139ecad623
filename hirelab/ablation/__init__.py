"""The paper's ablations as data, and what a set of trained networks can say about them."""

from .._shared.imports import attach_modules

__getattr__, __dir__, __all__ = attach_modules(__name__, __path__)

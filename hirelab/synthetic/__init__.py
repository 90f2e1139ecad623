"""Made inputs with known answers: tasks that need no images, and networks that learn them."""

from .._shared.imports import attach_modules

__getattr__, __dir__, __all__ = attach_modules(__name__, __path__)

"""Named points of a network: read them, edit them, carry them back to the image."""

from . import edit

__all__ = ["edit"]

"""Ready edits for `model.edits`: each function returns one, called as ``edit(value, point)``.

    with model.edits({"stages.2.blocks.1.hire.gate": hl.edit.fix(height=1., width=0., channel=0.)}):
        logits = model(x)

Any function of ``(value, point)`` that returns a tensor is an edit too.
"""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from .._shared.errors import HirelabError
from .points import Edit, Point

__all__ = ["add", "fix", "replace", "scale", "zero"]


def scale(factor: float) -> Edit:
    """Multiply by ``factor``."""
    return Edit(lambda value, point: value * factor, f"scale(factor={_shown(factor)})")


def zero() -> Edit:
    """Replace by zeros: what the network does without this point."""
    return Edit(lambda value, point: torch.zeros_like(value), "zero()")


def add(other: float | Tensor) -> Edit:
    """Add ``other``, a number or a tensor that broadcasts to the point's shape."""
    return Edit(lambda value, point: value + other, f"add({_shown(other)})")


def replace(other: Tensor) -> Edit:
    """Put ``other`` in its place: a tensor that broadcasts to the point's shape, say one that was
    cached from another image (activation patching).

    Raises:
        HirelabError: during the pass, for a shape that does not broadcast to the point's.
    """

    def act(value: Tensor, point: Point) -> Tensor:
        alike = other.to(value)
        try:
            return alike.expand_as(value).clone()
        except RuntimeError:
            raise HirelabError(
                f"{point.name} has shape {tuple(value.shape)}; the replacement has "
                f"{tuple(other.shape)}, which does not broadcast to it."
            ) from None

    return Edit(act, f"replace({_shown(other)})")


def fix(**weights: float | Tensor) -> Edit:
    """Fix a gate's weights, by branch, for all channels: ``fix(height=1., width=0., channel=0.)``.

    Branches that are not named keep their weights; nothing is renormalised, so weights need not
    sum to 1.

    Raises:
        HirelabError: for no branch, or a weight that is no number; during the pass, at a point
            that is no gate, or for a branch that this gate does not weigh.
    """
    if not weights:
        raise HirelabError("fix() names no branch; write fix(height=1., width=0., channel=0.).")
    for branch, weight in weights.items():
        if not isinstance(weight, (Real, Tensor)):
            raise HirelabError(
                f"{branch} is {weight!r}; a weight is a number, or a tensor of one per channel."
            )

    def act(value: Tensor, point: Point) -> Tensor:
        if point.kind != "gate":
            raise HirelabError(f"{point.name} is a {point.kind}; fix() sets the weights of a gate.")
        for branch in weights:
            if branch not in point.branches:
                raise HirelabError(
                    f"{point.name} weighs {', '.join(point.branches)}; it has no branch {branch!r}."
                )
        for branch, weight in weights.items():
            try:
                value[..., point.branches.index(branch)] = weight
            except RuntimeError:
                raise HirelabError(
                    f"{branch} is a tensor of shape {tuple(torch.as_tensor(weight).shape)}; "
                    f"{point.name} has {value.shape[-2]} channels: give a number, or one for each."
                ) from None
        return value

    return Edit(act, f"fix({', '.join(f'{k}={_shown(v)}' for k, v in weights.items())})")


def _shown(value: object) -> str:
    """A tensor by its shape, not by its numbers."""
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)

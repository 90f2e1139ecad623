"""Ready edits for `model.edits`: each is called as ``edit(value, point)`` and returns a tensor.

    with model.edits({"stages.2.blocks.1.hire.gate": hl.edit.fix(height=1., width=0., channel=0.)}):
        logits = model(x)

Any function of ``(value, point)`` is an edit too. The classes have small letters because they
read as verbs where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from .._shared.errors import HirelabError
from .points import Named, Point

__all__ = ["add", "fix", "replace", "scale", "zero"]


@dataclass(frozen=True)
class scale(Named):
    """Multiply by ``factor``."""

    factor: float

    def __call__(self, value: Tensor, point: Point) -> Tensor:
        return value * self.factor


@dataclass(frozen=True)
class zero(Named):
    """Replace by zeros: what the network does without this point."""

    def __call__(self, value: Tensor, point: Point) -> Tensor:
        return torch.zeros_like(value)


@dataclass(frozen=True)
class add(Named):
    """Add ``other``, a number or a tensor that broadcasts to the point's shape."""

    other: float | Tensor = field(repr=False)

    def __call__(self, value: Tensor, point: Point) -> Tensor:
        return value + self.other


@dataclass(frozen=True)
class replace(Named):
    """Put ``other`` in its place: a tensor that broadcasts to the point's shape, say one that was
    cached from another image (activation patching)."""

    other: Tensor = field(repr=False)

    def __call__(self, value: Tensor, point: Point) -> Tensor:
        other = self.other.to(value)
        try:
            return other.expand_as(value).clone()
        except RuntimeError:
            raise HirelabError(
                f"{point.name} has shape {tuple(value.shape)}; the replacement has "
                f"{tuple(other.shape)}, which does not broadcast to it."
            ) from None


class fix(Named):
    """Fix a gate's weights, by branch, for all channels: ``fix(height=1., width=0., channel=0.)``.

    Branches that are not named keep their weights; nothing is renormalised, so weights need not
    sum to 1.

    Raises:
        HirelabError: at a point that is no gate, or for a branch that this gate does not weigh.
    """

    def __init__(self, **weights: float) -> None:
        if not weights:
            raise HirelabError("fix() names no branch; write fix(height=1., width=0., channel=0.).")
        for branch, weight in weights.items():
            if not isinstance(weight, (Real, Tensor)):
                raise TypeError(f"{branch} is {weight!r}; a weight is a number, or one a channel.")
        self.weights = weights

    def __repr__(self) -> str:
        return f"fix({', '.join(f'{k}={v}' for k, v in self.weights.items())})"

    def __call__(self, value: Tensor, point: Point) -> Tensor:
        if point.kind != "gate":
            raise HirelabError(f"{point.name} is a {point.kind}; fix() sets the weights of a gate.")
        columns = []
        for branch, weight in self.weights.items():
            if branch not in point.branches:
                raise HirelabError(
                    f"{point.name} weighs {', '.join(point.branches)}; it has no branch {branch!r}."
                )
            columns.append((point.branches.index(branch), weight))
        for column, weight in columns:
            value[..., column] = weight
        return value

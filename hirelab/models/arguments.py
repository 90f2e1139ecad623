"""Checks of what a Hire-MLP is built with, and of what it reads: a HirelabError with the cure."""

# Annotations are not deferred: TorchScript reads those of `check_input`.

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .._shared.checks import check_whole
from .._shared.errors import HirelabError

BRANCHES = ("height", "width", "channel")  # in the order of the gate's columns
FUSIONS = ("gate", "sum")


def check_input(x: Tensor, in_chans: int) -> Tensor:
    """Pass on an input that the stem can read, else say why not."""
    if x.dim() != 4 or x.shape[1] != in_chans:
        raise HirelabError(
            f"The input has shape {list(x.shape)}; the network reads (batch, {in_chans}, height, "
            "width): add the batch axis with x[None], or build it with other in_chans."
        )
    if x.shape[2] < 3 or x.shape[3] < 3:
        raise HirelabError(
            f"The input is {x.shape[2]} x {x.shape[3]} pixels; the stem needs at least 3 x 3."
        )
    if not x.is_floating_point():
        raise HirelabError(
            "The input holds whole or complex numbers; the network reads real ones: convert bytes "
            "with x / 255, and normalise them as in training."
        )
    return x


def check_branches(branches: Sequence[str]) -> tuple[str, ...]:
    """The branches in the order of `BRANCHES`; raises unless each is known and named once."""
    chosen = (branches,) if isinstance(branches, str) else tuple(branches)
    wrong = [b for b in chosen if b not in BRANCHES]
    if wrong or not chosen or len(set(chosen)) != len(chosen):
        raise HirelabError(
            f"branches is {branches!r}; choose one or more of {', '.join(BRANCHES)}, each once."
        )
    return tuple(b for b in BRANCHES if b in chosen)


def check_stages(depths: Sequence[int], dims: Sequence[int]) -> None:
    """Raise unless every stage has at least one block and channels enough."""
    if len(dims) != len(depths):
        raise HirelabError(f"depths has {len(depths)} stages and dims {len(dims)}; give one each.")
    if not len(depths) or min(depths) < 1:
        raise HirelabError(f"depths is {depths}; give at least 1 stage, of at least 1 block.")
    if min(dims) < 4:
        raise HirelabError(f"dims is {dims}; the gate needs at least 4 channels in every stage.")


def per_stage(
    name: str, value: int | Sequence[int], stages: int, low: int | None = None
) -> tuple[int, ...]:
    """One whole number for each stage, of at least ``low``."""
    given: Any = value.tolist() if hasattr(value, "tolist") else value  # of an array or a tensor
    several = isinstance(given, Sequence) and not isinstance(given, str)
    values = tuple(given) if several else (given,) * stages
    if len(values) != stages:
        raise HirelabError(
            f"{name} is {given!r}; give one number, or {stages}, one for each stage."
        )
    return tuple(check_whole(name, number, low) for number in values)

"""Activation patching: where in a network an answer is decided.

One image's tensor at a point is put into another image's pass, and the answer moves as far as that
point decides it. Both images are real, so the network sees nothing that it never sees otherwise,
as it does when a point is set to zero.

Effects are logit differences, normalised (Zhang and Nanda, arXiv 2309.16042, section 2): with d the
logit of the first image's answer minus that of the other's,

    effect = (d(x) - d(x with the other's tensor)) / (d(x) - d(other))

0 is no effect, 1 is that the answer becomes the other's as far as it can. It may lie beyond both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from .._shared.statistics import t_interval
from .._shared.tables import Records, table
from ..datasets.transforms import pixels
from ..hooks import edit
from ..hooks.forward import (
    check_images,
    class_name,
    frozen_eval,
    model_name,
    scores,
    to_model_device,
)
from ..hooks.points import EditFunction, Point, edits, match, run_with_cache
from ..results import Result

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = ["Patching", "PlacePatching", "patching", "patching_by_place"]

WRITTEN = ("stages.*.blocks.*.hire.out", "stages.*.blocks.*.mlp.out")
"""What blocks add to what they are given. (All that is known of an image goes through a block's own
``out``: put there, the other's tensor always has the effect 1.)"""


@dataclass(frozen=True, eq=False, repr=False)
class Patching(Records, Result):
    """What each point decides, for some pairs of images.

    Attributes:
        points: their names, in the order of the network.
        effects: (points, pairs) see the head of this module.
        low, high: (points,) Student's 95 % interval of the mean over pairs; NaN for a single pair.
        answers: of each pair, what the network says of the first image and of the other.
        network: its name.
    """

    points: list[str]
    effects: np.ndarray
    low: np.ndarray
    high: np.ndarray
    answers: list[tuple[str, str]]
    network: str

    @property
    def mean(self) -> np.ndarray:
        """(points,) over pairs."""
        return self.effects.mean(axis=1)

    def records(self) -> list[dict[str, Any]]:
        """A row for each point: name, mean effect, ends of its interval."""
        return [
            {"point": name, "effect": float(mean), "low": float(low), "high": float(high)}
            for name, mean, low, high in zip(
                self.points, self.mean, self.low, self.high, strict=True
            )
        ]

    def __str__(self) -> str:
        rows = [
            (one["point"], f"{one['effect']:+.2f}", f"[{one['low']:+.2f}, {one['high']:+.2f}]")
            for one in self.records()
        ]
        said = f"effect of the other image's tensor, mean over {self.effects.shape[1]} pairs"
        return f"{said}\n{table([('point', 'effect', '95 % interval'), *rows], 'lr')}"

    def plot(self) -> Figure:
        """The mean effect with its interval against depth, a line for each kind of point."""
        from ..viz.patching import effects_figure

        return effects_figure(
            self.points, self.mean, self.low, self.high, f"{self.effects.shape[1]} pairs of images",
            str(self),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class PlacePatching(Result):
    """What each place of one point decides, for some pairs of images.

    Attributes:
        point: its name.
        effects: (pairs, rows, columns) of each place alone; see the head of this module.
        whole: (pairs,) of all places at once.
        answers: of each pair, what the network says of the first image and of the other.
        images, others: (pairs, H, W, 3) uint8 the images themselves; empty where they are not RGB.
    """

    point: str
    effects: np.ndarray
    whole: np.ndarray
    answers: list[tuple[str, str]]
    images: np.ndarray = field(repr=False)
    others: np.ndarray = field(repr=False)

    def plot(self) -> Figure:
        """For each pair both images and the map: blue places move the answer to the other's.

        Raises:
            HirelabError: the input was not RGB.
        """
        from ..viz.patching import places_figure

        if not self.images.size:
            raise HirelabError(
                "The input was not RGB, so there is no image to draw; the numbers are in effects."
            )
        said = [
            f"{one} / {other}: {float(whole):+.2f} in all, from {each.min():+.3f} to "
            f"{each.max():+.3f} a place"
            for (one, other), whole, each in zip(
                self.answers, self.whole, self.effects, strict=True
            )
        ]
        return places_figure(
            self.point, self.images, self.others, self.effects, self.whole, self.answers,
            "; ".join(said),
        )  # fmt: skip


def patching(
    model: nn.Module,
    x: Tensor,
    other: Tensor,
    points: str | Iterable[str] = WRITTEN,
) -> Patching:
    """Put each point's tensor of one image into another image's pass, a point at a time.

    Args:
        model: a classifier with named points (`hirelab.create`); its mode and gradients are
            afterwards as they were.
        x, other: (N, C, H, W) pairs of images, see `hirelab.samples`. The network has to answer
            them differently.
        points: a pattern of names or several, as `model.run_with_cache` takes them; by default
            what every hire module and every MLP adds.

    Raises:
        HirelabError: images of different shapes, or a pair with one answer; an unknown point.
    """
    names = match(model, points)
    pairs = _Pairs(model, x, other)
    effects = np.stack([pairs.effect({name: edit.replace(pairs.tensor(name))}) for name in names])
    intervals = np.array([t_interval(row) for row in effects])
    return Patching(
        names, effects, intervals[:, 0], intervals[:, 1], pairs.answers, model_name(model)
    )


def patching_by_place(
    model: nn.Module,
    x: Tensor,
    other: Tensor,
    point: str,
    batch_size: int = 32,
) -> PlacePatching:
    """Put one place after the other of a point's tensor into another image's pass.

    Args:
        model, x, other: as in `patching`.
        point: the name of a token grid in image order, such as "stages.2.out".
        batch_size: passes at once. There is one for every place and pair.

    Raises:
        HirelabError: as `patching`; a point without places of its own on the image.
    """
    check_whole("batch_size", batch_size, 1)
    (name, *more) = match(model, point)
    if more:
        raise HirelabError(f"{point!r} means {1 + len(more)} points; give the name of one.")
    pairs = _Pairs(model, x, other)
    donor, described = pairs.tensor(name), pairs.point(name)
    if described.kind != "token grid" or described.shifted:
        raise HirelabError(
            f"{name} is a {described.kind}{' in shifted order' if described.shifted else ''}; "
            "patching by place needs a token grid in image order, such as a branch's out."
        )
    n, _, rows, columns = donor.shape
    effects = np.empty((n, rows * columns))
    for pair in range(n):
        for places in torch.arange(rows * columns).split(batch_size):
            effects[pair, places.numpy()] = pairs.effect_at(name, donor, pair, places)
    whole = pairs.effect({name: edit.replace(donor)})
    rgb = x.shape[1] == 3
    shown = [pixels(images) if rgb else np.zeros((0,), np.uint8) for images in (x, other)]
    return PlacePatching(
        name, effects.reshape(n, rows, columns), whole, pairs.answers, shown[0], shown[1]
    )


class _Pairs:
    """Pairs of images that a network answers differently, and how far edits move the answers."""

    def __init__(self, model: nn.Module, x: Tensor, other: Tensor) -> None:
        check_images(x), check_images(other)
        if x.shape != other.shape:
            raise HirelabError(
                f"x has shape {list(x.shape)} and other {list(other.shape)}; give pairs of images "
                "of one size."
            )
        self._model = model
        self._x, self._other = to_model_device(model, x), to_model_device(model, other)
        with frozen_eval(model):
            mine, theirs = scores(model, self._x), scores(model, self._other)
        self._classes = torch.stack([mine.argmax(1), theirs.argmax(1)], 1)
        for number, (one, two) in enumerate(self._classes.tolist()):
            if one == two:
                raise HirelabError(
                    f"The network says {class_name(model, one)} of both images of pair {number}; "
                    "patching needs two that it answers differently."
                )
        self.answers = [
            (class_name(model, one), class_name(model, two)) for one, two in self._classes.tolist()
        ]
        self._from, self._to = self._difference(mine), self._difference(theirs)

    def _difference(self, logits: Tensor, pair: int | None = None) -> Tensor:
        """(N,) by how much the first image's class leads the other's; of one pair's classes for
        any number of passes where ``pair`` says which."""
        classes = self._classes if pair is None else self._classes[pair].expand(len(logits), 2)
        found = logits.gather(1, classes)
        return found[:, 0] - found[:, 1]

    def point(self, name: str) -> Point:
        """What is known about a point."""
        with frozen_eval(self._model):
            return run_with_cache(self._model, self._x[:1], name, stop_early=True)[1].point(name)

    def tensor(self, name: str) -> Tensor:
        """A point's tensor in the passes of the other images."""
        with frozen_eval(self._model):
            return run_with_cache(self._model, self._other, name, stop_early=True)[1][name]

    def effect(self, changes: Mapping[str, EditFunction]) -> np.ndarray:
        """(N,) how far edits move each pair's answer."""
        with frozen_eval(self._model), edits(self._model, changes):
            moved = self._difference(scores(self._model, self._x))
        return self._share(moved, slice(None))

    def effect_at(self, name: str, donor: Tensor, pair: int, places: Tensor) -> np.ndarray:
        """(places,) how far each of some places alone moves one pair's answer."""
        mask = torch.zeros(len(places), donor[0, 0].numel(), dtype=torch.bool, device=donor.device)
        mask[torch.arange(len(places)), places] = True
        mask = mask.view(len(places), 1, *donor.shape[2:])

        def put(value: Tensor, point: Point) -> Tensor:
            return torch.where(mask, donor[pair], value)

        x = self._x[pair].expand(len(places), -1, -1, -1)
        with frozen_eval(self._model), edits(self._model, {name: put}):
            moved = self._difference(scores(self._model, x), pair)
        return self._share(moved, pair)

    def _share(self, moved: Tensor, pair: int | slice) -> np.ndarray:
        start, end = self._from[pair], self._to[pair]
        return ((start - moved) / (start - end)).double().cpu().numpy()

"""Is an explanation faithful? Three checks of attributions, each beside a random map.

- *Deletion and insertion* (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421): take the places
  away that the map calls important, or bring them in first, and watch the class's probability.
- *Weight randomisation* (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292): a map that stays
  the same while the weights are replaced by noise, from the head downwards, does not explain them.
- *Pointing game* (Zhang et al. 2016, https://arxiv.org/abs/1608.00507): does the highest place lie
  on the object?

A number alone says little, so every result carries the same number for a map that knows nothing:
random values on the same token grid, upsampled in the same way. Intervals are over images, by
the bootstrap: the images are drawn again with replacement, many times, from a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError, unknown
from .._shared.statistics import bootstrap_interval, rank_correlation
from ..hooks.forward import (
    Target,
    check_images,
    check_targets,
    frozen_eval,
    is_trained,
    model_name,
    scores,
    to_model_device,
)
from ..results import Result
from .attribution import Attribution, attribute, upsample

if TYPE_CHECKING:
    from ..viz.figures import Figure

FILLS = ("mean", "blur")


@dataclass(frozen=True)
class Interval:
    """A mean over images and the bootstrap interval around it; NaN ends for a single image."""

    mean: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.mean:.3f} (one image, no interval)"
        return f"{self.mean:.3f} ({self.level:.0%}: {self.low:.3f} to {self.high:.3f})"


def interval(values: np.ndarray, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of one value an image, (N,), with its percentile bootstrap interval.

    Raises:
        HirelabError: for no values, and for a level not between 0 and 1.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise HirelabError(f"The values have shape {values.shape}; give one for each image, (N,).")
    if not 0 < level < 1:
        raise HirelabError(f"level is {level}; give a share between 0 and 1, such as 0.95.")
    low, high = bootstrap_interval(values, level, seed=seed)
    return Interval(float(values.mean()), low, high, level)


def _untrained(trained: bool | None) -> str:
    """What a text says of weights that have not been trained."""
    return "; the weights are untrained" if trained is False else ""


def _random_maps(like: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Maps that know nothing, on the same token grid."""
    return generator.standard_normal(like.shape).astype(np.float32)


# ------------------------------------------------------------------ deletion and insertion


@dataclass(frozen=True, eq=False)
class DeletionInsertion(Result):
    """The class's probability while places go, or come, the most important first.

    Attributes:
        network, method, point: of the attribution.
        fill: what stands where a place is gone, one of `FILLS`.
        shares: (S,) of the pixels that have been taken away, or brought in, 0 to 1.
        deletion, insertion: (N, S) probability of the target class, in the order of the map.
        random_deletion, random_insertion: (N, S) the same in the order of a random map.
        seed: of the random map.
        trained: whether the weights look trained, None where nothing tells.
    """

    network: str
    method: str
    point: str
    fill: str
    shares: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    random_deletion: np.ndarray
    random_insertion: np.ndarray
    seed: int
    trained: bool | None = None

    def area(self, curve: str, level: float = 0.95) -> Interval:
        """The mean area under a curve, 0 to 1, over images.

        Args:
            curve: "deletion" (the lower the better), "insertion" (the higher), the same with
                "random_" before it, or "gain": (insertion - deletion) less that of the random map,
                image by image; above zero, the map knows more than chance.
        """
        return interval(self.areas(curve), level)

    def areas(self, curve: str) -> np.ndarray:
        """(N,) the area under a curve for every image, see `area`."""
        curves = ("deletion", "insertion", "random_deletion", "random_insertion")
        if curve == "gain":
            deleted, inserted, r_deleted, r_inserted = (self.areas(name) for name in curves)
            return (inserted - deleted) - (r_inserted - r_deleted)
        if curve not in curves:
            cure = f"There are {', '.join(curves)} and gain."
            raise HirelabError(unknown("curve", curve, [*curves, "gain"], cure))
        from scipy.integrate import trapezoid

        return trapezoid(getattr(self, curve), self.shares, axis=1)

    def __str__(self) -> str:
        return (
            f"deletion {self.area('deletion')}, random {self.area('random_deletion')}; "
            f"insertion {self.area('insertion')}, random {self.area('random_insertion')}; "
            f"gain over random {self.area('gain')}{_untrained(self.trained)}"
        )

    def plot(self) -> Figure:
        """Mean curves with their bands, a `hirelab.viz.figures.Figure`."""
        from ..viz import bands

        panels = []
        for name, better in (("deletion", "lower is better"), ("insertion", "higher is better")):
            lines = {
                "in the map's order": _band(getattr(self, name)),
                "in a random map's": _band(getattr(self, f"random_{name}")),
            }
            panels.append((f"{name}: {better}", lines))
        return bands.curves(
            self.shares * 100,
            panels,
            "pixels taken away or brought in, %",
            "probability of the class",
            str(self),
        )


def _band(values: np.ndarray) -> np.ndarray:
    """(3, S) mean, low and high over images."""
    found = [interval(column) for column in values.T]
    return np.array([[i.mean, i.low, i.high] for i in found]).T


def deletion_insertion(
    model: nn.Module,
    x: Tensor,
    attribution: Attribution,
    *,
    steps: int = 20,
    fill: str = "blur",
    seed: int = 0,
) -> DeletionInsertion:
    """Delete and insert pixels in the order of a map, and of a random map beside it.

    Args:
        model, x: the network and the images that the attribution is of.
        attribution: its signed maps give the order, its targets the classes.
        steps: how many equal shares of pixels are moved one after the other.
        fill: what stands in the places that are gone: "blur", the image without detail (a
            Gaussian of a 16th of the shorter side), which is closer to a photograph; or "mean", the
            mean colour (all zeros).
        seed: of the random map, and of the order among equal values.

    Raises:
        HirelabError: for images that are not the attribution's, steps below 1, another fill.
    """
    check_images(x)
    if len(x) != len(attribution) or list(x.shape[2:]) != list(attribution.img_size):
        raise HirelabError(
            f"The attribution is of {len(attribution)} images of {attribution.img_size} pixels, "
            f"and x holds {len(x)} of {list(x.shape[2:])}; give the images that it was made from."
        )
    check_whole("steps", steps, 1)
    check_choice("fill", fill, FILLS)
    generator = np.random.default_rng(seed)
    order = _order(attribution.upsampled, generator)
    chance = _order(
        upsample(_random_maps(attribution.maps, generator), attribution.img_size), generator
    )
    shares = np.linspace(0, 1, steps + 1)
    with frozen_eval(model):
        batch = to_model_device(model, x)
        gone = torch.zeros_like(batch) if fill == "mean" else _blurred(batch)
        targets = check_targets(attribution.targets, scores(model, batch))

        def curve(ranks: np.ndarray, start: Tensor, end: Tensor) -> np.ndarray:
            found = []
            for share in shares:
                moved = torch.from_numpy(ranks < round(share * ranks[0].size)).to(batch.device)
                mixed = torch.where(moved[:, None], end, start)
                chances = scores(model, mixed).softmax(1)
                found.append(chances.gather(1, targets[:, None])[:, 0].cpu().numpy())
            return np.stack(found, 1)

        curves = [
            curve(ranks, start, end)
            for ranks in (order, chance)
            for start, end in ((batch, gone), (gone, batch))
        ]
    return DeletionInsertion(
        model_name(model),
        attribution.method,
        attribution.point,
        fill,
        shares,
        deletion=curves[0],
        insertion=curves[1],
        random_deletion=curves[2],
        random_insertion=curves[3],
        seed=seed,
        trained=is_trained(model).trained,
    )


def _order(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, H, W) the rank of every pixel, 0 for the highest; equal values in random order."""
    flat = values.reshape(len(values), -1)
    chance = generator.random(flat.shape)
    ranks = np.empty(flat.shape, np.int64)
    for row, (keys, ties) in enumerate(zip(-flat, chance, strict=True)):
        ranks[row, np.lexsort((ties, keys))] = np.arange(flat.shape[1])
    return ranks.reshape(values.shape)


def _blurred(x: Tensor) -> Tensor:
    """The images without detail: a Gaussian, a 16th of the shorter side its deviation."""
    from torchvision.transforms.functional import gaussian_blur

    sigma = max(1.0, min(x.shape[2:]) / 16)
    # Three deviations to each side, but no further than the image can be mirrored at its edge.
    down, across = (min(round(3 * sigma), n - 1) for n in x.shape[2:])
    return gaussian_blur(x, [2 * across + 1, 2 * down + 1], [sigma, sigma])


# ------------------------------------------------------------------ weight randomisation

DRAWS = 100
"""Random maps that the randomisation check holds beside every image's own."""


@dataclass(frozen=True, eq=False)
class Randomisation(Result):
    """How like the first map the map stays while weights are replaced, from the head downwards.

    Attributes:
        network, method, point: what was looked at.
        modules: what was replaced, one after the other, each time with all that came before.
        similarity: (modules, N) rank correlation of the signed maps, -1 to 1; 0 for a map that is
            the same everywhere, which says nothing about place.
        absolute: (modules, N) the same of the maps' sizes, without the signs.
        random: (`DRAWS`, N) rank correlation of random maps with the first, signs or not.
        seed: of the new weights and of the random maps.
        trained: whether the weights look trained, None where nothing tells.
    """

    network: str
    method: str
    point: str
    modules: list[str]
    similarity: np.ndarray
    absolute: np.ndarray
    random: np.ndarray
    seed: int
    trained: bool | None = None

    def at(self, module: str | int, level: float = 0.95) -> Interval:
        """Mean similarity over images once ``module`` (a name, or a place in the list) and all
        before it are replaced.

        Raises:
            HirelabError: for a module that is not in the list, with near names.
        """
        if isinstance(module, str):
            if module not in self.modules:
                cure = f"Replaced were {', '.join(self.modules)}."
                raise HirelabError(unknown("module", module, self.modules, cure))
            module = self.modules.index(module)
        return interval(self.similarity[module], level)

    def chance(self, level: float = 0.95) -> Interval:
        """Where the mean similarity over these images lies for maps that know nothing."""
        means = self.random.mean(1)
        low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
        return Interval(float(means.mean()), float(low), float(high), level)

    def __str__(self) -> str:
        return (
            f"similarity after the head {self.at(0)}, after all weights {self.at(-1)}; of random "
            f"maps {self.chance()}{_untrained(self.trained)}"
        )

    def plot(self) -> Figure:
        """Similarity against what has been replaced, a `hirelab.viz.figures.Figure`."""
        from ..viz import bands

        one = np.ones((3, 1))
        lines = {
            "with signs": np.hstack([one, _band(self.similarity.T)]),
            "without signs": np.hstack([one, _band(self.absolute.T)]),
        }
        chance = self.chance()
        return bands.cascade(
            ["nothing", *self.modules], lines, (chance.low, chance.high), str(self)
        )


def randomisation_check(
    model: nn.Module,
    x: Tensor,
    target: Target = None,
    point: str | None = None,
    *,
    method: str = "grad_cam",
    modules: Sequence[str] | None = None,
    seed: int = 0,
    **options: Any,
) -> Randomisation:
    """Replace the weights by noise, from the head downwards, and compare the maps.

    The network itself is not touched: a copy of it is. New weights are normal, with the mean and
    standard deviation of the tensor that they replace, so that activations keep their size; buffers
    (BatchNorm's statistics) stay. The classes are those of the network as it came.

    Args:
        model, x, target, point, method, options: as in `hirelab.analysis.attribution.attribute`.
        modules: what is replaced, in this order; by default the network's children, those in a
            Sequential or ModuleList one by one, the last defined first.
        seed: of the new weights and of the random maps.

    Raises:
        HirelabError: for a module that does not exist or has no weights; and as `attribute`.
    """
    first = attribute(model, x, target, point, method=method, **options)
    order = _from_head_down(model) if modules is None else list(modules)
    names = dict(model.named_modules())
    for name in order:
        if not name or name not in names:
            cure = "model.named_modules() lists them all."
            raise HirelabError(unknown("module", name, [n for n in names if n], cure))
        if not any(True for _ in names[name].parameters()):
            raise HirelabError(f"{name} has no weights to replace; leave it out.")
    copy = deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    similarity, absolute = [], []
    for name in order:
        _replace_weights(copy.get_submodule(name), generator)
        maps = attribute(copy, x, first.targets, point, method=method, **options).maps
        similarity.append(_similarity(first.maps, maps))
        absolute.append(_similarity(np.abs(first.maps), np.abs(maps)))
    draw = np.random.default_rng(seed)
    chance = [_similarity(first.maps, _random_maps(first.maps, draw)) for _ in range(DRAWS)]
    return Randomisation(
        first.network,
        method,
        first.point,
        order,
        np.array(similarity),
        np.array(absolute),
        np.array(chance),
        seed,
        first.trained,
    )


def _from_head_down(model: nn.Module) -> list[str]:
    found = []
    for name, child in model.named_children():
        inside = isinstance(child, (nn.Sequential, nn.ModuleList))
        parts = [(f"{name}.{n}", c) for n, c in child.named_children()] if inside else []
        found += [n for n, c in parts or [(name, child)] if any(True for _ in c.parameters())]
    return found[::-1]


@torch.no_grad()
def _replace_weights(module: nn.Module, generator: torch.Generator) -> None:
    for parameter in module.parameters():
        values = parameter.double()
        mean, spread = values.mean(), values.std(correction=0)
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(mean + spread * noise.to(parameter.device))


def _similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) rank correlation of two maps of every image; 0 where one has a single value."""
    found = [rank_correlation(a, b) for a, b in zip(one, other, strict=True)]
    return np.nan_to_num(found)


# ------------------------------------------------------------------ pointing game


@dataclass(frozen=True, eq=False)
class PointingGame(Result):
    """Whether the highest place of every map lies in one of its image's boxes.

    Attributes:
        network, method, point: of the attribution.
        places: (N, 2) x and y of the highest place, in pixels.
        hits: (N,) bool.
        random: (N,) share of hits of random maps on the same token grid.
        centre: (N,) bool, whether the image's centre would hit: photographers aim, so a centred
            object is found by anyone who points at the middle.
        tolerance: pixels beside a box that still count.
        seed: of the random maps.
    """

    network: str
    method: str
    point: str
    places: np.ndarray
    hits: np.ndarray
    random: np.ndarray
    centre: np.ndarray
    tolerance: int
    seed: int

    def accuracy(self, of: str = "hits", level: float = 0.95) -> Interval:
        """The mean share of hits over images: of the maps ("hits"), "random" ones, the "centre",
        or "gain": hits less random, image by image."""
        if of == "gain":
            return interval(self.hits - self.random, level)
        if of not in ("hits", "random", "centre"):
            cure = "There are hits, random, centre and gain."
            raise HirelabError(unknown("share", of, ("hits", "random", "centre", "gain"), cure))
        return interval(getattr(self, of), level)

    def __str__(self) -> str:
        return (
            f"hits {self.accuracy()}, random map {self.accuracy('random')}, "
            f"centre {self.accuracy('centre')}"
        )


def pointing_game(
    attribution: Attribution,
    boxes: Sequence[Any] | np.ndarray,
    *,
    tolerance: int = 0,
    seed: int = 0,
    draws: int = 100,
) -> PointingGame:
    """Play the pointing game with an attribution's maps.

    Args:
        attribution: the maps of N images.
        boxes: for every image its box (left, top, right, bottom), or several, (k, 4), in pixels
            of the network's input from its left top corner; right and bottom are the first column
            and row outside. An array (N, 4), or a list of N arrays.
        tolerance: how many pixels beside a box still count (Zhang et al. take 15).
        seed, draws: of the random maps, and how many there are for each image.

    Raises:
        HirelabError: for another number of boxes, an empty box, or one outside the image.
    """
    high, wide = attribution.img_size
    if len(boxes) != len(attribution):
        raise HirelabError(
            f"There are boxes for {len(boxes)} images, and the attribution has "
            f"{len(attribution)}; give one box, or an array of them, for each."
        )
    tolerance = check_whole("tolerance", tolerance, 0, unit="pixels")
    check_whole("draws", draws, 1, unit="random maps")
    inside = np.stack([_inside(i, b, high, wide, tolerance) for i, b in enumerate(boxes)])
    rows, cols = _highest(attribution.upsampled)
    generator, n = np.random.default_rng(seed), np.arange(len(attribution))
    chance = np.zeros(len(attribution))
    for _ in range(draws):
        random = upsample(_random_maps(attribution.maps, generator), attribution.img_size)
        chance += inside[(n, *_highest(random))]
    return PointingGame(
        attribution.network,
        attribution.method,
        attribution.point,
        np.stack([cols, rows], 1),
        inside[n, rows, cols],
        chance / draws,
        inside[:, high // 2, wide // 2],
        tolerance,
        seed,
    )


def _highest(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) rows and (N,) columns of the highest values."""
    return np.divmod(maps.reshape(len(maps), -1).argmax(1), maps.shape[2])


def _inside(i: int, boxes: Any, high: int, wide: int, tolerance: int) -> np.ndarray:
    """(H, W) bool: where a place hits one of an image's boxes."""
    several = np.asarray(boxes, dtype=np.float64)
    several = several[None] if several.ndim == 1 else several
    if several.ndim != 2 or several.shape[1] != 4 or not len(several):
        raise HirelabError(
            f"The boxes of image {i} have shape {np.shape(boxes)}; give (left, top, right, "
            "bottom), or several, (k, 4)."
        )
    y, x = np.mgrid[:high, :wide]
    inside = np.zeros((high, wide), bool)
    for left, top, right, bottom in several:
        if not (0 <= left < right <= wide and 0 <= top < bottom <= high):
            raise HirelabError(
                f"A box of image {i} is ({left:g}, {top:g}, {right:g}, {bottom:g}); give left < "
                f"right and top < bottom, inside the image of {wide} x {high} pixels."
            )
        inside |= (
            (x >= left - tolerance) & (x < right + tolerance)
            & (y >= top - tolerance) & (y < bottom + tolerance)
        )  # fmt: skip
    return inside

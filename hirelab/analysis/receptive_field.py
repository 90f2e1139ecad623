"""Effective receptive field: how much each pixel moves a point of a network, by its gradient.

After Luo et al. 2016 (`Understanding the effective receptive field in deep convolutional neural
networks`, https://arxiv.org/abs/1701.04128): the gradient, to the pixels, of a point's activations
at one position, summed over channels. Works for any network with a module of that name; the split
by path is for Hire-MLP, whose gate averages over the map and so makes every full field global.

Numbers are measured on the map as it is. A logarithm before measuring, as is common, makes them
depend on the gradient's scale; here it serves for drawing only.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._shared.checks import check_whole
from .._shared.errors import HirelabError, unknown
from ..hooks.forward import evaluating
from ..hooks.points import Edit, Point, Probe, Probed, UnknownPoint, edits, probes, run_with_cache
from ..models.hire_mlp import BRANCHES, AxisBranch
from ..results import Result

# What a path cuts, of the gate and the branches. What moves no token (norms, channel MLPs, residual
# connections) and the convolutions between the stages always stay.
PATHS = {
    "full": (),
    "spatial": ("gate",),
    "height": ("gate", "width", "channel"),
    "width": ("gate", "height", "channel"),
    "channel": ("gate", "height", "width"),
    "shift off": ("gate",),
}
REDUCES = ("absolute", "squared", "positive")
_GRADIENT = {"absolute": "|gradient|", "squared": "gradient squared", "positive": "gradient > 0"}
OUTPUTS = ("all", "positive")
POSITIONS = ("centre", "corner", "top edge", "left edge")
LAYOUTS = ("NCHW", "NHWC", "NLC", "NCL")
SHARES = (0.2, 0.3, 0.5, 0.99)  # RepLKNet's table


# ------------------------------------------------------------------ results


@dataclass(frozen=True, eq=False)
class ReceptiveField(Result):
    """What `receptive_field` measured.

    A square of side s stands on the middle of the position's cell, and holds the pixels that lie in
    it whole. A share of mass is a share of the map's sum. Pixels count from the image's corner.

    Attributes:
        map: (H, W) average over images of the reduced gradient, summed over colours; linear.
        mass_within: (images, sides) the mass of every image's own map within each of `sides`;
            the last column is all of it.
        crossed_mass: (images,) the mass that is nearer going round the border, see `crossed`.
        network: the network's class.
        point: the module that was read.
        position: [row, column] on the point's map of ``grid`` = [rows, columns].
        paths, reduce, outputs: as asked for.
        layout: how the point's tensor was read, one of `LAYOUTS`.
        dtype: what it was computed in.
    """

    map: np.ndarray
    mass_within: np.ndarray
    crossed_mass: np.ndarray
    network: str
    point: str
    position: list[int]
    grid: list[int]
    paths: str
    reduce: str
    outputs: str
    layout: str
    dtype: str

    @property
    def image_count(self) -> int:
        """How many images were averaged over."""
        return len(self.mass_within)

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the position's cell, (down, right) in pixels from the top left corner."""
        return _middle(self.position, self.grid, self.map.shape)

    @property
    def centroid(self) -> tuple[float, float]:
        """Centre of the mass, (down, right) in pixels.

        Not quite `centre`: a strided convolution that pads alike on both sides reads up and left of
        its cell's middle, by up to half a cell after several.
        """
        return tuple(float((m * p).sum() / m.sum()) for m, p in self._lines())  # type: ignore[return-value]

    @property
    def deviation(self) -> tuple[float, float]:
        """Standard deviation of the mass around `centroid`, (down, right) in pixels."""
        spreads = [
            (m * (p - c) ** 2).sum() / m.sum()
            for (m, p), c in zip(self._lines(), self.centroid, strict=True)
        ]
        return tuple(math.sqrt(s) for s in spreads)  # type: ignore[return-value]

    def _lines(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Mass along each axis, and the pixels' middles."""
        return [(m, np.arange(len(m)) + 0.5) for m in (self.map.sum(axis=1), self.map.sum(axis=0))]

    @cached_property
    def sides(self) -> np.ndarray:
        """(sides,) pixels, rising: the smallest square that holds each of the pixels."""
        return _squares(self.map.shape, self.centre)[0]

    @property
    def curve(self) -> np.ndarray:
        """(sides,) the averaged map's share of mass within each square, rising to 1."""
        total = self.mass_within.sum(axis=0)
        return total / total[-1]

    @property
    def curves(self) -> np.ndarray:
        """(images, sides) the same of every image; NaN for one whose gradient is zero."""
        with np.errstate(invalid="ignore"):
            return self.mass_within / self.mass_within[:, -1:]

    def side(self, *shares: float) -> tuple[float, ...]:
        """Side in pixels of the smallest square that holds each share of the mass, 0 to 1."""
        return tuple(float(_reach(self.sides, self.curve[None], s)[0]) for s in _checked(shares))

    def area(self, *shares: float) -> tuple[float, ...]:
        """The same square's area on the image, as a share of the image's, 0 to 1."""
        return tuple(float(self._area(self.curve[None], s)[0]) for s in _checked(shares))

    @property
    def half_mass_side(self) -> float:
        """Side in pixels of the smallest square that holds half of the mass."""
        return self.side(0.5)[0]

    @property
    def area_under_curve(self) -> float:
        """Of `curve` against side, as a share of the box around it; near 1 is narrow.

        The curve is a staircase, so this is 1 - (average over the mass of its pixels' side) /
        (largest side).
        """
        return float(_under(self.sides, self.curve[None])[0])

    @property
    def crossed(self) -> float:
        """Share of mass that is nearer to the position going round the border than straight.

        On a torus a pixel more than half the image away along an axis is nearer the other way
        round (the minimum image convention, Metropolis et al. 1953, doi:10.1063/1.1699114). From
        the centre none is, from a corner three quarters are. Mass there has crossed the border
        where shift or padding wrap round; without these it has come far. `crossed_uniform` is
        what a flat map would give.
        """
        return float(self.crossed_mass.sum() / self.mass_within[:, -1].sum())

    @property
    def crossed_uniform(self) -> float:
        """Share of the image's pixels that are nearer going round the border."""
        return float(_beyond(self.map.shape, self.centre).mean())

    def numbers(self) -> dict[str, float]:
        """The averaged map in numbers; areas and shares 0 to 1, sides in pixels."""
        crossed = np.array([self.crossed])
        return {k: float(v[0]) for k, v in self._numbers(self.curve[None], crossed).items()}

    def by_image(self) -> dict[str, np.ndarray]:
        """The same numbers of every image's own map, (images,) each; NaN without a gradient."""
        with np.errstate(invalid="ignore"):
            crossed = self.crossed_mass / self.mass_within[:, -1]
        return self._numbers(self.curves, crossed)

    def _numbers(self, curves: np.ndarray, crossed: np.ndarray) -> dict[str, np.ndarray]:
        areas = {f"area {share:.0%}": self._area(curves, share) for share in SHARES}
        return {
            **areas,
            "half-mass side": _reach(self.sides, curves, 0.5),
            "99% side": _reach(self.sides, curves, 0.99),
            "area under curve": _under(self.sides, curves),
            "crossed": crossed,
        }

    def _area(self, curves: np.ndarray, share: float) -> np.ndarray:
        index = _squares(self.map.shape, self.centre)[1]
        covered = np.cumsum(np.bincount(index.ravel(), minlength=len(self.sides))) / index.size
        return _reach(covered, curves, share)

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        row, column = self.position
        return f"{self.network}, {self.point} at ({row}, {column}), {self.paths} paths"

    def plot(self, decades: int = 4):
        """The map in logarithmic colours of so many ``decades``, and the linear curve; a
        `hirelab.viz.canvas.Still`."""
        from ..viz import field

        said = ", ".join(f"{name} {value:.3g}" for name, value in self.numbers().items())
        return field.field_figure(
            self.map,
            self.centre,
            self.half_mass_side,
            (self.sides, self.curve, self.curves),
            self.title,
            f"{_GRADIENT[self.reduce]}, mean of {self.image_count}",
            f"{self.title}: {said}",
            decades,
        )


@dataclass(frozen=True, eq=False)
class FieldComparison(Result):
    """Several receptive fields side by side; prints as a table.

    Attributes:
        names: of the fields.
        columns: names of the numbers, see `ReceptiveField.numbers`.
        values: (names, columns) of the averaged maps.
        spread: (names, columns) standard deviation over single images; NaN for one image.
        images: how many each averages over.
        relative: (points,) side as a share of the image's longer side.
        curves: (names, points) share of mass within that side.
    """

    names: list[str]
    columns: list[str]
    values: np.ndarray
    spread: np.ndarray
    images: list[int]
    relative: np.ndarray
    curves: np.ndarray

    def rows(self) -> list[list[str]]:
        """(name, number, ...) of every field as text: value, and spread where there is one."""

        def show(value: float, spread: float) -> str:
            return f"{value:.3g}" + ("" if np.isnan(spread) else f" \u00b1 {spread:.2g}")

        return [
            [name, *map(show, values, spread)]
            for name, values, spread in zip(self.names, self.values, self.spread, strict=True)
        ]

    def table(self, *columns: str) -> str:
        """The chosen columns as lines of text; all of them where none is named.

        Raises:
            HirelabError: for a column that is not there.
        """
        for name in columns:
            if name not in self.columns:
                cure = f"There are {', '.join(self.columns)}."
                raise HirelabError(unknown("column", name, self.columns, cure))
        kept = [0, *(1 + self.columns.index(name) for name in columns or self.columns)]
        lines = [[line[i] for i in kept] for line in [["", *self.columns], *self.rows()]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def __repr__(self) -> str:
        return self.table()

    def plot(self):
        """Share of mass against the square's side, a line a field; a `Still`."""
        from ..viz import field

        half = self.columns.index("half-mass side")
        said = "; ".join(
            f"{name}: half of the mass within {row[half]:.3g} px"
            for name, row in zip(self.names, self.values, strict=True)
        )
        return field.curves_figure(self.names, self.relative, self.curves, said)


def compare_fields(fields: Mapping[str, ReceptiveField]) -> FieldComparison:
    """Put receptive fields side by side: ``compare_fields({"random": one, "trained": other})``.

    Warns where the numbers do not compare: images of different size, other reductions. (Different
    points, positions, paths and networks are what one compares.)

    Raises:
        HirelabError: for no field.
    """
    if not fields:
        raise HirelabError("compare_fields got no field; give at least one, by name.")
    kept = list(fields.values())
    reasons = {
        "input size": {" x ".join(map(str, f.map.shape)) for f in kept},
        "reduction": {f.reduce for f in kept},
        "outputs": {f.outputs for f in kept},
    }
    for what, found in reasons.items():
        if len(found) > 1:
            warnings.warn(
                f"The fields differ in {what} ({', '.join(sorted(found))}), and their numbers with "
                "it: measure them alike before comparing.",
                stacklevel=2,
            )
    relative = np.linspace(0, 1, 201)
    curves = []
    for f in kept:
        index = np.searchsorted(f.sides, relative * max(f.map.shape) + 1e-9, side="right")
        curves.append(np.concatenate([[0.0], f.curve])[index])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no spread from a single image
        spread = [[np.nanstd(v, ddof=1) for v in f.by_image().values()] for f in kept]
    return FieldComparison(
        list(fields),
        list(kept[0].numbers()),
        np.array([list(f.numbers().values()) for f in kept]),
        np.array(spread).round(12),  # equal numbers have no spread, whatever their rounding
        [f.image_count for f in kept],
        relative,
        np.array(curves),
    )


def side_by_side(
    fields: Mapping[str, ReceptiveField], reachable: Mapping[str, np.ndarray] | None = None
):
    """Draw the maps of several receptive fields, each with its half-mass square; a `Still`.

    Args:
        fields: by name; every map has its own largest value.
        reachable: for names of fields, the pixels (H, W) bool that can reach the position, as
            ``provenance(...).pixels`` has them; their border is drawn.

    Raises:
        HirelabError: for no field, fields of different reductions or images of different size, a
            name without a field, or a mask of another size.
    """
    from ..viz import field

    if not fields:
        raise HirelabError("side_by_side got no field; give at least one, by name.")
    kinds = {(f.map.shape, f.reduce) for f in fields.values()}
    if len(kinds) > 1:
        raise HirelabError(
            "The fields differ in input size or reduction, and share no scale; measure them alike, "
            "or plot() each."
        )
    masks = dict(reachable or {})
    for name, mask in masks.items():
        if name not in fields:
            known = f"The fields are {', '.join(fields)}."
            raise HirelabError(unknown("field", name, fields, known))
        if np.shape(mask) != fields[name].map.shape:
            raise HirelabError(
                f"The reachable pixels of {name} have shape {list(np.shape(mask))}, its field "
                f"{list(fields[name].map.shape)}; take both for one input size."
            )
    panels = [
        (name, f.map, f.centre, f.half_mass_side, masks.get(name)) for name, f in fields.items()
    ]
    said = "; ".join(
        f"{name}: half of the mass within {f.half_mass_side:g} px" for name, f in fields.items()
    )
    (_, reduce), *_ = kinds
    return field.fields_figure(panels, _GRADIENT[reduce], said)


# ------------------------------------------------------------------ geometry


def _middle(
    position: Sequence[int], grid: Sequence[int], image: Sequence[int]
) -> tuple[float, float]:
    down, right = ((p + 0.5) * n / g for p, g, n in zip(position, grid, image, strict=True))
    return down, right


def _away(image: Sequence[int], centre: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Straight distances of the pixels' middles along each axis, (H, 1) and (1, W)."""
    down, right = (np.abs(np.arange(n) + 0.5 - c) for n, c in zip(image, centre, strict=True))
    return down[:, None], right[None]


def _squares(image: Sequence[int], centre: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The sides that occur, rising, and the index (H, W) of each pixel's: twice the larger
    distance of the pixel's middle, and the pixel itself."""
    side = 2 * np.maximum(*_away(image, centre)) + 1
    sides, index = np.unique(side.round(6), return_inverse=True)
    return sides, index.reshape(side.shape)


def _beyond(image: Sequence[int], centre: Sequence[float]) -> np.ndarray:
    """(H, W) True where the way round the border is shorter along an axis or both."""
    down, right = _away(image, centre)
    return (down > image[0] / 2) | (right > image[1] / 2)


def _checked(shares: Sequence[float]) -> Sequence[float]:
    for share in shares:
        if not 0 < share <= 1:
            raise HirelabError(f"A share of mass is {share!r}; give numbers above 0, up to 1.")
    return shares


def _reach(steps: np.ndarray, curves: np.ndarray, share: float) -> np.ndarray:
    """For each of the rising curves, the first step where it holds the share; NaN without mass."""
    found = steps[(curves >= share - 1e-12).argmax(axis=1)]
    return np.where(np.isnan(curves[:, -1]), np.nan, found)


def _under(sides: np.ndarray, curves: np.ndarray) -> np.ndarray:
    return 1 - (np.diff(curves, axis=1, prepend=0) * sides).sum(axis=1) / sides[-1]


# ------------------------------------------------------------------ measuring


def receptive_field(
    model: nn.Module,
    x: Tensor,
    point: str,
    position: str | Sequence[int] = "centre",
    paths: str = "full",
    reduce: str = "absolute",
    *,
    outputs: str = "all",
    batch: int = 16,
    dtype: torch.dtype | None = None,
    layout: str | None = None,
    grid: Sequence[int] | None = None,
    call: int | None = None,
) -> ReceptiveField:
    """Measure how much each pixel moves a point at one position, averaged over images.

    One backward pass serves a batch: in evaluation mode images do not mix, so the gradient of the
    sum over images holds the gradient of each. Nothing is computed for the parameters. The
    network is left as it was, also after an error.

    Args:
        model: any network of images; it is measured in evaluation mode.
        x: (images, C, H, W), finite.
        point: path of a module or a probe; ``"stages.3"`` means its probe ``"stages.3.out"``. A
            point inside a region is first carried back to places.
        position: (row, column) on the point's map, or one of `POSITIONS`; the centre of an even
            number is the later half's first.
        paths: how the gradient may travel, one of `PATHS`; values stay the network's own. "full":
            every way. For Hire-MLP also "spatial": not through the gate; "height", "width",
            "channel": through this branch only, and not the gate; "shift off": as spatial, of the
            same weights with every shift set to 0.
        reduce: "absolute", "squared" or "positive" gradient, before the sum over colours.
        outputs: "all" sums the activations at the position over channels, "positive" the positive
            ones (the usual recipe, with ``reduce="positive"``). Right after a LayerNorm the sum of
            all is constant, and only "positive" means something.
        batch: at most so many images a pass.
        dtype: torch.float32 or torch.float64, whatever the network's own is, for this measurement;
            by default the network's own, and float32 for one of half precision, whose gradients
            are too coarse.
        layout: which axes of the point's tensor are the map, one of `LAYOUTS`, where that cannot be
            worked out.
        grid: (rows, columns) of tokens in a line, where that cannot be worked out; tokens before
            these count as class tokens.
        call: which call to read of a module that is used several times, from 0.

    Raises:
        UnknownPoint: for a point that is not there, with near names.
        HirelabError: for what cannot be measured, in one sentence with its cure.
    """
    _check_choices(paths=(paths, PATHS), reduce=(reduce, REDUCES), outputs=(outputs, OUTPUTS))
    if layout is not None:
        _check_choices(layout=(layout, LAYOUTS))
    if check_whole("batch", batch) < 1:
        raise HirelabError(f"batch is {batch}; a pass takes at least 1 image.")
    name = _resolve(model, point)
    x = _check_images(x)
    state = itertools.chain(model.parameters(), model.buffers())
    like = next((t for t in state if t.is_floating_point()), x)
    precise = _precision(like.dtype, dtype)
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        batch = 1  # norms by the batch's own statistics mix its images
    reader = _Reader(model, name, layout, grid, call)
    size = tuple(x.shape[2:])
    total, within, crossed, place = np.zeros(size), [], [], None
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autocast(like.device.type, enabled=False))
        stack.enter_context(evaluating(model))
        stack.enter_context(_lent(model, precise))
        stack.enter_context(_travelling(model, paths))
        for start in range(0, len(x), batch):
            # a tensor of its own, as the caller's may be one of inference mode
            pixels = x[start : start + batch].to(like.device, precise, copy=True)
            pixels.requires_grad_()
            # a copy, as a network may begin in place, which leaves of the graph forbid
            seen = reader(pixels.clone())
            place = _place(position, name, seen.shape[2:])
            value = seen[:, :, place[0], place[1]]
            value = value.relu() if outputs == "positive" else value
            gradient = _gradient(value, pixels, name)
            if gradient is None:
                raise HirelabError(
                    f"{name} has no gradient to the image with paths={paths!r}: nothing leads "
                    "there that can be differentiated, or the paths are cut; choose another point "
                    "or paths."
                )
            if outputs == "all" and start == 0:
                _warn_of_constant(seen.detach(), name)
            if not gradient.isfinite().all():
                bad = (~gradient.isfinite()).flatten(1).any(1).nonzero().flatten() + start
                raise HirelabError(
                    f"The gradient of {name} is not finite for images {bad.tolist()}; leave them "
                    "out, or compute with dtype=torch.float64."
                )
            for one in _reduced(gradient, reduce).double().cpu().numpy():
                centre = _middle(place, seen.shape[2:], size)
                sides, index = _squares(size, centre)
                total += one
                mass = np.bincount(index.ravel(), one.ravel(), minlength=len(sides))
                within.append(np.cumsum(mass))
                crossed.append(one[_beyond(size, centre)].sum())
    if total.sum() == 0:
        raise HirelabError(
            f"The gradient of {name} at {place} is zero for every image: what it reads is dead "
            "(say, behind a ReLU), or cut; choose another position or point."
        )
    assert place is not None
    return ReceptiveField(
        total / len(x),
        np.array(within),
        np.array(crossed),
        type(model).__name__,
        name,
        list(place),
        [int(n) for n in seen.shape[2:]],
        paths,
        reduce,
        outputs,
        reader.layout or "NCHW",
        str(precise).removeprefix("torch."),
    )


def _check_choices(**given: tuple[Any, Any]) -> None:
    for what, (value, known) in given.items():
        if value not in tuple(known):
            raise HirelabError(unknown(what, value, known, f"Choose one of {', '.join(known)}."))


def _check_images(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.dim() != 4 or not len(x):
        shape = list(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise HirelabError(
            f"x is {shape}; give a tensor (images, channels, height, width), one image as x[None]."
        )
    if not x.is_floating_point():
        raise HirelabError("x holds whole numbers; convert them with x / 255, and normalise.")
    if not x.isfinite().all():
        raise HirelabError("x holds NaN or infinite values; clean them (torch.nan_to_num).")
    return x.detach()


def _precision(own: torch.dtype, asked: torch.dtype | None) -> torch.dtype:
    exact = (torch.float32, torch.float64)
    if asked is not None and asked not in exact:
        raise HirelabError(
            f"dtype is {asked}; its gradients are too coarse: give float32 or float64."
        )
    return asked or (own if own in exact else torch.float32)


def _gradient(value: Tensor, pixels: Tensor, name: str) -> Tensor | None:
    """The gradient of the value's sum to the pixels, or None where nothing leads there."""
    if not value.requires_grad:
        return None
    try:
        return torch.autograd.grad(value.sum(), pixels, allow_unused=True)[0]
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise HirelabError(
            f"On the way to {name} the network changes in place what its gradient needs: build it "
            "with inplace=False, or choose an earlier point."
        ) from error


def _warn_of_constant(seen: Tensor, name: str) -> None:
    """Say when the sum over channels is the same everywhere, as after a LayerNorm."""
    sums = seen.sum(1)
    size = seen.abs().sum(1).mean()
    if sums.numel() > 1 and size > 0 and sums.max() - sums.min() < 1e-5 * size:
        warnings.warn(
            f"The sum over the channels of {name} is the same everywhere, as a LayerNorm makes it; "
            "its gradient is rounding error. Measure with outputs='positive', or before the norm.",
            stacklevel=3,
        )


def _reduced(gradient: Tensor, reduce: str) -> Tensor:
    """(B, C, H, W) to (B, H, W)."""
    if reduce == "squared":
        return gradient.square().sum(1)
    return (gradient.abs() if reduce == "absolute" else gradient.relu()).sum(1)


def _place(position: str | Sequence[int], name: str, grid: Sequence[int]) -> tuple[int, int]:
    """The position as (row, column), or a ValueError."""
    rows, columns = grid
    if isinstance(position, str):
        _check_choices(position=(position, POSITIONS))
        top = position in ("corner", "top edge")
        left = position in ("corner", "left edge")
        return 0 if top else rows // 2, 0 if left else columns // 2
    if len(position) == 2:
        row, column = (check_whole("position", p) for p in position)
        if 0 <= row < rows and 0 <= column < columns:
            return row, column
    raise HirelabError(
        f"position is {tuple(position)}; {name} has {rows} x {columns} positions: give (row, "
        f"column) from (0, 0) to ({rows - 1}, {columns - 1}), or one of {', '.join(POSITIONS)}."
    )


# ------------------------------------------------------------------ the network, as it is measured


@contextmanager
def _lent(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """With parameters of a precision that ask for no gradients; the network's own afterwards.

    Not `torch.func.functional_call`: it leaves its tensors behind where a module is registered
    under two names.
    """
    own: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            for store in (module._parameters, module._buffers):
                for name, tensor in store.items():
                    if tensor is not None:
                        own.append((store, name, tensor))
                        exact = tensor.detach()
                        store[name] = exact.to(dtype) if exact.is_floating_point() else exact
        yield
    finally:
        for store, name, tensor in own:
            store[name] = tensor


@contextmanager
def _travelling(model: nn.Module, paths: str) -> Iterator[None]:
    """Let gradients travel by these paths only; everything as it was afterwards."""
    if paths == "full":
        yield
        return
    known = probes(model)

    def ends(part: str) -> list[str]:
        return [n for n in known if f".{n}".endswith(f".hire.{part}.out")]

    if not any(f".{n}".endswith(".hire.fused") for n in known):
        raise HirelabError(
            f"{type(model).__name__} is no Hire-MLP and has no branches to tell apart; measure it "
            "with paths='full'."
        )
    if paths in BRANCHES and not ends(paths):
        raise HirelabError(f"The network was built without {paths} branches; choose other paths.")
    branches = [m for m in model.modules() if isinstance(m, AxisBranch)]
    if paths == "shift off" and not branches and (ends("height") or ends("width")):
        raise HirelabError(
            "A deployed network has its shifts built in; measure paths='shift off' on the network "
            "that it was made from."
        )
    shifts = [(branch, branch.shift) for branch in branches]
    cuts: dict[str, Edit] = {name: _cut for part in PATHS[paths] for name in ends(part)}
    try:
        if paths == "shift off":
            for branch in branches:
                branch.shift = 0
        with edits(model, cuts):
            yield
    finally:
        for branch, shift in shifts:
            branch.shift = shift


def _cut(value: Tensor, point: Point) -> Tensor:
    """The same values, with no gradient through them."""
    return value.detach()


def _resolve(model: nn.Module, point: str) -> str:
    """The module's name; a module with a probe ``out`` means that probe."""
    modules = dict(model.named_modules())
    if isinstance(modules.get(f"{point}.out"), Probe):
        return f"{point}.out"
    if point in modules and point:
        return point
    if isinstance(model, Probed):
        known, cure = probes(model), "model.points() lists them all."
    else:
        known, cure = modules, "model.named_modules() lists them all."
    raise UnknownPoint(unknown("point", point, filter(None, known), cure))


class _Seen(Exception):
    """Raised by the hook at the point, to end the forward pass."""


class _Reader:
    """The network up to a point: images to the point's map, (B, C, rows, columns)."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        layout: str | None,
        grid: Sequence[int] | None,
        call: int | None,
    ) -> None:
        self.model, self.name, self.layout = model, name, layout
        self.grid, self.call = grid, call
        self.at = model.get_submodule(name)
        if isinstance(self.at, Probe):
            if layout not in (None, "NCHW"):
                raise HirelabError(f"{name} is a probe, whose layout is NCHW; leave layout out.")
            self.layout = "NCHW"

    def __call__(self, x: Tensor) -> Tensor:
        if isinstance(self.at, Probe) and isinstance(self.model, Probed):
            # these networks use each probe once, so the pass can end there
            _, cache = run_with_cache(self.model, x, self.name, grad=True, stop_early=True)
            return cache.tokens(self.name)
        value = self._read(x)
        if not isinstance(value, Tensor):
            raise HirelabError(
                f"{self.name} gives a {type(value).__name__}; name a module that gives a tensor."
            )
        if value.dim() == 0 or len(value) != len(x):
            raise HirelabError(
                f"{self.name} gives shape {list(value.shape)} for {len(x)} images, which is not "
                "one map an image; name a module around it."
            )
        value, self.layout = self._map(value, x)
        return value

    def _halved(self, x: Tensor) -> tuple[int, ...] | None:
        """The shape that the module gives for half of one image, or None where none goes."""
        try:
            return tuple(self._read(x[:1, :, : x.shape[2] // 2]).shape)
        except Exception:  # whatever a network says to a size that it is not made for
            return None

    def _read(self, x: Tensor) -> Any:
        """What the module gives, of the only call or the one that was asked for."""
        values: list[Any] = []
        count = 0

        def act(module: nn.Module, args: Any, output: Any) -> Any:
            nonlocal count
            count += 1
            if self.call is None and count > 1:
                raise HirelabError(
                    f"{self.name} is called more than once in a pass; say which call you mean: "
                    "call=0 for the first."
                )
            if count - 1 != (self.call or 0):
                return None
            values.append(output)
            if self.call is not None or not isinstance(output, Tensor):
                raise _Seen
            # The pass goes on, to see whether the module comes again: without a graph, and on a
            # copy, which may be changed in place.
            torch.set_grad_enabled(False)
            return output.detach().clone()

        handle = self.at.register_forward_hook(act)
        try:
            with torch.enable_grad():
                self.model(x)
        except _Seen:
            pass
        finally:
            handle.remove()
        if not values:
            if not count:
                raise HirelabError(f"{self.name} is not used in the pass; choose another module.")
            raise HirelabError(
                f"call is {self.call}; {self.name} is called {count} times: 0 to {count - 1}."
            )
        return values[0]

    def _map(self, value: Tensor, x: Tensor) -> tuple[Tensor, str]:
        """The tensor as (B, C, rows, columns), and its layout."""
        shape, image = tuple(value.shape), tuple(x.shape[2:])
        prefix = int(getattr(self.model, "num_prefix_tokens", 0) or 0)
        found = [
            (layout, grid)
            for layout in ([self.layout] if self.layout else LAYOUTS)
            for grid in _grids(shape, layout, image, self.grid, prefix, bool(self.layout))
        ]
        if len(found) > 1:  # 16 x 16 tokens of 256 channels: which axis follows the image?
            sizes = self._halved(x)
            found = [f for f in found if sizes and _follows(shape, sizes, f[0])] or found
        if len(found) > 1:  # a network for one size only
            patches = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
            found = [f for f in found if patches and f[1] == tuple(patches)] or found
        if len(found) != 1 and not (found and math.prod(shape[1:]) == 1):
            raise HirelabError(
                f"{self.name} gives shape {list(shape)} for images of {image[0]} x "
                f"{image[1]}; which axes are the map cannot be known: give layout as one of "
                f"{', '.join(LAYOUTS)}, and for tokens in a line also grid=(rows, columns)."
            )
        layout, (rows, columns) = found[0]
        if layout == "NHWC":
            value = value.permute(0, 3, 1, 2)
        elif layout == "NLC":
            value = value.transpose(1, 2)
        if len(shape) == 3:
            value = value[:, :, value.shape[2] - rows * columns :].unflatten(2, (rows, columns))
        return value, layout


def _grids(
    shape: tuple[int, ...],
    layout: str,
    image: tuple[int, int],
    grid: Sequence[int] | None,
    prefix: int,
    trusted: bool,
) -> list[tuple[int, int]]:
    """The (rows, columns) that a tensor of this shape can have in a layout; ``trusted`` when the
    layout was given, so that proportions need not confirm it."""
    if len(shape) != len(layout):
        return []
    if len(layout) == 4:
        rows, columns = shape[2:] if layout == "NCHW" else shape[1:3]
        return [(rows, columns)] if trusted or _proportional(rows, columns, image) else []
    tokens = shape[layout.index("L")]
    if grid is not None:
        rows, columns = (check_whole("grid", n) for n in grid)
        return [(rows, columns)] if 0 < rows * columns <= tokens else []
    for count in dict.fromkeys((tokens - prefix, tokens)):
        found = [
            (rows, count // rows)
            for rows in range(1, count + 1)
            if count % rows == 0 and _proportional(rows, count // rows, image)
        ]
        if found:
            return found
    return []


def _follows(whole: tuple[int, ...], half: tuple[int, ...], layout: str) -> bool:
    """Whether the first axis of the map shrank with the image and the channels stayed."""
    tall = layout.index("H" if "H" in layout else "L")
    channels = layout.index("C")
    return (
        len(half) == len(whole) and half[tall] < whole[tall] and half[channels] == whole[channels]
    )


def _proportional(rows: int, columns: int, image: tuple[int, int]) -> bool:
    """Whether a map can be of an image: one stride along both axes, borders cut off alike."""
    high, wide = image
    if rows > high or columns > wide:
        return False
    if high == wide:
        return rows == columns
    strides = range(1, max(image) + 1)
    return any(
        abs((high - wide) - s * (rows - columns)) < s and s * (rows - 1) < high for s in strides
    )

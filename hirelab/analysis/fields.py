"""What `receptive_field` measured: one field in numbers, several side by side.

Numbers are measured on the map as it is. A logarithm before measuring, as is common, makes them
depend on the gradient's scale; here it serves for drawing only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .._shared.checks import check_choice
from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..results import Result

if TYPE_CHECKING:
    from ..viz.figures import Figure

GRADIENTS = {"abs": "|gradient|", "square": "gradient squared", "relu": "gradient > 0"}
"""What is taken of the gradient before the sum over colours, in words."""
SHARES = (0.2, 0.3, 0.5, 0.99)  # RepLKNet's table


# ------------------------------------------------------------------ geometry


def cell_middle(
    position: Sequence[int], grid: Sequence[int], image: Sequence[int]
) -> tuple[float, float]:
    """Middle of a position's cell in pixels, (down, right) from the image's corner."""
    down, right = ((p + 0.5) * n / g for p, g, n in zip(position, grid, image, strict=True))
    return down, right


def _distance(image: Sequence[int], centre: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Straight distances of the pixels' middles along each axis, (H, 1) and (1, W)."""
    down, right = (np.abs(np.arange(n) + 0.5 - c) for n, c in zip(image, centre, strict=True))
    return down[:, None], right[None]


def _squares(image: Sequence[int], centre: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The sides that occur, rising, and the index (H, W) of each pixel's: twice the larger
    distance of the pixel's middle, and the pixel itself."""
    side = 2 * np.maximum(*_distance(image, centre)) + 1
    sides, index = np.unique(side.round(6), return_inverse=True)
    return sides, index.reshape(side.shape)


def _wraps(image: Sequence[int], centre: Sequence[float]) -> np.ndarray:
    """(H, W) True where the way round the border is shorter along an axis or both."""
    down, right = _distance(image, centre)
    return (down > image[0] / 2) | (right > image[1] / 2)


def _check_shares(shares: Sequence[float]) -> Sequence[float]:
    for share in shares:
        if not 0 < share <= 1:
            raise HirelabError(f"A share of mass is {share!r}; give numbers above 0, up to 1.")
    return shares


def _first_at(steps: np.ndarray, curves: np.ndarray, share: float) -> np.ndarray:
    """For each of the rising curves, the first step where it holds the share; NaN without mass."""
    found = steps[(curves >= share - 1e-12).argmax(axis=1)]
    return np.where(np.isnan(curves[:, -1]), np.nan, found)


def _auc(sides: np.ndarray, curves: np.ndarray) -> np.ndarray:
    return 1 - (np.diff(curves, axis=1, prepend=0) * sides).sum(axis=1) / sides[-1]


def masses(values: np.ndarray, centre: Sequence[float]) -> tuple[np.ndarray, float]:
    """(sides,) the mass of a map (H, W) within each square around a place, and the mass that is
    nearer going round the border."""
    sides, index = _squares(values.shape, centre)
    mass = np.bincount(index.ravel(), values.ravel(), minlength=len(sides))
    return np.cumsum(mass), float(values[_wraps(values.shape, centre)].sum())


def centroid(values: np.ndarray) -> tuple[float, float]:
    """Centre of a map's mass, (down, right) in pixels; NaN twice without mass."""
    lines = values.sum(axis=1), values.sum(axis=0)
    with np.errstate(invalid="ignore"):
        down, right = ((m * (np.arange(len(m)) + 0.5)).sum() / m.sum() for m in lines)
    return float(down), float(right)


def half_around_centroid(values: np.ndarray) -> float:
    """Side in pixels of the smallest square around the `centroid` of a map (H, W) that holds half
    of its mass; NaN without mass."""
    middle = centroid(values)
    if np.isnan(middle).any():
        return float("nan")
    mass, _ = masses(values, middle)
    return float(_first_at(_squares(values.shape, middle)[0], mass[None] / mass[-1], 0.5)[0])


# ------------------------------------------------------------------ results


@dataclass(frozen=True, eq=False)
class ReceptiveField(Result):
    """What `receptive_field` measured.

    A square of side s stands on the middle of the position's cell, and holds the pixels that lie in
    it whole. A share of mass is a share of the map's sum. Pixels count from the image's corner.

    Attributes:
        map: (H, W) average over images of the `GRADIENTS` chosen, summed over colours; linear.
        mass_within: (images, sides) the mass of every image's own map within each of `sides`;
            the last column is all of it.
        wrapped_mass: (images,) the mass that is nearer going round the border, see `wrapped_share`.
        centroid_sides: (images,) `half_around_centroid` of every image's own map.
        network: timm's name of the network, or its class.
        point: the module that was read.
        position: [row, column] on the point's map of ``grid`` = [rows, columns].
        paths, gradient, outputs: the measurement's settings.
        layout: how the point's tensor was read, one of `LAYOUTS`.
        dtype: what it was computed in.
        trained: whether the weights look trained, None where nothing tells.
    """

    map: np.ndarray
    mass_within: np.ndarray
    wrapped_mass: np.ndarray
    centroid_sides: np.ndarray
    network: str
    point: str
    position: list[int]
    grid: list[int]
    paths: str
    gradient: str
    outputs: str
    layout: str
    dtype: str
    trained: bool | None = None

    @property
    def image_count(self) -> int:
        """How many images were averaged over."""
        return len(self.mass_within)

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the position's cell, (down, right) in pixels from the top left corner."""
        return cell_middle(self.position, self.grid, self.map.shape)

    @property
    def centroid(self) -> tuple[float, float]:
        """Centre of the mass, (down, right) in pixels.

        Not quite `centre`: a strided convolution that pads alike on both sides reads up and left of
        its cell's middle, by up to half a cell after several.
        """
        return centroid(self.map)

    @property
    def deviation(self) -> tuple[float, float]:
        """Standard deviation of the mass around `centroid`, (down, right) in pixels."""
        down, right = (
            math.sqrt((m * (p - c) ** 2).sum() / m.sum())
            for (m, p), c in zip(self._lines(), self.centroid, strict=True)
        )
        return down, right

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
        return tuple(
            float(_first_at(self.sides, self.curve[None], s)[0]) for s in _check_shares(shares)
        )

    def area(self, *shares: float) -> tuple[float, ...]:
        """The same square's area on the image, as a share of the image's, 0 to 1."""
        return tuple(float(self._area(self.curve[None], s)[0]) for s in _check_shares(shares))

    @property
    def half_mass_side(self) -> float:
        """Side in pixels of the smallest square that holds half of the mass."""
        return self.side(0.5)[0]

    @cached_property
    def half_around_centroid(self) -> float:
        """Side in pixels of the smallest square with half of the mass, if it stands on `centroid`.

        For narrow fields the fairer number: they may lie beside the middle of their cell.
        """
        return half_around_centroid(self.map)

    @property
    def area_under_curve(self) -> float:
        """Of `curve` against side, as a share of the box around it; near 1 is narrow.

        The curve is a staircase, so this is 1 - (average over the mass of its pixels' side) /
        (largest side).
        """
        return float(_auc(self.sides, self.curve[None])[0])

    @property
    def wrapped_share(self) -> float:
        """Share of mass that is nearer to the position going round the border than straight.

        On a torus a pixel more than half the image away along an axis is nearer the other way
        round (the minimum image convention, Metropolis et al. 1953, doi:10.1063/1.1699114). From
        the centre none is, from a corner three quarters are. Mass there has crossed the border
        where shift or padding wrap round; without these it has come far.
        `wrapped_share_uniform` is what a flat map would give.
        """
        return float(self.wrapped_mass.sum() / self.mass_within[:, -1].sum())

    @property
    def wrapped_share_uniform(self) -> float:
        """Share of the image's pixels that are nearer going round the border."""
        return float(_wraps(self.map.shape, self.centre).mean())

    def numbers(self) -> dict[str, float]:
        """The averaged map in numbers; areas and shares 0 to 1, sides in pixels."""
        wrapped, side = np.array([self.wrapped_share]), np.array([self.half_around_centroid])
        return {k: float(v[0]) for k, v in self._numbers(self.curve[None], wrapped, side).items()}

    def by_image(self) -> dict[str, np.ndarray]:
        """The same numbers of every image's own map, (images,) each; NaN without a gradient."""
        with np.errstate(invalid="ignore"):
            wrapped = self.wrapped_mass / self.mass_within[:, -1]
        return self._numbers(self.curves, wrapped, self.centroid_sides)

    def _numbers(
        self, curves: np.ndarray, wrapped: np.ndarray, around_centroid: np.ndarray
    ) -> dict[str, np.ndarray]:
        areas = {f"area {share:.0%}": self._area(curves, share) for share in SHARES}
        return {
            **areas,
            "half-mass side": _first_at(self.sides, curves, 0.5),
            "99% side": _first_at(self.sides, curves, 0.99),
            "area under curve": _auc(self.sides, curves),
            "wrapped share": wrapped,
            "half-mass side, centroid": around_centroid,
        }

    def _area(self, curves: np.ndarray, share: float) -> np.ndarray:
        index = _squares(self.map.shape, self.centre)[1]
        covered = np.cumsum(np.bincount(index.ravel(), minlength=len(self.sides))) / index.size
        return _first_at(covered, curves, share)

    @property
    def title(self) -> str:
        """What was measured, in one line."""
        row, column = self.position
        state = ", untrained weights" if self.trained is False else ""
        return f"{self.network}, {self.point} at ({row}, {column}), {self.paths} paths{state}"

    def plot(self, decades: int = 4) -> Figure:
        """The map in logarithmic colours of so many ``decades``, and the linear curve; a
        `hirelab.viz.figures.Figure`."""
        from ..viz.field import field_figure

        said = ", ".join(f"{name} {value:.3g}" for name, value in self.numbers().items())
        return field_figure(
            self.map,
            self.centre,
            self.half_mass_side,
            (self.sides, self.curve, self.curves),
            self.title,
            f"{GRADIENTS[self.gradient]}, mean of {self.image_count}",
            f"{self.title}: {said}",
            decades,
        )


@dataclass(frozen=True, eq=False)
class FieldComparison(Records, Result):
    """Several receptive fields side by side; prints as a table.

    Attributes:
        names: of the fields.
        columns: names of the numbers, see `ReceptiveField.numbers`.
        values: (names, columns) of the averaged maps.
        spread: (names, columns) standard deviation over single images; NaN for one image.
        images: how many each averages over.
        relative: (points,) side as a share of the image's longer side.
        curves: (names, points) share of mass within that side.
        trained: (names,) whether each network's weights look trained, None where nothing tells.
    """

    names: list[str]
    columns: list[str]
    values: np.ndarray
    spread: np.ndarray
    images: list[int]
    relative: np.ndarray
    curves: np.ndarray
    trained: list[bool | None] = field(default_factory=list)

    def rows(self) -> list[list[str]]:
        """(name, number, ...) of every field as text: value, and spread where there is one."""

        def show(value: float, spread: float) -> str:
            return f"{value:.3g}" + ("" if np.isnan(spread) else f" \u00b1 {spread:.2g}")

        return [
            [name, *map(show, values, spread)]
            for name, values, spread in zip(self.names, self.values, self.spread, strict=True)
        ]

    def records(self) -> list[dict[str, Any]]:
        """A row for each field: its name, every number, and every spread as "NUMBER spread"."""
        spreads = [f"{column} spread" for column in self.columns]
        names = ["name", *self.columns, *spreads]
        rows = zip(self.names, self.values.tolist(), self.spread.tolist(), strict=True)
        return [dict(zip(names, [name, *v, *s], strict=True)) for name, v, s in rows]

    def table(self, *columns: str) -> str:
        """The chosen columns as lines of text; all of them where none is named.

        Raises:
            HirelabError: for a column that does not exist.
        """
        for name in columns:
            check_choice("column", name, self.columns)
        kept = [0, *(1 + self.columns.index(name) for name in columns or self.columns)]
        lines = [["", *self.columns], *self.rows()]
        return table([line[i] for i in kept] for line in lines)

    def __repr__(self) -> str:
        return self.table()

    def plot(self) -> Figure:
        """Share of mass against the square's side, one line per field."""
        from ..viz.field import curves_figure

        half = self.columns.index("half-mass side")
        said = "; ".join(
            f"{name}: half of the mass within {row[half]:.3g} px"
            for name, row in zip(self.names, self.values, strict=True)
        )
        states = self.trained or [None] * len(self.names)
        names = [_labelled(*one) for one in zip(self.names, states, strict=True)]
        return curves_figure(names, self.relative, self.curves, said)


def compare_fields(fields: Mapping[str, ReceptiveField]) -> FieldComparison:
    """Put receptive fields side by side: ``compare_fields({"random": one, "trained": other})``.

    Warns where the numbers do not compare: images of different size, other gradients. (Different
    points, positions, paths and networks are what one compares.)

    Raises:
        HirelabError: for no field, or something else than fields by name.
    """
    if not isinstance(fields, Mapping) or any(
        not isinstance(field, ReceptiveField) for field in fields.values()
    ):
        raise HirelabError(
            f"compare_fields got a {type(fields).__name__} of something else than fields; give "
            '{"name": field, ...} with fields of hirelab.receptive_field.'
        )
    if not fields:
        raise HirelabError("compare_fields got no field; give at least one, by name.")
    kept = list(fields.values())
    reasons = {
        "input size": {" x ".join(map(str, f.map.shape)) for f in kept},
        "gradient": {f.gradient for f in kept},
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
        [f.trained for f in kept],
    )


def _labelled(name: str, trained: bool | None) -> str:
    """The name in a figure, which says where weights are untrained."""
    return f"{name} (untrained)" if trained is False and "untrained" not in name else name


def side_by_side(
    fields: Mapping[str, ReceptiveField], reachable: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """Draw the maps of several receptive fields, each with its half-mass square.

    Args:
        fields: by name; every map has its own largest value.
        reachable: for names of fields, the pixels (H, W) bool that can reach the position, as
            ``provenance(...).pixels`` has them; their border is drawn.

    Raises:
        HirelabError: for no field, fields of different gradients or images of different size, a
            name without a field, or a mask of another size.
    """
    from ..viz.field import fields_figure

    if not fields:
        raise HirelabError("side_by_side got no field; give at least one, by name.")
    kinds = {(f.map.shape, f.gradient) for f in fields.values()}
    if len(kinds) > 1:
        raise HirelabError(
            "The fields differ in input size or gradient, and share no scale; measure them alike, "
            "or plot() each."
        )
    masks = dict(reachable or {})
    for name, mask in masks.items():
        check_choice("field", name, fields)
        if np.shape(mask) != fields[name].map.shape:
            raise HirelabError(
                f"The reachable pixels of {name} have shape {list(np.shape(mask))}, its field "
                f"{list(fields[name].map.shape)}; take both for one input size."
            )
    panels = [
        (_labelled(name, f.trained), f.map, f.centre, f.half_mass_side, masks.get(name))
        for name, f in fields.items()
    ]
    said = "; ".join(
        f"{name}: half of the mass within {f.half_mass_side:g} px" for name, f in fields.items()
    )
    (_, gradient), *_ = kinds
    return fields_figure(panels, GRADIENTS[gradient], said)

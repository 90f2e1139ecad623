"""By how much receptive fields differ on the same images, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._shared.checks import check_choice
from .._shared.errors import HirelabError
from .._shared.statistics import t_interval
from .._shared.tables import table
from ..results import Result
from .fields import ReceptiveField

if TYPE_CHECKING:
    from ..viz.figures import Figure


@dataclass(frozen=True, eq=False, repr=False)
class PairedDifferences(Result):
    """Differences of two fields in some numbers, for every image, and of their mean.

    Images differ much more from each other than two networks do on one image, so two means with
    their spreads hide what a difference image by image shows. The interval is about other images
    of the same kind, and about these networks: another training of either is another network.

    Attributes:
        names: of the comparisons.
        numbers: what was compared, see `ReceptiveField.numbers`.
        each: (names, numbers, images) the first field's number minus the second's.
        low, high: (names, numbers) Student's 95 % interval of the mean.
    """

    names: list[str]
    numbers: list[str]
    each: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(names, numbers) over images."""
        return self.each.mean(axis=2)

    def plot(self) -> Figure:
        """A panel for each number: a dot for every image, a bar for the interval of the mean."""
        from ..viz.pairs import differences_figure

        return differences_figure(
            self.names, self.numbers, self.each, self.low, self.high, self._said("; ")
        )

    def _said(self, between: str) -> str:
        rows = zip(self.names, self._rows(), strict=True)
        return between.join(f"{name}: {', '.join(row)}" for name, row in rows)

    def _rows(self) -> list[list[str]]:
        return [
            [f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]" for mean, low, high in zip(*row, strict=True)]
            for row in zip(self.mean, self.low, self.high, strict=True)
        ]

    def __repr__(self) -> str:
        return f"paired differences of {', '.join(self.names)} on {self.each.shape[2]} images"

    def __str__(self) -> str:
        """For every comparison the mean difference, its interval, and in how many images the first
        field's number is the larger one."""
        images = self.each.shape[2]
        larger = (self.each > 0).sum(axis=2)
        rows = [
            [
                name,
                *(f"{text}, larger in {n} of {images}" for text, n in zip(row, more, strict=True)),
            ]
            for name, row, more in zip(self.names, self._rows(), larger, strict=True)
        ]
        return table([["", *self.numbers], *rows])


def paired_differences(
    pairs: Mapping[str, tuple[ReceptiveField, ReceptiveField]],
    *numbers: str,
) -> PairedDifferences:
    """Compare fields two by two, image by image.

    Args:
        pairs: by name, two fields measured on the same images in the same order. (Only their
            number can be checked.)
        numbers: of `ReceptiveField.numbers`, one or several.

    Raises:
        HirelabError: for no pair or number, an unknown number, different numbers of images, and
            fewer than two.
    """
    if not pairs or not numbers:
        raise HirelabError("Give at least one pair of fields, by name, and at least one number.")
    counts = {name: tuple(f.image_count for f in pair) for name, pair in pairs.items()}
    if len({n for pair in counts.values() for n in pair}) > 1:
        raise HirelabError(
            f"The fields average over {counts} images; measure all of them on the same images."
        )
    if min(next(iter(counts.values()))) < 2:
        raise HirelabError("The fields are of one image, which has no spread; give at least two.")
    for number in numbers:
        check_choice("number", number, next(iter(pairs.values()))[0].numbers())
    each = np.array(
        [
            [one.by_image()[number] - other.by_image()[number] for number in numbers]
            for one, other in pairs.values()
        ]
    )
    ends = np.apply_along_axis(t_interval, 2, each)
    return PairedDifferences(list(pairs), list(numbers), each, ends[..., 0], ends[..., 1])

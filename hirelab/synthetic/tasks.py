"""Generated tasks that isolate what the rearrangement is for. No download; the same by seed.

An image is a grid of ``size`` x ``size`` tokens, each holding one of a few symbols, one-hot over
the channels. Every token has to answer, so the head is dense:

    CopyFromDistance    which symbol does the token d rows (or columns) away hold?
    TextureInRegion     which way do the stripes run in my region?
    MeetAcrossBorder    what do I and the token beyond my region's border hold together?

No token can guess. An answer depends on a line (a row, for the axis height) that is drawn
independently of all others, and all answers are equally frequent: a token that this line does not
reach is right by ``chance``, exactly.

Nor can an average over the map tell, which is what a network's gate reads. Every image holds
every symbol equally often, in every line and even in every slot of the regions across it, so what
tokens compute by themselves has the same mean in all images. What regions compute has not, but
such a mean says the same of all regions in a row of them: for `CopyFromDistance` and
`MeetAcrossBorder` a network without a cross-region step learns nothing from it. With one, and in
`TextureInRegion`, that is not exact; ``fusion="sum"`` builds networks without a gate, for which
`Task.upper_bound` holds everywhere.

So the index maps alone say which positions can be right; `hirelab.synthetic.learning` trains
networks on these tasks and measures what they learn beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError
from ..rearrange import AXES

__all__ = [
    "UNSCORED",
    "Batch",
    "CopyFromDistance",
    "MeetAcrossBorder",
    "Task",
    "TextureInRegion",
]

UNSCORED = -100
"""The target where a token is not asked; PyTorch's losses leave it out by themselves."""


class Batch(NamedTuple):
    """Images, what every token must answer, and which tokens are asked.

    Attributes:
        x: (n, symbols, size, size) float32, one-hot over the symbols.
        target: (n, questions, size, size) int64 in 0..classes-1, `UNSCORED` where nobody is asked.
        mask: (questions, size, size) bool, True where a token is asked; the same for all images.
    """

    x: Tensor
    target: Tensor
    mask: Tensor


class Task(ABC):
    """What the three tasks share. ``size`` and ``seed`` are fields of each.

    A network answers with logits of shape (n, questions * classes, size, size), the classes of the
    first question first.
    """

    size: int
    seed: int

    def _whole(self, **least: int) -> None:
        """Check the named fields and keep them as Python's own numbers, which can be saved."""
        for name, bound in least.items():
            object.__setattr__(self, name, check_whole(name, getattr(self, name), bound))

    @property
    @abstractmethod
    def symbols(self) -> int:
        """How many symbols a token may hold: the channels of an image."""

    @property
    def questions(self) -> int:
        """How many answers every token gives."""
        return 1

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many answers there are to a question; all are equally frequent."""

    @property
    def chance(self) -> float:
        """The share of right answers of a token that no other one reaches, 0..1."""
        return 1 / self.classes

    @abstractmethod
    def mask(self) -> np.ndarray:
        """(questions, size, size) bool, True where a token is asked."""

    @abstractmethod
    def upper_bound(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        """(questions, size, size) the best share of right answers, 0..1, NaN where nobody is asked.

        Args:
            reach: for "height" and "width", (size, size) bool: ``reach[axis][out, in]`` is True
                where line ``in`` can change line ``out``; see `line_reach`. What passes through a
                gate is left out.
        """

    @abstractmethod
    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Symbols (n, size, size) and answers (n, questions, size, size)."""

    def batch(self, n: int, step: int, fresh: bool = False) -> Batch:
        """``n`` images; the same for the same task, ``n``, ``step`` and ``fresh``.

        Args:
            n: images, at least 1.
            step: which batch, from 0.
            fresh: draw from the images kept for measuring, which training never asks for.

        Raises:
            HirelabError: for counts that are no whole numbers, or too small.
        """
        n, step = check_whole("n", n, 1), check_whole("step", step, 0)
        rng = np.random.default_rng([self.seed, int(fresh), step])
        symbols, answers = self._draw(rng, n)
        mask = self.mask()
        target = np.where(mask, answers, UNSCORED)
        x = F.one_hot(torch.from_numpy(symbols), self.symbols).permute(0, 3, 1, 2).float()
        return Batch(x.contiguous(), torch.from_numpy(target), torch.from_numpy(mask))


def _check_lines(size: int, region: int, symbols: int) -> None:
    if size % (region * symbols):
        raise HirelabError(
            f"size is {size}, region {region} and symbols {symbols}; every slot of the regions on "
            "a line holds every symbol equally often: give a size that is a multiple of "
            f"{region} x {symbols}."
        )


def _lines(rng: np.random.Generator, n: int, size: int, region: int, symbols: int) -> np.ndarray:
    """(n, size, size) maps of independent rows. In a row the tokens of one slot, ``region`` apart,
    are a shuffle of equally many of each symbol."""
    slot = np.arange(size // region, dtype=np.int64)[:, None] % symbols
    rows = np.broadcast_to(slot, (n, size, size // region, region))
    return rng.permuted(rows, axis=2).reshape(n, size, size)


def _across(rows: np.ndarray, axis: str) -> np.ndarray:
    """What was made for rows, for lines across ``axis``: as it is for height, turned for width."""
    return rows if axis == "height" else np.swapaxes(rows, -1, -2)


def _to_positions(lines: np.ndarray, size: int, axis: str) -> np.ndarray:
    """(questions, size) values of a line as (questions, size, size) values of its tokens."""
    return _across(np.repeat(lines[:, :, None], size, axis=2), axis)


@dataclass(frozen=True)
class CopyFromDistance(Task):
    """Every token answers with the symbol of the token ``d`` further along ``axis``.

    One question for each distance, so that one training gives accuracy against distance: the reach.

    Args:
        size: tokens along each side, at least 3 and a multiple of ``region * symbols``.
        distances: in tokens, whole numbers between -size and size; negative is towards lower index.
        symbols: at least 2.
        region: of the network that is to be asked, so that its gate reads nothing of use; a
            network without one can be asked with 1.
        axis: "height" (rows away) or "width" (columns away).
        wrap: whether the line is a ring, as it is for the shift, which rolls: then every token has
            a source, and reach round the edge counts. Otherwise a token whose source would lie
            outside is not asked.
        seed: of the images, 0 or more.

    Raises:
        HirelabError: for an impossible choice, naming it and the cure.
    """

    size: int = 12
    distances: tuple[int, ...] = (1,)
    symbols: int = 4
    region: int = 3
    axis: str = "height"
    wrap: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self._whole(size=3, region=1, symbols=2, seed=0)  # a Hire-MLP reads 3 x 3 or more
        _check_lines(self.size, self.region, self.symbols)
        check_choice("axis", self.axis, AXES)
        listed = (self.distances,) if np.ndim(self.distances) == 0 else tuple(self.distances)
        given = tuple(check_whole("distance", d) for d in listed)
        object.__setattr__(self, "distances", given)
        if not given or len(set(given)) < len(given) or max(abs(d) for d in given) >= self.size:
            raise HirelabError(
                f"distances is {self.distances}; give one or more, each once and shorter than the "
                f"line of {self.size}."
            )

    @property
    def questions(self) -> int:
        return len(self.distances)

    @property
    def classes(self) -> int:
        return self.symbols

    def _sources(self) -> np.ndarray:
        """(questions, size) the line that every line copies from, not wrapped yet."""
        return np.arange(self.size) + np.array(self.distances)[:, None]

    def mask(self) -> np.ndarray:
        sources = self._sources()
        asked = np.full(sources.shape, True)
        if not self.wrap:
            asked = (sources >= 0) & (sources < self.size)
        return _to_positions(asked, self.size, self.axis)

    def upper_bound(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        reached = reach[self.axis][np.arange(self.size), self._sources() % self.size]
        best = _to_positions(np.where(reached, 1.0, self.chance), self.size, self.axis)
        return np.where(self.mask(), best, np.nan)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = _lines(rng, n, self.size, self.region, self.symbols)
        answers = rows[:, self._sources() % self.size]
        return _across(rows, self.axis), _across(answers, self.axis)


@dataclass(frozen=True)
class TextureInRegion(Task):
    """Every token says which way the symbols of its region rise: four directions, on the diagonals.

    The map is cut into regions of ``region`` x ``region`` tokens, as an unshifted network cuts it.
    From token to token the symbols of a region go up or down by one, round the ring of symbols,
    along the height and along the width, from a start of its own. A token alone knows nothing
    (a quarter right); one that its region reaches along one axis knows one of the two answers (a
    half); nothing beyond the region helps.

    Args:
        size: tokens along each side, a multiple of ``region``.
        region: at least 3: on a ring of two symbols up and down are the same. There are as many
            symbols, so that every line of a region holds each of them once.
        seed: of the images, 0 or more.

    Raises:
        HirelabError: for an impossible choice, naming it and the cure.
    """

    size: int = 12
    region: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        self._whole(size=3, region=3, seed=0)
        if self.size % self.region:
            raise HirelabError(
                f"size is {self.size} and region {self.region}; every texture fills its region: "
                "give a size that is a multiple of region."
            )

    @property
    def symbols(self) -> int:
        return self.region

    @property
    def classes(self) -> int:
        return 4  # 2 * (down the height) + (down the width)

    def mask(self) -> np.ndarray:
        return np.full((1, self.size, self.size), True)

    def upper_bound(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        line = np.arange(self.size)
        apart = line[:, None] - line
        together = line[:, None] // self.region == line // self.region
        # half a ring away is the same symbol up and down
        telling = together & (2 * apart % self.region != 0)
        height, width = ((reach[axis] & telling).any(1) for axis in ("height", "width"))
        return self.chance * (1.0 + height[:, None]) * (1.0 + width) * self.mask()

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        regions = self.size // self.region
        grid = (n, regions, regions)
        start, texture = (rng.integers(high, size=grid) for high in (self.region, self.classes))
        start, texture = (v.repeat(self.region, 1).repeat(self.region, 2) for v in (start, texture))
        within = np.arange(self.size) % self.region
        up_height, up_width = 1 - 2 * (texture // 2), 1 - 2 * (texture % 2)
        symbols = (start + up_height * within[:, None] + up_width * within) % self.symbols
        return symbols, texture[:, None]


@dataclass(frozen=True)
class MeetAcrossBorder(Task):
    """The tokens on the two sides of a region border both answer with their sum, modulo symbols.

    With two symbols: do we hold the same, or not? Only the last token of a region and the first of
    the next are asked, along ``axis``; regions are those of an unshifted network. Each needs the
    other one, from which no mixing inside regions ever brings it anything.

    Args:
        size: tokens along each side, a multiple of ``region * symbols``.
        region: at least 2, or every token would stand on two borders.
        symbols: at least 2.
        axis: "height" or "width".
        seed: of the images, 0 or more.

    Raises:
        HirelabError: for an impossible choice, naming it and the cure.
    """

    size: int = 12
    region: int = 3
    symbols: int = 2
    axis: str = "height"
    seed: int = 0

    def __post_init__(self) -> None:
        self._whole(size=3, region=2, symbols=2, seed=0)
        _check_lines(self.size, self.region, self.symbols)
        check_choice("axis", self.axis, AXES)

    @property
    def classes(self) -> int:
        return self.symbols

    def _partners(self) -> np.ndarray:
        """(1, size) the line beyond the border that a line stands at, itself where at none."""
        partners = np.arange(self.size)
        first = partners[self.region :: self.region].copy()
        partners[first], partners[first - 1] = first - 1, first
        return partners[None]

    def mask(self) -> np.ndarray:
        return _to_positions(self._partners() != np.arange(self.size), self.size, self.axis)

    def upper_bound(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        reached = reach[self.axis][np.arange(self.size), self._partners()]
        best = _to_positions(np.where(reached, 1.0, self.chance), self.size, self.axis)
        return np.where(self.mask(), best, np.nan)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = _lines(rng, n, self.size, self.region, self.symbols)
        answers = (rows[:, None] + rows[:, self._partners()]) % self.symbols
        return _across(rows, self.axis), _across(answers, self.axis)

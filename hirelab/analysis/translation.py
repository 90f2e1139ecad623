"""How a network's answers change when the image moves by a few pixels.

TranslationSensitivity   what was measured of one network
TranslationComparison    of several, with their differences on the same images
translation_sensitivity  move images by rolling them and by moving a window, and measure
compare_translations     put networks side by side
translation_results      what was measured of the bundled networks, as it is kept in data/results
token_period             the roll in tokens that one rearrangement lets through
roll_period              the roll in pixels that a Hire-MLP's rearrangements let through

An image is moved in two ways, which ask different questions. *roll*: what leaves at one side comes
in at the other, so that no pixel is lost and a seam runs through the image; to a rearrangement that
wraps around the border it is the same ring. *crop*: a window moves over a larger image, so that
real pixels come in, as when a camera turns.

The numbers are those of Azulay and Weiss (JMLR 2019, arXiv 1805.12177): how much the probability of
the first answer changes, and how often another class becomes the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError
from .._shared.files import data_folder
from .._shared.statistics import t_interval, wilson_interval
from .._shared.tables import Records, table
from ..hooks.forward import check_images, check_module, frozen_eval, scores, to_model_device
from ..models.hire_mlp import HireMLP, blocks_of, stages_of
from ..rearrange import AXES, EMPTY, Rearrangement
from ..results import Result
from .pyramid import stage_grids

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = [
    "WAYS",
    "TranslationComparison",
    "TranslationSensitivity",
    "compare_translations",
    "roll_period",
    "token_period",
    "translation_results",
    "translation_sensitivity",
]

WAYS = ("roll", "crop")
KEPT = "translation.npz"
AT_ONCE = 64  # images in the network's memory


@dataclass(frozen=True, eq=False, repr=False)
class TranslationSensitivity(Records, Result):
    """How a network's answers change when the image moves along one axis.

    Attributes:
        offsets: (D,) pixels by which the image moved.
        change: (2, D, images) of the ways in `WAYS`, how much the probability of the answer to the
            unmoved image changed, 0 to 1, without its sign.
        changed: (2, D, images) bool, whether another class became the first answer.
        img_size: side in pixels of what the network sees.
        axis: "height" (down) or "width" (to the right).
        reductions: pixels from one position to the next of each of the network's maps, finest
            first; empty where the network does not say.
    """

    offsets: np.ndarray
    change: np.ndarray
    changed: np.ndarray
    img_size: int
    axis: str
    reductions: list[int]

    def records(self) -> list[dict[str, Any]]:
        """A row for each way and offset: mean change with Student's 95 % interval, and the share of
        images whose first answer changed with Wilson's."""
        rows = []
        for way, changes, answers in zip(WAYS, self.change, self.changed, strict=True):
            for offset, change, changed in zip(self.offsets, changes, answers, strict=True):
                ends, share = t_interval(change), float(changed.mean())
                low, high = wilson_interval(share, changed.size)
                rows.append({
                    "way": way, "offset": int(offset), "change": float(change.mean()),
                    "change_low": max(ends[0], 0.0), "change_high": min(ends[1], 1.0),
                    "changed": share, "changed_low": low, "changed_high": high,
                    "images": changed.size,
                })  # fmt: skip
        return rows

    def stride_effect(self, step: int) -> dict[str, tuple[float, float, float]]:
        """Of each way, how much more the probability changes beside multiples of ``step`` pixels
        than at them: mean and Student's 95 % interval over the images, 0 to 1.

        Compared are the multiples among the offsets with the mean of their two neighbours, one
        pixel less and one more, where both were measured. Above 0 the answer is less stable between
        the positions of a map with that stride than from one to the next.

        Raises:
            HirelabError: no multiple of ``step`` was measured with both neighbours.
        """
        return _intervals(self.beside_minus_at(step))

    def beside_minus_at(self, step: int) -> np.ndarray:
        """(2, images) what `stride_effect` is the mean of."""
        at = {int(offset): i for i, offset in enumerate(self.offsets)}
        found = [d for d in at if d % check_whole("step", step, 2) == 0 and {d - 1, d + 1} <= {*at}]
        if not found:
            raise HirelabError(
                f"No multiple of {step} pixels was measured with both of its neighbours; measure, "
                f"say, offsets {step - 1}, {step} and {step + 1}."
            )
        own, before, after = (self.change[:, [at[d + by] for d in found]] for by in (0, -1, 1))
        return ((before + after) / 2 - own).mean(1)

    def plot(self) -> Figure:
        """Both numbers against the offset, for both ways."""
        return compare_translations({"": self}).plot()

    def __repr__(self) -> str:
        return (
            f"{self.change.shape[2]} images of {self.img_size} px moved along {self.axis} by "
            f"{self.offsets[0]} to {self.offsets[-1]} px"
        )

    def __str__(self) -> str:
        """A line for each offset: mean change of probability, and other first answers."""
        rows = self.records()
        count = len(self.offsets)
        lines = [
            [
                one["offset"],
                *(
                    f"{100 * row[name]:.1f} [{100 * row[f'{name}_low']:.1f}, "
                    f"{100 * row[f'{name}_high']:.1f}]"
                    for row in (one, other)
                    for name in ("change", "changed")
                ),
            ]
            for one, other in zip(rows[:count], rows[count:], strict=True)
        ]
        head = ["px", *(f"{way}: {w}, %" for way in WAYS for w in ("change", "other answer"))]
        return table([head, *lines], "r")


@dataclass(frozen=True, eq=False, repr=False)
class TranslationComparison(Records, Result):
    """Several networks, moved images beside each other.

    Attributes:
        names: N of the networks.
        offsets: (D,) pixels.
        change, changed: (N, 2, D, images), see `TranslationSensitivity`.
        img_sizes: N sides in pixels.
        axis: along which images moved.
        reductions: those that all networks share.
    """

    names: list[str]
    offsets: np.ndarray
    change: np.ndarray
    changed: np.ndarray
    img_sizes: list[int]
    axis: str
    reductions: list[int]

    def __getitem__(self, name: str) -> TranslationSensitivity:
        """What was measured of one network."""
        check_choice("network", name, self.names)
        i = self.names.index(name)
        return TranslationSensitivity(
            self.offsets, self.change[i], self.changed[i], self.img_sizes[i], self.axis,
            self.reductions, versions=self.versions,
        )  # fmt: skip

    def records(self) -> list[dict[str, Any]]:
        """The rows of every network, with its name."""
        return [{"network": name, **row} for name in self.names for row in self[name].records()]

    def difference(
        self, first: str, second: str, of: str = "change"
    ) -> dict[str, tuple[float, float, float]]:
        """The first network's mean minus the second's, over all offsets: mean and Student's 95 %
        interval over the images, which both saw. Of each way, and of "roll minus crop": what the
        seam of a rolled image adds for the first network and not for the second.

        Args:
            of: "change" of the first answer's probability, or "changed", how often another class
                became the first answer.

        Raises:
            HirelabError: for an unknown network or measure.
        """
        check_choice("of", of, ("change", "changed"))
        own, other = (getattr(self[name], of).astype(float) for name in (first, second))
        roll, crop = (own - other).mean(1)
        return _intervals((roll, crop, roll - crop))

    def stride_difference(
        self, first: str, second: str, step: int
    ) -> dict[str, tuple[float, float, float]]:
        """The first network's `TranslationSensitivity.stride_effect` minus the second's, of each
        way: mean and Student's 95 % interval over the images, which both saw."""
        return _intervals(self[first].beside_minus_at(step) - self[second].beside_minus_at(step))

    @property
    def paired(self) -> str:
        """`difference` of every two networks that saw images of one size, of both measures, in
        percentage points."""
        rows = [["first - second, percentage points", "change", "other answer"]]
        for (i, first), (j, second) in combinations(enumerate(self.names), 2):
            if self.img_sizes[i] != self.img_sizes[j]:
                continue
            rows.append([f"{first} - {second}", "", ""])
            both = [self.difference(first, second, of) for of in ("change", "changed")]
            for way in both[0]:
                cells = (
                    f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
                    for mean, low, high in (one[way] for one in both)
                )
                rows.append([f"  {way}", *cells])
        return table(rows, "lr") if len(rows) > 1 else "no two networks saw images of one size"

    def plot(self) -> Figure:
        """Change and other answers against the offset, a line for each network."""
        from ..viz.stability import translation_figure

        means = np.stack([self.change.mean(3), self.changed.mean(3)])
        ends = [
            [[row[f"{what}_{end}"] for end in ("low", "high")] for row in self.records()]
            for what in ("change", "changed")
        ]
        return translation_figure(
            self.names, self.offsets, means, np.array(ends).reshape(*means.shape, 2), WAYS,
            self.reductions, self.axis, str(self),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"{', '.join(self.names)}: {self.change.shape[3]} images moved along {self.axis}"

    def __str__(self) -> str:
        """A line for each network: the mean over all offsets, of each way."""
        rows = [
            [name, *(f"{100 * v:.1f}" for way in both for v in way)]
            for name, both in zip(
                self.names,
                np.stack([self.change.mean((2, 3)), self.changed.mean((2, 3))], -1),
                strict=True,
            )
        ]
        head = ["", *(f"{way}: {w}, %" for way in WAYS for w in ("change", "other answer"))]
        return table([head, *rows], "lr")


def translation_sensitivity(
    model: nn.Module,
    x: Tensor,
    img_size: int | None = None,
    offsets: Sequence[int] | None = None,
    axis: str = "width",
) -> TranslationSensitivity:
    """Move images by some pixels and measure how the network's answers change.

    The network sees squares of ``img_size`` pixels out of larger images. *roll*: the middle square,
    rolled. *crop*: two squares that lie as many pixels apart, the image's middle between them.

    Args:
        model: any classifier.
        x: (N, C, H, W) images larger than ``img_size`` by the largest offset along ``axis``:
            ``hl.samples(4, 192)`` for squares of 128 and offsets to 64.
        img_size: side in pixels of what the network sees; by default two thirds of the image's.
        offsets: pixels, each from 1 to the number by which ``x`` is larger; by default every one to
            16, then every second to half of ``img_size`` (not all multiples of a stride).
        axis: "width" or "height".

    Raises:
        HirelabError: for images that are too small, impossible offsets or another axis.
    """
    check_module(model)
    check_choice("axis", axis, AXES)
    x = check_images(x)
    size = check_whole("img_size", min(x.shape[2:]) * 2 // 3 if img_size is None else img_size, 2,
                       min(x.shape[2:]), "pixels")  # fmt: skip
    room = x.shape[AXES[axis]] - size
    if offsets is None:
        offsets = [d for d in range(1, size // 2 + 1) if d <= 16 or d % 2 == 0]
    if not len(offsets) or not all(1 <= check_whole("offset", d) <= room for d in offsets):
        raise HirelabError(
            f"offsets are {list(offsets)}; images of {x.shape[AXES[axis]]} pixels leave a square "
            f"of {size} room to move by 1 to {room}: give larger images, or a smaller img_size."
        )
    dim = AXES[axis]
    across = 5 - dim  # the other one of 2 and 3
    lane = x.narrow(across, (x.shape[across] - size) // 2, size)
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[], []]
    seen: dict[int, Tensor] = {}

    def window(start: int) -> Tensor:
        """(N, classes) probabilities of a square; each is computed once."""
        if start not in seen:
            seen[start] = _probabilities(model, lane.narrow(dim, start, size))
        return seen[start]

    with frozen_eval(model):
        middle = room // 2
        for offset in offsets:
            rolled = lane.narrow(dim, middle, size).roll(offset, dim)
            found[0].append(_apart(window(middle), _probabilities(model, rolled)))
            start = (room - offset) // 2
            found[1].append(_apart(window(start + offset), window(start)))
    return TranslationSensitivity(
        np.array(offsets),
        np.array([[change for change, _ in way] for way in found]),
        np.array([[changed for _, changed in way] for way in found]),
        size,
        axis,
        _reductions(model),
    )


def compare_translations(
    results: Mapping[str, TranslationSensitivity],
) -> TranslationComparison:
    """Put networks side by side: ``compare_translations({"resnet18": one, "hire_mlp": other})``.

    Of the offsets those are kept that all were measured at.

    Raises:
        HirelabError: for none, for no offset in common, and for different axes or numbers of
            images. (That the images are the same cannot be checked.)
    """
    if not results:
        raise HirelabError("compare_translations got no result; give at least one, by name.")
    kept = list(results.values())
    offsets = [d for d in kept[0].offsets if all(d in one.offsets for one in kept)]
    if len({(one.axis, one.change.shape[2]) for one in kept}) > 1 or not offsets:
        raise HirelabError(
            "The networks were measured along different axes, on different numbers of images or at "
            "no offset in common; measure them alike."
        )
    where = [[list(one.offsets).index(d) for d in offsets] for one in kept]
    return TranslationComparison(
        list(results),
        np.array(offsets),
        np.array([one.change[:, at] for one, at in zip(kept, where, strict=True)]),
        np.array([one.changed[:, at] for one, at in zip(kept, where, strict=True)]),
        [one.img_size for one in kept],
        kept[0].axis,
        [r for r in kept[0].reductions if all(r in one.reductions for one in kept)],
    )


def translation_results() -> TranslationComparison:
    """What `hirelab bench translation` measured of the networks that are trained on Imagenette.

    Raises:
        FileNotFoundError: data/results is not there.
    """
    return TranslationComparison.load(data_folder("results") / KEPT)


def roll_period(model: HireMLP, img_size: int, axis: str = "width") -> int:
    """The smallest roll of the image, in pixels, that all rearrangements let through.

    A roll by it is a roll of every stage's map by a period of all its blocks (see
    `token_period`). It does not change the answer of a network whose convolutions wrap
    around the border as well; those of Hire-MLP pad with zeros there.

    Returns:
        A number of pixels from 1; ``img_size`` where none but the whole roll passes.

    Raises:
        HirelabError: for another network, axis or size.
    """
    check_choice("axis", axis, AXES)
    if not isinstance(model, HireMLP):
        raise HirelabError(f"{type(model).__name__} is no Hire-MLP and rearranges no tokens.")
    size = check_whole("img_size", img_size, 3)
    period = 1
    for i, (stage, grid) in enumerate(
        zip(stages_of(model), stage_grids(model, (size, size)), strict=True)
    ):
        line, reduction = grid[AXES[axis] - 2], model.feature_info[i]["reduction"]
        if line * reduction != size:
            return size  # positions are no whole number of pixels apart
        branches = [getattr(block.hire, axis) for block in blocks_of(stage)]
        tokens = [token_period(b.rearrangement(line)) for b in branches if b is not None]
        period = lcm(period, *(reduction * t for t in tokens or [1]))
    return period


def token_period(r: Rearrangement) -> int:
    """The smallest roll, in tokens, that a rearrangement lets through: rolling its input by it,
    around the border, rolls its result by it, whatever the weights.

    It divides the line's size, which is the period where no smaller roll passes through. Shifted
    regions that divide the line have the region as period, the shift whatever it is.
    """
    slot = r.landing % r.region
    tokens = r.slots[r.landing // r.region]
    for roll in range(1, r.size):
        moved = np.where(tokens == EMPTY, EMPTY, (tokens + roll) % r.size)
        same = np.roll(moved, roll, 0) == tokens
        if r.size % roll == 0 and same.all() and (np.roll(slot, roll) == slot).all():
            return roll
    return r.size


def _probabilities(model: nn.Module, x: Tensor) -> Tensor:
    parts = [scores(model, to_model_device(model, part)).softmax(1) for part in x.split(AT_ONCE)]
    return torch.cat(parts).cpu()


def _intervals(values: Iterable[np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Mean and Student's 95 % interval over the images, of each way and of their difference."""
    named = zip((*WAYS, "roll minus crop"), values, strict=False)
    return {name: (float(each.mean()), *t_interval(each)) for name, each in named}


def _apart(first: Tensor, other: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(N,) change of the first one's highest probability, and whether another class is highest."""
    answer = first.argmax(1, keepdim=True)
    change = (other.gather(1, answer) - first.gather(1, answer)).abs()[:, 0]
    return change.numpy(), (other.argmax(1) != answer[:, 0]).numpy()


def _reductions(model: nn.Module) -> list[int]:
    """As timm's ``feature_info`` has them, a list or an object with one."""
    info = getattr(model, "feature_info", None) or ()
    return sorted({int(one["reduction"]) for one in info if "reduction" in one})

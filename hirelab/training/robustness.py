"""How well networks classify corrupted images, image by image, so that networks can be compared.

Robustness            which images each network gets right, at every kind and strength
RobustnessComparison  of two networks: the difference on the same images, with its interval
plot_corruptions      an image in every kind and strength, to look at
measure_robustness    networks on the corrupted validation images of their data set
robustness_results    what was measured of the bundled networks, as it is kept in data/results
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import nn
from tqdm import tqdm

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError
from .._shared.files import data_folder
from .._shared.statistics import bootstrap_interval, wilson_interval
from .._shared.tables import Records, table
from ..datasets.cache import DecodedImages
from ..datasets.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from ..datasets.images import Source, open_image
from ..datasets.transforms import square
from ..models import HireMLP
from ..models.deploy import deploy
from ..results import Result
from .evaluation import Evaluation, evaluate, validation_images
from .runs import RunInfo, open_network

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = [
    "Robustness",
    "RobustnessComparison",
    "measure_robustness",
    "plot_corruptions",
    "robustness_results",
]

CORRUPTED_SIZE = 160
"""Pixels a side at which images are corrupted, before a network's own size is cut from them."""

KEPT = "robustness.npz"


@dataclass(frozen=True, eq=False, repr=False)
class Robustness(Records, Result):
    """Which images networks get right, as they are and corrupted.

    All networks saw the same corrupted images, so differences between them are paired. Each is one
    training: what another seed would change is not in the intervals.

    Attributes:
        networks: N names, and ``img_sizes``: the pixels a side that each takes.
        kinds: K kinds of corruption, and ``parameters``: what was done at each strength, in words.
        clean: bool (N, images), right on the image as it is.
        right: bool (N, K, strengths, images), right on the corrupted image.
        corrupted_size: pixels a side at which the images were corrupted.
        data_fingerprint: of the images, see `LabelledImages`.
        which: (images,) their indices in the data set's split.
    """

    networks: list[str]
    img_sizes: list[int]
    kinds: list[str]
    parameters: list[str]
    clean: np.ndarray
    right: np.ndarray
    corrupted_size: int
    data_fingerprint: str
    which: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """(N, K, 1 + strengths) top-1 in percent; the first of every kind is that without it."""
        clean = np.repeat(self.clean[:, None, None], len(self.kinds), axis=1)
        return 100 * np.concatenate([clean, self.right], axis=2).mean(-1)

    def records(self) -> list[dict[str, Any]]:
        """A row for each network, kind and strength (0: none): top-1 and Wilson's interval, %."""
        images = self.clean.shape[1]
        rows = []
        for name, size, kinds in zip(self.networks, self.img_sizes, self.accuracy, strict=True):
            for kind, shares in zip(self.kinds, kinds, strict=True):
                for strength, share in enumerate(shares):
                    low, high = wilson_interval(share / 100, images)
                    rows.append({
                        "network": name, "img_size": size, "kind": kind, "strength": strength,
                        "top1": float(share), "low": 100 * low, "high": 100 * high,
                        "images": images,
                    })  # fmt: skip
        return rows

    def compare(self, first: str, second: str) -> RobustnessComparison:
        """The first network's accuracy minus the second's on the same corrupted images.

        Raises:
            HirelabError: a network that was not measured; the message names those that were.
        """
        for name in (first, second):
            check_choice("network", name, self.networks)
        one, other = (self.networks.index(name) for name in (first, second))
        corrupted = self.right.mean(2)  # (N, K, images): over the strengths
        apart = corrupted[one] - corrupted[other]
        apart = np.concatenate([apart, apart.mean(0, keepdims=True)])
        clean = self.clean[one].astype(float) - self.clean[other]
        each = 100 * np.stack([apart, apart - clean])
        ends = np.array([[bootstrap_interval(row) for row in rows] for rows in each])
        return RobustnessComparison(
            first, second, [*self.kinds, "all kinds"], each.mean(2), ends[..., 0], ends[..., 1],
            100 * float(clean.mean()), clean.size,
        )  # fmt: skip

    def plot(self) -> Figure:
        """Accuracy against strength, a panel for each kind, a line for each network."""
        from ..viz.stability import robustness_figure

        rows = self.records()
        ends = [[row["low"], row["high"]] for row in rows]
        return robustness_figure(
            self.networks, self.kinds, self.accuracy,
            np.array(ends).reshape(*self.accuracy.shape, 2), str(self),
        )  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"{len(self.networks)} networks on {self.clean.shape[1]:,} images, {len(self.kinds)} "
            f"corruptions in {self.right.shape[2]} strengths"
        )

    def __str__(self) -> str:
        """Top-1 of every network without corruption, and of every kind over the strengths."""
        found = self.accuracy
        rows = [
            [name, size, *(f"{v:.1f}" for v in (own[0, 0], *own[:, 1:].mean(1), own[:, 1:].mean()))]
            for name, size, own in zip(self.networks, self.img_sizes, found, strict=True)
        ]
        return table([["top-1, %", "px", "clean", *self.kinds, "all kinds"], *rows], "lr")


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessComparison(Records, Result):
    """Two networks on the same corrupted images: the first's accuracy minus the second's.

    Attributes:
        first, second: the networks.
        kinds: K kinds of corruption, the last all of them together.
        mean: (2, K) in percentage points, averaged over the strengths: of the accuracy on corrupted
            images, and of that minus the accuracy on clean ones (above 0: the first loses less).
        low, high: (2, K) bootstrap 95 % interval over the images.
        clean: the difference without corruption, percentage points.
        images: how many.
    """

    first: str
    second: str
    kinds: list[str]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    clean: float
    images: int

    def records(self) -> list[dict[str, Any]]:
        """A row for each kind: both differences with their intervals, percentage points."""
        return [
            {"first": self.first, "second": self.second, "kind": kind}
            | {
                f"{what}{end}": float(values[i, k])
                for i, what in enumerate(("accuracy", "kept"))
                for end, values in (("", self.mean), ("_low", self.low), ("_high", self.high))
            }
            for k, kind in enumerate(self.kinds)
        ]

    def plot(self) -> Figure:
        """Both differences of every kind, each with its interval."""
        from ..viz.stability import comparison_figure

        return comparison_figure(
            self.first, self.second, self.kinds, self.mean, self.low, self.high, str(self)
        )

    def __repr__(self) -> str:
        return f"{self.first} minus {self.second} on {self.images:,} images"

    def __str__(self) -> str:
        rows = [
            [kind, *("{:+.1f} [{:+.1f}, {:+.1f}]".format(*v[:, k]) for v in self._ends())]
            for k, kind in enumerate(self.kinds)
        ]
        head = ["", "corrupted, points", "corrupted minus clean"]
        return f"{self!r}; clean {self.clean:+.1f}\n{table([head, *rows])}"

    def _ends(self) -> np.ndarray:
        """(2, 3, K) mean, low, high."""
        return np.stack([self.mean, self.low, self.high], axis=1)


def measure_robustness(
    networks: Sequence[str | Path],
    out: str | Path,
    kinds: Sequence[str] = tuple(CORRUPTIONS),
    n: int | None = None,
) -> Robustness:
    """Evaluate networks on the corrupted validation images of the data set they were trained on.

    Images are cut square and corrupted at `CORRUPTED_SIZE`, then go the way that `evaluate` sends
    them, to each network's own size. A Hire-MLP is deployed first, the same function and faster.
    What is in ``out`` by a network's name is not computed again. Memory: the corrupted images of
    one setting, 0.4 GB for all of Imagenette at two sizes.

    Args:
        networks: names, run folders or files of one data set, see `open_network`.
        out: folder in which each evaluation is kept as soon as it is there.
        kinds: of `CORRUPTIONS`.
        n: how many images, drawn at random and the same every time; None for all.

    Raises:
        HirelabError: an unknown kind or network, networks of several data sets, more images than
            there are, and what `validation_images` raises.
    """
    for kind in kinds:
        check_choice("kind", kind, CORRUPTIONS)
    names = [Path(network).name for network in networks]
    if not names or len(set(names)) < len(names):
        raise HirelabError(
            f"networks are {', '.join(names) or 'none'}; give at least one, and each a name of its "
            "own."
        )
    opened = [_opened(network) for network in networks]
    images = validation_images(opened[0][1], stored=CORRUPTED_SIZE)
    fingerprint = images.images.fingerprint
    if {info.config.data_fingerprints["val"] for _, info in opened} != {fingerprint}:
        raise HirelabError(
            f"{', '.join(names)} were validated on different images; give networks that were "
            "trained on one data set."
        )
    images, which = _drawn(images, n)
    recipes = [info.config.recipe for _, info in opened]

    def right(kind: str, strength: int) -> np.ndarray:
        """(networks, images) whether each is right; corrupts once a size, and only if needed."""
        setting = f"{kind}-{CORRUPTIONS[kind].values[strength - 1]:g}" if strength else "clean"
        at: dict[int, DecodedImages] = {}
        rows = []
        for network, (model, _), recipe in zip(names, opened, recipes, strict=True):
            path = Path(out) / f"{network}.{setting}.npz"
            found = Evaluation.load(path) if path.is_file() else None
            whole = found is not None and len(found.labels) == len(images)
            if found is None or not whole or found.data_fingerprint != fingerprint:
                stored = recipe.stored_size
                if stored not in at:
                    at[stored] = _corrupted(images, which, kind, strength, stored)
                found = evaluate(model, at[stored], recipe.img_size)
                found.save(path)
            rows.append(found.predicted == found.labels)
        return np.array(rows)

    settings = [(kind, strength) for kind in kinds for strength in STRENGTHS]
    clean = right(kinds[0], 0)
    every = [right(*setting) for setting in tqdm(settings, "corruptions", disable=None)]
    shape = (len(kinds), len(STRENGTHS), *clean.shape)
    return Robustness(
        names,
        [recipe.img_size for recipe in recipes],
        list(kinds),
        [str(CORRUPTIONS[kind]) for kind in kinds],
        clean,
        np.moveaxis(np.array(every).reshape(shape), 2, 0),
        CORRUPTED_SIZE,
        fingerprint,
        which,
    )


def plot_corruptions(source: Source = "cat", img_size: int = CORRUPTED_SIZE) -> Figure:
    """The middle square of an image in every kind and strength of `CORRUPTIONS`.

    Args:
        source: see `open_image`; by default a photograph that comes along.
        img_size: pixels a side at which it is corrupted.
    """
    from ..viz.stability import corruptions_figure

    image = square(open_image(source), img_size)
    every = [[np.asarray(corrupt(image, kind, s)) for s in STRENGTHS] for kind in CORRUPTIONS]
    return corruptions_figure(
        list(CORRUPTIONS),
        [one.parameter for one in CORRUPTIONS.values()],
        np.array(every),
        np.array([one.values for one in CORRUPTIONS.values()]),
    )


def robustness_results() -> Robustness:
    """What `hirelab bench robustness` measured of the networks that are trained on Imagenette.

    Raises:
        FileNotFoundError: data/results is not there.
    """
    return Robustness.load(data_folder("results") / KEPT)


def _opened(network: str | Path) -> tuple[nn.Module, RunInfo]:
    model, info = open_network(network)
    if info is None:
        raise HirelabError(f"{network} does not say what it was trained on; give a run's folder.")
    return (deploy(model) if isinstance(model, HireMLP) else model), info


def _drawn(images: DecodedImages, n: int | None) -> tuple[DecodedImages, np.ndarray]:
    """``n`` of the images in their order, and their indices."""
    count = len(images)
    n = count if n is None else check_whole("n", n, 1, count, "images")
    which = np.sort(np.random.default_rng(0).permutation(count)[:n])
    labels, kept = images.labels[which], images.kept[which]
    return replace(images, pixels=images.pixels[which], labels=labels, kept=kept), which


def _corrupted(
    images: DecodedImages, seeds: np.ndarray, kind: str, strength: int, size: int
) -> DecodedImages:
    """Decoded images corrupted, then at another size; every image has noise of its own seed."""
    squares = (
        np.asarray(square(corrupt(Image.fromarray(pixels), kind, strength, int(seed)), size))
        for seed, pixels in zip(seeds, images.pixels, strict=True)
    )
    return replace(images, pixels=np.stack(list(squares)))

"""How well a network classifies labelled images: every answer, and the figures made of them.

Evaluation            the answers and their figures
evaluate              a network on decoded images
validation_images     those that a run was validated on
evaluate_checkpoint   a network by name, run folder or file: what `hirelab evaluate` prints
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from .._shared.errors import HirelabError
from ..datasets.cache import DecodedImages, decode
from ..datasets.subsets import LabelledImages, decoded_note, open_images
from ..datasets.transforms import normalise
from ..hooks.forward import eval_mode
from ..results import Result
from .recipes import PAPER, stored_size
from .runs import RunInfo, open_network

__all__ = ["Evaluation", "evaluate", "evaluate_checkpoint", "validation_images"]


@dataclass(frozen=True, eq=False)
class Evaluation(Result):
    """What a network answers on labelled images.

    Attributes:
        classes: names of the classes, in words where they are known.
        labels: (N,), the right class of every image.
        probabilities: float32 (N, classes).
        img_size: side in pixels.
        data_fingerprint: of the images, see `LabelledImages`.
        skipped: how many images were unreadable.
    """

    classes: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    img_size: int
    data_fingerprint: str
    skipped: int = 0

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of every image, (N,)."""
        return self.probabilities.argmax(1)

    def accuracy(self, k: int = 1) -> float:
        """Share of images whose class is among the ``k`` most probable (top-k), in percent.

        Of classes that are equally probable the first counts as more so, as in ``predicted``.
        """
        ranked = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return 100 * float((ranked == self.labels[:, None]).any(1).mean())

    @property
    def loss(self) -> float:
        """Mean negative logarithm of the right class's probability, in nats."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(own, 1e-12)).mean())

    def confusion(self) -> np.ndarray:
        """Counts (right class, predicted class)."""
        table = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(table, (self.labels, self.predicted), 1)
        return table

    def by_class(self) -> dict[str, float]:
        """Accuracy on the images of each class, in percent."""
        table = self.confusion()
        shares = 100 * np.diag(table) / np.maximum(table.sum(1), 1)
        return {name: float(share) for name, share in zip(self.classes, shares, strict=True)}

    def expected_calibration_error(self, bins: int = 15) -> float:
        """Mean gap between confidence and accuracy over equally wide bins of confidence, in percent
        (Guo et al. 2017, eq. 3)."""
        confidence = self.probabilities.max(1)
        right = self.predicted == self.labels
        members = np.minimum((confidence * bins).astype(int), bins - 1)
        gaps = [abs((confidence[members == b] - right[members == b]).sum()) for b in range(bins)]
        return 100 * float(sum(gaps)) / len(confidence)

    def __str__(self) -> str:
        side = self.img_size
        return (
            f"top-1 {self.accuracy(1):.2f} %, top-5 {self.accuracy(5):.2f} % on "
            f"{len(self.labels):,} images at {side} x {side}; loss {self.loss:.3f}, "
            f"calibration error {self.expected_calibration_error():.1f} %"
        )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: DecodedImages,
    img_size: int,
    batch_size: int = 128,
    progress: bool = True,
) -> Evaluation:
    """Classify the middle of every image, in float32.

    The network is left in the mode (training or not) in which it came.

    Args:
        images: the decoded images.
        img_size: side in pixels of the middle that the network sees.
        progress: show a bar, where stderr is a terminal.

    Raises:
        HirelabError: the decoded images are smaller than ``img_size``.
    """
    device = next(model.parameters()).device
    stored = images.pixels.shape[1]
    if img_size > stored:
        raise HirelabError(
            f"the decoded images are {stored} pixels wide and img_size is {img_size}"
        )
    start = round((stored - img_size) / 2)
    middle = slice(start, start + img_size)
    batches = range(0, len(images), batch_size)
    found = []
    with eval_mode(model):
        for first in tqdm(batches, "evaluating", leave=False, disable=None if progress else True):
            pixels = np.array(images.pixels[first : first + batch_size, middle, middle])
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device)
            found.append(model(normalise(x)).float().softmax(1).cpu().numpy())
    return Evaluation(
        images.images.words(),
        images.labels,
        np.concatenate(found),
        img_size,
        images.images.fingerprint,
        len(images.skipped),
    )


def validation_images(
    info: RunInfo, data: str | Path | None = None, stored: int | None = None
) -> DecodedImages:
    """The decoded validation images of a run, or others of the same classes.

    Args:
        data: another data set; default the run's own.
        stored: side in pixels, by default that of the run's recipe.

    Raises:
        HirelabError: the images are not those of the run (without ``data``), or of other classes.
    """
    return decode(_listed(info, data), stored or info.config.recipe.stored_size)


def _listed(info: RunInfo, data: str | Path | None) -> LabelledImages:
    """The validation images of a run, or others of the same classes, not decoded yet."""
    config = info.config
    images = open_images(data or info.source, "val", config.classes)
    if data is None and images.fingerprint != config.data_fingerprints["val"]:
        raise HirelabError(
            f"{info.source} has other validation images than the run had: give --data to evaluate "
            f"on these all the same"
        )
    return images


def evaluate_checkpoint(
    network: str | Path,
    data: str | Path | None = None,
    img_size: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """`evaluate` a network by name, run folder or file: what `hirelab evaluate` prints.

    Args:
        network: a name, the folder of a finished run, or a file of weights, see `open_network`.
        data: a data set; default that which the network was trained on (needed for a file).
        img_size: side in pixels; default the network's own, 224 for a file.
        say: called with what happens next, before it takes its time.

    Raises:
        HirelabError: no such network, no such data, other classes than the network has.
    """
    model, info = open_network(network)
    if info is not None:
        images, recipe = _listed(info, data), info.config.recipe
    elif data is not None:
        images, recipe = open_images(data, "val"), PAPER
    else:
        raise HirelabError(f"{network} does not say what it was trained on: give --data")
    classes = len(images.classes)
    if model.num_classes != classes:
        raise HirelabError(f"the network has {model.num_classes} classes and the images {classes}")
    img_size = img_size or recipe.img_size
    stored = stored_size(img_size, recipe.crop_pct)
    if say:
        note = decoded_note(stored, len(images))
        say(f"{len(images):,} images of {data or images.source}; {note}")
    return evaluate(model, decode(images, stored), img_size)

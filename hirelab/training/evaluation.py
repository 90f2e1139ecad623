"""How well a network classifies labelled images: every answer, and the figures made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError
from ..datasets.cache import Squares
from ..datasets.samples import IMAGENET_MEAN, IMAGENET_STD
from ..hooks.forward import eval_mode
from ..results import Result

__all__ = ["Evaluation", "evaluate", "normalised"]


@dataclass(frozen=True, eq=False)
class Evaluation(Result):
    """What a network says about labelled images.

    Attributes:
        classes: names of the classes, in words.
        labels: (N,), the right class of every image.
        probabilities: float32 (N, classes).
        size: pixels a side. data: fingerprint of the images. skipped: how many were unreadable.
    """

    classes: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    size: int
    data: str
    skipped: int = 0

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of every image, (N,)."""
        return self.probabilities.argmax(1)

    def top(self, k: int = 1) -> float:
        """Share of images whose class is among the ``k`` most probable, in percent.

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

    def calibration(self, bins: int = 15) -> float:
        """Expected calibration error in percent (Guo et al. 2017, eq. 3): the mean gap between
        confidence and accuracy over equally wide bins of confidence."""
        sure = self.probabilities.max(1)
        right = self.predicted == self.labels
        place = np.minimum((sure * bins).astype(int), bins - 1)
        gaps = [abs((sure[place == b] - right[place == b]).sum()) for b in range(bins)]
        return 100 * float(sum(gaps)) / len(sure)

    def __str__(self) -> str:
        return (
            f"top-1 {self.top(1):.2f} %, top-5 {self.top(5):.2f} % on {len(self.labels):,} "
            f"images at {self.size} x {self.size}; loss {self.loss:.3f}, "
            f"calibration error {self.calibration():.1f} %"
        )


@torch.no_grad()
def evaluate(model: nn.Module, squares: Squares, size: int, batch: int = 128) -> Evaluation:
    """Classify the middle of every square, ``size`` pixels a side, in float32.

    The network is left in the mode (training or not) in which it came.
    """
    device = next(model.parameters()).device
    stored = squares.pixels.shape[1]
    if size > stored:
        raise HirelabError(f"the stored squares are {stored} pixels wide and size is {size}")
    start = round((stored - size) / 2)
    found = []
    with eval_mode(model):
        for first in range(0, len(squares), batch):
            cut = squares.pixels[first : first + batch, start : start + size, start : start + size]
            x = torch.from_numpy(np.array(cut)).permute(0, 3, 1, 2).to(device)
            found.append(model(normalised(x)).float().softmax(1).cpu().numpy())
    return Evaluation(
        squares.images.words(),
        squares.labels,
        np.concatenate(found),
        size,
        squares.images.fingerprint,
        len(squares.skipped),
    )


def normalised(x: Tensor) -> Tensor:
    """Bytes (N, 3, H, W) as a network takes them."""
    mean, std = (x.new_tensor(v, dtype=torch.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x.float() / 255 - mean[:, None, None]) / std[:, None, None]

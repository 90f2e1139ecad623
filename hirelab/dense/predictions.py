"""What a detector or segmenter finds on one image, to be read and drawn.

predict   a network and an image -> `Objects` or `PixelLabels`
truth     what the data say of an image, in the same form
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..datasets.boxes import BoxedImages
from ..datasets.images import Source, open_image
from ..datasets.label_maps import NO_LABEL, LabelMaps
from ..datasets.transforms import normalise
from ..hooks.forward import eval_mode
from ..results import Result
from .backbone import DenseNetwork
from .detection import Detector

if TYPE_CHECKING:
    from ..viz.canvas import Box, Canvas
    from ..viz.figures import Figure

__all__ = ["MASK_THRESHOLD", "Objects", "PixelLabels", "beside", "predict", "truth"]

MASK_THRESHOLD = 0.5
"""From which share on a pixel belongs to a mask."""


@dataclass(frozen=True, eq=False, repr=False)
class Objects(Records, Result):
    """Objects on an image, the most certain first.

    Attributes:
        image: (H, W, 3) uint8.
        classes: names; a label is an index into them.
        boxes: (N, 4) x1, y1, x2, y2 in pixels.
        labels: (N,); ``scores``: (N,) from 0 to 1, 1 in what the data say.
        masks: (N, H, W) bool; (0, H, W) from a detector without masks.
    """

    image: np.ndarray
    classes: list[str]
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, threshold: float, classes: Sequence[int] | None = None) -> Objects:
        """Those with at least this score, of these classes (all for None)."""
        kept = self.scores >= threshold
        if classes is not None:
            kept &= np.isin(self.labels, list(classes))
        masks = self.masks[kept] if len(self.masks) else self.masks
        return Objects(
            self.image, self.classes, self.boxes[kept], self.labels[kept], self.scores[kept], masks
        )

    def at(self, row: float, column: float) -> int | None:
        """The object at a place of the image, in pixels: the smallest box around it, or else the
        one whose middle is nearest; None where there is no object."""
        if not len(self):
            return None
        x1, y1, x2, y2 = self.boxes.T
        inside = (x1 <= column) & (column <= x2) & (y1 <= row) & (row <= y2)
        if inside.any():
            return int(np.where(inside, (x2 - x1) * (y2 - y1), np.inf).argmin())
        return int(np.hypot((x1 + x2) / 2 - column, (y1 + y2) / 2 - row).argmin())

    def records(self) -> list[dict[str, Any]]:
        """A row for each object: class, score, x1, y1, x2, y2."""
        return [
            {"class": self.classes[label], "score": float(score),
             **dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True))}
            for box, label, score in zip(self.boxes, self.labels, self.scores, strict=True)
        ]  # fmt: skip

    def __str__(self) -> str:
        rows = [
            (self.classes[label], f"{score:.0%}", *(f"{edge:.0f}" for edge in box))
            for box, label, score in zip(self.boxes, self.labels, self.scores, strict=True)
        ]
        height, width = self.image.shape[:2]
        return table([("class", "score", "x1", "y1", "x2", "y2"), *rows], "lr") + (
            f"\n{len(self)} objects on {width} x {height} pixels"
        )

    def plot(self) -> Figure:
        """The image with boxes, masks, names and scores."""
        return beside({"": self})

    def draw(self, canvas: Canvas, box: Box, chosen: int | None = None) -> None:
        """Draw into a box of a canvas; ``chosen``: the object that is asked about."""
        from ..viz.dense import draw_objects

        captions = [
            self.classes[k] + ("" if score == 1 else f" {score:.0%}")
            for k, score in zip(self.labels, self.scores, strict=True)
        ]
        draw_objects(canvas, box, self.image, self.boxes, self.labels, captions, self.masks, chosen)


@dataclass(frozen=True, eq=False, repr=False)
class PixelLabels(Result):
    """A class for every pixel of an image.

    Attributes:
        image: (H, W, 3) uint8.
        classes: names; a label is an index into them.
        labels: (H, W) uint8; 255 for none, in what the data say.
        confidence: (H, W) float32, the softmax of the label, 0 to 1.
    """

    image: np.ndarray
    classes: list[str]
    labels: np.ndarray
    confidence: np.ndarray

    @property
    def shares(self) -> dict[str, float]:
        """{class: share of the labelled pixels}, the largest first, of those that there are."""
        counts = np.bincount(self.labels[self.labels != NO_LABEL], minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        total = max(1, counts.sum())
        return {self.classes[k]: float(counts[k] / total) for k in order if counts[k]}

    def __str__(self) -> str:
        height, width = self.labels.shape
        said = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        return f"{width} x {height} pixels: {said or 'no label'}"

    def plot(self) -> Figure:
        """The image under the colours of its classes, with a legend."""
        return beside({"": self})

    def draw(self, canvas: Canvas, box: Box) -> None:
        """Draw into a box of a canvas; the legend stands below it."""
        from ..viz.dense import draw_pixels

        draw_pixels(canvas, box, self.image, self.labels, self.classes)


def beside(found: Mapping[str, Objects | PixelLabels], columns: int = 3) -> Figure:
    """Several images side by side, such as what was found and what the data say.

    Args:
        found: of a `predict` or `truth` for every title.

    Raises:
        HirelabError: for none.
    """
    from ..viz import dense as viz

    if not found:
        raise HirelabError("There is nothing to draw; give at least one of predict or truth.")
    height, width = next(iter(found.values())).image.shape[:2]
    most = max(
        (len(one.shares) for one in found.values() if isinstance(one, PixelLabels)), default=0
    )
    legend = -(-most // 3) * viz.LEGEND_ROW  # three names a row have room
    text = "\n".join(f"{title}\n{one}".strip() for title, one in found.items())
    panels = {title: one.draw for title, one in found.items()}
    return viz.sheet(panels, height / width, text, columns, legend)


@torch.no_grad()
def predict(model: DenseNetwork, image: Source, *, threshold: float = 0.5) -> Objects | PixelLabels:
    """What a network finds on an image, taken as it is, alone and in evaluation mode.

    Args:
        model: of `detector`, `segmenter` or `load_dense`; left in its mode.
        image: a file, a sample photograph's name, a PIL image or an array.
        threshold: of a detector, the lowest score, 0 to 1.

    Returns:
        `Objects` of a detector, `PixelLabels` of a segmenter.

    Raises:
        HirelabError: an image that cannot be read, a threshold out of range, another network.
    """
    if not isinstance(model, DenseNetwork):
        raise HirelabError(
            f"The network is a {type(model).__name__}; give one of hl.detector, hl.segmenter or "
            "hl.load_dense."
        )
    if not 0 <= threshold <= 1:
        raise HirelabError(f"threshold is {threshold!r}; give a score from 0 to 1.")
    opened = open_image(image)
    x = normalise([opened]).to(next(model.parameters()).device)
    with eval_mode(model):
        if isinstance(model, Detector):
            return _objects(model, opened, x, threshold)
        shares = model(x)[0].float().softmax(0).cpu()
    confidence, labels = shares.max(0)
    return PixelLabels(
        np.asarray(opened), list(model.classes), labels.numpy().astype(np.uint8), confidence.numpy()
    )


def _objects(model: Detector, image: Image.Image, x: torch.Tensor, threshold: float) -> Objects:
    (found,) = model([x[0]])
    found = {name: values.float().cpu().numpy() for name, values in found.items()}
    masks = found.get("masks")
    return Objects(
        np.asarray(image),
        list(model.classes),
        found["boxes"],
        found["labels"].astype(int),
        found["scores"],
        np.zeros((0, image.height, image.width), bool)
        if masks is None
        else masks[:, 0] > MASK_THRESHOLD,
    ).above(threshold)


@torch.no_grad()
def stage_maps(model: DenseNetwork, image: Image.Image) -> list[np.ndarray]:
    """The backbone's four maps of an image, finest first: (C, rows, columns) each, of the part that
    is image where the detector pads it."""
    x = normalise([image]).to(next(model.parameters()).device)
    with eval_mode(model):
        shares = (1.0, 1.0)
        if isinstance(model, Detector):
            shares, x = image_share(model, x), model.net.transform([x[0]])[0].tensors  # type: ignore[operator]
        maps = [one[0].float().cpu().numpy() for one in model.backbone(x)]
    return [image_part(one, shares) for one in maps]


def image_share(model: DenseNetwork, x: torch.Tensor) -> tuple[float, float]:
    """Which share of the canvas's rows and columns is image, where a detector pads a single one."""
    if not isinstance(model, Detector):
        return (1.0, 1.0)
    with torch.no_grad():
        images, _ = model.net.transform([x[0]])  # type: ignore[operator]
    (height, width), canvas = images.image_sizes[0], images.tensors.shape[-2:]
    return (height / canvas[0], width / canvas[1])


def image_part(values: np.ndarray, shares: tuple[float, float]) -> np.ndarray:
    """The image's own rows and columns, the last two axes, of a map of its canvas."""
    rows, columns = (
        max(1, round(n * share)) for n, share in zip(values.shape[-2:], shares, strict=True)
    )
    return values[..., :rows, :columns]


def truth(images: BoxedImages | LabelMaps, index: int) -> Objects | PixelLabels:
    """What the data say of an image, in the form of `predict`; crowds are left out.

    Raises:
        HirelabError: there is no such image, or it cannot be read.
    """
    index = check_whole("index", index, 0, len(images) - 1)
    if isinstance(images, LabelMaps):
        image, labels = images.read(index)
        ones = np.ones(labels.shape, np.float32)
        return PixelLabels(np.asarray(image), list(images.classes), labels, ones)
    image = images.read(index)
    kept = [i for i, one in enumerate(images.objects[index]) if not one.crowd]
    objects = [images.objects[index][i] for i in kept]
    return Objects(
        np.asarray(image),
        list(images.classes),
        np.array([one.box for one in objects], float).reshape(-1, 4),
        np.array([one.label for one in objects], int),
        np.ones(len(objects)),
        images.masks(index)[kept] > 0,
    )

"""How well a detector finds objects and a segmenter names pixels.

    evaluate_detector    COCO's average precision of boxes and masks (pycocotools computes it)
    evaluate_segmenter   a confusion matrix over all pixels, and the IoU made of it

Images are taken **one at a time**: in a batch they would be padded to one size, and what a network
says of an image would depend on its neighbours (most of all a Hire-MLP, see `detection.Detector`).
With several processes each takes every n-th image and all get the same result.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.tables import table
from ..datasets.boxes import BoxedImages
from ..datasets.label_maps import NO_LABEL, LabelMaps
from ..datasets.subsets import quote_first
from ..datasets.transforms import normalise
from ..hooks.forward import eval_mode
from ..results import Result
from .detection import Detector
from .padding import image_gates, larger_canvas
from .predictions import MASK_THRESHOLD, image_share
from .segmentation import Segmenter

__all__ = ["Detections", "PixelEvaluation", "evaluate_detector", "evaluate_segmenter"]

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Of multi-scale evaluation, as mmsegmentation has them for ADE20K."""


# ------------------------------------------------------------------ detection


@dataclass(frozen=True, eq=False)
class Detections(Result):
    """Average precision on COCO's terms, in percent; NaN where there is nothing of that kind.

    Attributes:
        classes: names.
        box, mask: {name: value} of ap (mean over IoU 0.50 to 0.95), ap50, ap75, small, medium and
            large (area below 32 squared, 96 squared, above); ``mask`` is empty without masks.
        class_ap: box ap of each class.
        images: how many were evaluated.
        data_fingerprint: of the images, see `BoxedImages`.
        pad: pixels of empty canvas right of and below every scaled image; ``masked``: the gates of
            a Hire-MLP averaged over the image alone.
    """

    classes: list[str]
    box: dict[str, float]
    mask: dict[str, float]
    class_ap: list[float]
    images: int
    data_fingerprint: str
    pad: int = 0
    masked: bool = False

    def by_class(self) -> dict[str, float]:
        """{class: box ap}; NaN for a class without an object."""
        return dict(zip(self.classes, self.class_ap, strict=True))

    def __str__(self) -> str:
        names = list(self.box)
        rows: list[Sequence[str]] = [("", *names)]
        for kind, values in (("box", self.box), ("mask", self.mask)):
            if values:
                rows.append((kind, *(f"{values[n]:.1f}" for n in names)))
        how = _canvas_words(self.pad, self.masked)
        return f"COCO AP on {self.images:,} images{how}\n{table(rows)}"


def _canvas_words(pad: int, masked: bool) -> str:
    """How images were laid on a canvas, as a result says it."""
    words = f" on a canvas {pad} pixels larger" if pad else ""
    return words + (", which the gates do not hear" if masked else "")


_STATS = ("ap", "ap50", "ap75", "small", "medium", "large")


@torch.no_grad()
def evaluate_detector(
    model: Detector,
    images: BoxedImages,
    *,
    masks: bool = True,
    pad: int = 0,
    masked: bool = False,
    progress: bool = True,
) -> Detections:
    """Average precision of a detector, as pycocotools computes it from all objects.

    The network is left in the mode in which it came.

    Args:
        masks: also of masks, where the detector gives them.
        pad: pixels of empty canvas right of and below the scaled image, as beside a larger image in
            a batch. A network that sees the image alone would answer the same.
        masked: the gates of a Hire-MLP average over the image alone, see `image_gates`.
        progress: show a bar, where stderr is a terminal.

    Raises:
        HirelabError: other classes than the detector has; no object in all images.
    """
    _check_classes(model.classes, images.classes)
    if not any(images.objects):
        raise HirelabError(f"{images.source}: {images.split!r} has no object to be found")
    masks = masks and model.kind == "mask_rcnn"
    found: list[dict[str, Any]] = []
    with eval_mode(model), larger_canvas(model, pad) if pad else contextlib.nullcontext():
        for index in _share(len(images), progress):
            found += _found(model, images, index, masks, masked)
    found = _gathered(found)
    truth = _truth(images, masks)
    box = _precision(truth, found, "bbox")
    mask = _precision(truth, found, "segm") if masks else None
    with np.errstate(invalid="ignore"):
        each = [_mean(box.eval["precision"][:, :, k, 0, 2]) for k in range(len(images.classes))]
    return Detections(
        list(images.classes),
        _stats(box),
        {} if mask is None else _stats(mask),
        each,
        len(images),
        images.fingerprint,
        pad,
        masked,
    )


def _found(
    model: Detector, images: BoxedImages, index: int, masks: bool, masked: bool
) -> list[dict[str, Any]]:
    """What a detector finds on an image, in COCO's form."""
    from pycocotools import mask as coco

    image = images.read(index)
    x = normalise([image]).to(next(model.parameters()).device)
    with image_gates(model, [image_share(model, x)]) if masked else contextlib.nullcontext():
        one = {name: values.cpu() for name, values in model([x[0]])[0].items()}
    rows = []
    for i, (x1, y1, x2, y2) in enumerate(one["boxes"].tolist()):
        row = {
            "image_id": index,
            "category_id": int(one["labels"][i]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(one["scores"][i]),
        }
        if masks:
            shown = (one["masks"][i, 0] > MASK_THRESHOLD).to(torch.uint8).numpy()
            row["segmentation"] = coco.encode(np.asfortranarray(shown))
        rows.append(row)
    return rows


def _truth(images: BoxedImages, masks: bool) -> Any:
    """pycocotools' index of all objects; ids are positions, since only those are unique here."""
    from pycocotools import mask as coco
    from pycocotools.coco import COCO

    rows: list[dict[str, Any]] = []
    for index, objects in enumerate(images.objects):
        shapes = images.masks(index) if masks and objects else ()
        for i, one in enumerate(objects):
            x1, y1, x2, y2 = one.box
            row = {
                "id": len(rows) + 1,
                "image_id": index,
                "category_id": one.label,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": one.area,
                "iscrowd": int(one.crowd),
            }
            if masks:
                row["segmentation"] = coco.encode(np.asfortranarray(shapes[i]))
            rows.append(row)
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(images.sizes)],
        "annotations": rows,
        "categories": [{"id": i, "name": name} for i, name in enumerate(images.classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _precision(truth: Any, found: list[dict[str, Any]], kind: str) -> Any:
    """pycocotools' evaluation of all that was found."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        if found:
            # loadRes takes areas from masks where rows have both; for boxes it must not
            own = found if kind == "segm" else [_without(row, "segmentation") for row in found]
            answers = truth.loadRes(own)
        else:
            answers = COCO()
            answers.dataset = {**truth.dataset, "annotations": []}
            answers.createIndex()
        judged = COCOeval(truth, answers, kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != name}


def _stats(judged: Any) -> dict[str, float]:
    """Percent by name; pycocotools says -1 where there is nothing to judge."""
    return {
        name: float(100 * value) if value >= 0 else float("nan")
        for name, value in zip(_STATS, judged.stats, strict=False)
    }


def _mean(precision: np.ndarray) -> float:
    """Mean of a class's precisions in percent; NaN for a class without an object."""
    known = precision[precision >= 0]
    return float(100 * known.mean()) if known.size else float("nan")


# ------------------------------------------------------------------ segmentation


@dataclass(frozen=True, eq=False)
class PixelEvaluation(Result):
    """What a segmenter says of labelled pixels.

    Attributes:
        classes: names of the K classes.
        confusion: int64 (K, K), pixels by right class and by predicted class, over all images.
        images: how many were evaluated.
        data_fingerprint: of the images, see `LabelMaps`.
        scales: sides of the image in its own that were averaged over; ``flip``: also mirrored.
        pad: pixels of empty canvas right of and below every image; ``masked``: the gates of a
            Hire-MLP averaged over the image alone.
    """

    classes: list[str]
    confusion: np.ndarray
    images: int
    data_fingerprint: str
    scales: list[float]
    flip: bool = False
    pad: int = 0
    masked: bool = False

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, in percent, (K,); NaN for a class that neither
        the labels nor the answers have."""
        hit = np.diag(self.confusion).astype(float)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        with np.errstate(invalid="ignore"):
            return 100 * hit / union

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that labels or answers have, in percent."""
        return float(np.nanmean(self.iou))

    @property
    def pixel_accuracy(self) -> float:
        """Share of labelled pixels that are right, in percent."""
        return float(100 * np.diag(self.confusion).sum() / max(self.confusion.sum(), 1))

    def by_class(self) -> dict[str, float]:
        """{class: IoU}, see `iou`."""
        return dict(zip(self.classes, map(float, self.iou), strict=True))

    def __str__(self) -> str:
        how = "" if self.scales == [1.0] and not self.flip else f" at {len(self.scales)} scales"
        how += " and mirrored" if self.flip else ""
        how += _canvas_words(self.pad, self.masked)
        return (
            f"mIoU {self.miou:.2f} %, pixel accuracy {self.pixel_accuracy:.2f} % on "
            f"{self.images:,} images{how}"
        )


@torch.no_grad()
def evaluate_segmenter(
    model: Segmenter,
    images: LabelMaps,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    pad: int = 0,
    masked: bool = False,
    progress: bool = True,
) -> PixelEvaluation:
    """The confusion matrix of a segmenter over all labelled pixels of whole images.

    The network is left in the mode in which it came.

    Args:
        scales: sides of the image, in its own, over which probabilities are averaged; `SCALES`
            with ``flip`` is what the paper's multi-scale figures are made with.
        flip: average over the mirrored image too.
        pad: pixels of empty canvas right of and below the image, as beside a larger image in a
            batch. A network that sees the image alone would answer the same.
        masked: the gates of a Hire-MLP average over the image alone, see `image_gates`.
        progress: show a bar, where stderr is a terminal.

    Raises:
        HirelabError: other classes than the segmenter has; no label in all images.
    """
    _check_classes(model.classes, images.classes)
    count = len(images.classes)
    confusion = np.zeros((count, count), np.int64)
    device = next(model.parameters()).device
    with eval_mode(model):
        for index in _share(len(images), progress):
            image, labels = images.read(index)
            whole = _probabilities(model, image, device, scales, flip, pad, masked)
            answer = whole.argmax(0).cpu().numpy()
            confusion += count_pairs(labels, answer, count)
    confusion = sum(_gathered([confusion]), np.zeros_like(confusion))
    if not confusion.sum():
        raise HirelabError(f"{images.source}: {images.split!r} has no labelled pixel")
    return PixelEvaluation(
        list(images.classes),
        confusion,
        len(images),
        images.fingerprint,
        [float(s) for s in scales],
        flip,
        pad,
        masked,
    )


def _probabilities(
    model: Segmenter,
    image: Image.Image,
    device: torch.device,
    scales: Sequence[float],
    flip: bool,
    pad: int,
    masked: bool,
) -> Tensor:
    """(K, H, W): mean probability of every class over the scales."""
    total = torch.zeros(())
    for scale in scales:
        size = (max(32, round(image.width * scale)), max(32, round(image.height * scale)))
        seen = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
        x = normalise([seen]).to(device)
        more = round(pad * scale)
        shares = [[side / (side + more) for side in x.shape[-2:]]]
        for mirrored in (False, True) if flip else (False,):
            canvas = F.pad(x.flip(-1) if mirrored else x, (0, more, 0, more))
            with image_gates(model, shares) if masked else contextlib.nullcontext():
                logits = model(canvas)
            whole = F.interpolate(
                logits.float(),
                (image.height + pad, image.width + pad),
                mode="bilinear",
                align_corners=False,
            )[0, :, : image.height, : image.width]
            total = total.to(device) + (whole.flip(-1) if mirrored else whole).softmax(0)
    return total


def count_pairs(labels: np.ndarray, answer: np.ndarray, count: int) -> np.ndarray:
    """int64 (count, count): pixels by label and by answer; those without a label do not count."""
    known = labels != NO_LABEL
    pairs = labels[known].astype(np.int64) * count + answer[known]
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


# ------------------------------------------------------------------ both


def _check_classes(own: Sequence[str], given: Sequence[str]) -> None:
    if list(own) != list(given):
        raise HirelabError(
            f"the network knows {len(own)} classes ({quote_first(own)}) and the images have "
            f"{len(given)} ({quote_first(given)}): they have to be the same, in the same order"
        )


def _share(count: int, progress: bool) -> Iterator[int]:
    """The images of this process, with a bar in the first one."""
    state = PartialState()
    mine = range(state.process_index, count, state.num_processes)
    hidden = not (progress and state.is_main_process)
    return iter(tqdm(mine, "evaluating", leave=False, disable=hidden or None))


def _gathered(rows: list[Any]) -> list[Any]:
    """The rows of all processes, in each of them."""
    return gather_object(rows) if PartialState().num_processes > 1 else rows

"""A detector or segmenter seen as a classifier of one place.

What measures a classifier (attributions, the receptive field, points and edits) then measures what
is said of a box or of a pixel. Of the attributions "hires_cam" fits best: Grad-CAM weighs a channel
by one number for the whole map, and an answer about one place does not follow from the whole map.

    seen = hl.focus(detector, (30, 40, 90, 80))     # a box: x1, y1, x2, y2
    hl.attribute(seen, x, 0, method="hires_cam")    # which places speak for class 0 there
    hl.receptive_field(seen, x, "levels.2")         # of a level of the pyramid
    hl.grad_cam(seen, x, 0, "network.stages.1")     # of the backbone, under its own names
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from .._shared.errors import HirelabError
from .backbone import DenseNetwork
from .detection import Detector
from .segmentation import Segmenter

__all__ = ["Focus", "focus"]

BACKGROUND = "background"
ROUNDING = 0.01  # pixels


class Focus(nn.Module):
    """Logits (N, K) of one place; made by `focus`. The weights are the dense network's own.

    Attributes:
        network: the backbone, with its points.
        levels: what gives each map of the pyramid, the finest first.
        model: the dense network itself.
        place: the box or pixel.
        level: the level that the place is read from.
        num_classes: K.
    """

    network: nn.Module
    levels: nn.ModuleList

    def __init__(self, model: DenseNetwork, place: Sequence[float], names: Sequence[str]) -> None:
        super().__init__()
        # first, so that their modules are found under these names and not under longer ones
        self.network = model.backbone.network
        self.levels = nn.ModuleList(_levels(model))
        self.model = model
        self.place = tuple(place)
        self.level = 0
        self.num_classes = len(names)
        self.pretrained_cfg = {"architecture": _title(model), "label_names": tuple(names)}

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """The level that the place is read from, in timm's form: the map to look at by default."""
        return [{"module": f"levels.{self.level}"}]


class _Pixel(Focus):
    """What a segmenter says of a pixel: its logits there."""

    def forward(self, x: Tensor) -> Tensor:
        row, column = map(int, self.place)
        height, width = x.shape[-2:]
        if not (0 <= row < height and 0 <= column < width):
            raise HirelabError(
                f"The pixel is row {row}, column {column}; the image has {height} rows and "
                f"{width} columns, counted from 0."
            )
        logits = self.model(x)
        # in training mode a list, with the auxiliary head's
        return (logits if isinstance(logits, Tensor) else logits[0])[:, :, row, column]


class _Box(Focus):
    """What a detector says of a box."""

    model: Detector

    def forward(self, x: Tensor) -> Tensor:
        net: Any = self.model.net
        images, _ = net.transform(list(x))
        box = self._scaled(x, images.image_sizes[0])
        levels = net.backbone(images.tensors)
        if self.model.kind == "retinanet":
            return self._of_anchor(levels, images, box)
        pooled = net.roi_heads.box_roi_pool(levels, [box] * len(x), images.image_sizes)
        logits, _ = net.roi_heads.box_predictor(net.roi_heads.box_head(pooled))
        return torch.cat([logits[:, 1:], logits[:, :1]], 1)  # the background last

    def _scaled(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(1, 4): the box on the image as the detector has scaled it."""
        x1, y1, x2, y2 = self.place
        height, width = x.shape[-2:]
        near = ROUNDING  # a box that was found at the edge may lie a hair beyond it
        if not (-near <= x1 < x2 <= width + near and -near <= y1 < y2 <= height + near):
            raise HirelabError(
                f"The box is {self.place}; give x1 < x2 up to {width} and y1 < y2 up to {height}, "
                "in pixels of the image."
            )
        down, across = size[0] / height, size[1] / width
        return x.new_tensor([[x1 * across, y1 * down, x2 * across, y2 * down]])

    def _of_anchor(self, levels: dict[str, Tensor], images: Any, box: Tensor) -> Tensor:
        """(N, K): the classes of the anchor that overlaps the box most."""
        net: Any = self.model.net
        maps = list(levels.values())
        anchors = net.anchor_generator(images, maps)[0]
        best = int(box_iou(box, anchors)[0].argmax())
        return net.head(maps)["cls_logits"][:, best]


def focus(model: DenseNetwork, place: Sequence[float]) -> Focus:
    """See a detector or segmenter as a classifier of one place, in the mode that it is in.

    Args:
        model: of `detector`, `segmenter` or `load_dense`.
        place: of a detector a box (x1, y1, x2, y2) in pixels of the image, such as one that it
            found; of a segmenter a pixel (row, column).

    Returns:
        A network (N, 3, H, W) -> (N, K), of images of one size. Of Mask R-CNN the last class is
        the background, and the softmax is the score that its second stage gives to this box (a
        detection's own score was given to the proposal that it was made of, nearly the same box).
        Of RetinaNet it is the anchor that overlaps the box most; it judges each class by itself,
        so its scores are the sigmoid, and the softmax that attributions state is not.

    Raises:
        HirelabError: another network, or a place of another kind; when it runs: one outside of the
            image.
    """
    numbers = _numbers(place)
    if isinstance(model, Detector) and len(numbers) == 4:
        extra = [] if model.kind == "retinanet" else [BACKGROUND]
        seen: Focus = _Box(model, numbers, [*model.classes, *extra])
        seen.level = _level_of(model, numbers)
    elif isinstance(model, Segmenter) and len(numbers) == 2 and not any(n % 1 for n in numbers):
        seen = _Pixel(model, numbers, model.classes)
    else:
        raise HirelabError(
            f"The network is a {type(model).__name__} and the place {place!r}; give a detector and "
            "a box (x1, y1, x2, y2), or a segmenter and a pixel (row, column) in whole numbers."
        )
    return seen.train(model.training)


def _numbers(place: Any) -> list[float]:
    """The place as numbers; none of what is no sequence of finite ones."""
    try:
        numbers = [float(number) for number in place]
    except (TypeError, ValueError):
        return []
    return numbers if all(map(isfinite, numbers)) else []


def _levels(model: DenseNetwork) -> list[nn.Module]:
    """The modules that give the maps of the pyramid, finest first."""
    if isinstance(model, Detector):
        return list(model.net.backbone.fpn.layer_blocks)  # type: ignore[union-attr,arg-type]
    assert isinstance(model, Segmenter)
    head: Any = model.head.decode
    if model.kind == "upernet":
        return [*head.fpn_convs, head.bottleneck]
    return [head.p2, head.p3, head.p4, head.p5]


def _level_of(model: Detector, box: Sequence[float]) -> int:
    """The level that a box is read from, by its size: as torchvision deals proposals out, and of
    RetinaNet the level whose smallest anchor is nearest."""
    net: Any = model.net
    x1, y1, x2, y2 = box
    side = max((x2 - x1) * (y2 - y1), 1e-6) ** 0.5
    if model.kind == "retinanet":
        sides = [torch.tensor(sizes).log() for sizes in net.anchor_generator.sizes]
        near = [float((one - torch.tensor(side).log()).abs().min()) for one in sides]
        return min(near.index(min(near)), len(net.backbone.fpn.layer_blocks) - 1)
    pool = net.roi_heads.box_roi_pool
    # Lin et al. 2017, equation 1: a box of 224 pixels is read from the level of stride 16
    level = int(torch.tensor(side / pool.canonical_scale).log2().floor()) + pool.canonical_level
    return min(max(level - 2, 0), 3)


def _title(model: DenseNetwork) -> str:
    return f"{model.config['kind']} on {model.config['backbone']}"

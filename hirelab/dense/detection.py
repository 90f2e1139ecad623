"""Detectors: torchvision's RetinaNet and Mask R-CNN on any backbone.

torchvision brings the pyramid, anchors, heads, losses and non-maximum suppression; here they are
put together as the field's configurations have them (mmdetection's RetinaNet and Mask R-CNN with
FPN, which Hire-MLP's tables were made with: arXiv 2108.13341 v2, section 4.2). Cascade Mask R-CNN,
with which the paper reaches its 51.7 box AP, is in no library that is kept up and installs beside
this PyTorch; it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from .._shared.checks import check_choice
from ..models.factory import seeded
from .backbone import Backbone, DenseNetwork, class_names, sort_settings

__all__ = ["DETECTORS", "Detector", "detector"]

DETECTORS = ("retinanet", "mask_rcnn")
FIRST_STRIDE = {"retinanet": 8, "mask_rcnn": 4}
"""Pixels between the places of the pyramid's finest level."""

SMALLEST_ANCHOR = 32
"""Its side in pixels, as on COCO."""

WIDTH = 256
"""Channels of every level of the pyramid, and of the heads' convolutions."""
BOX_GRID = 7
"""Rows and columns of what torchvision's box head reads of a proposal."""
_RATIOS = (0.5, 1.0, 2.0)


class Pyramid(nn.Module):
    """A feature pyramid over a backbone (Lin et al. 2017): what torchvision's detectors read.

    Args:
        backbone: gives four maps.
        retina: levels P3 to P7, the last two from the backbone's last map; else P2 to P5 and a
            pooled P6.
        width: channels of every level.
    """

    def __init__(self, backbone: Backbone, retina: bool, width: int = WIDTH) -> None:
        super().__init__()
        self.body, self.out_channels = backbone, width
        self.first = 1 if retina else 0
        channels = backbone.channels[self.first :]
        extra = LastLevelP6P7(channels[-1], width) if retina else LastLevelMaxPool()
        self.fpn = FeaturePyramidNetwork(channels, width, extra)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.body(x)[self.first :]
        # torchvision makes anchors of the maps' precision: in bfloat16 they would be off by pixels
        return _exact(self.fpn({str(i): one for i, one in enumerate(maps)}))


def _exact(found: Any) -> Any:
    """The same numbers in float32, in whatever a module returned them."""
    if isinstance(found, Tensor):
        return found.float()
    if isinstance(found, dict):
        return {key: _exact(value) for key, value in found.items()}
    return type(found)(map(_exact, found))


def _exact_output(module: nn.Module, given: Any, found: Any) -> Any:
    return _exact(found)


class Detector(DenseNetwork):
    """A detector whose labels are 0 to K-1, with or without a background class inside.

    Images are normalised as everywhere in hirelab (`datasets.transforms.normalise`) and may differ
    in size. In a batch they are padded with zeros, to the right and at the bottom, up to the
    largest; **what a Hire-MLP says of an image depends on that padding** (its shift rolls the
    canvas, its gate averages over it), so evaluate one image at a time, with ``pad_to=1``.

    See `detector` for the arguments.
    """

    def __init__(
        self,
        kind: str,
        backbone: str,
        classes: Sequence[str],
        *,
        pretrained: bool = False,
        frozen_norm: bool = False,
        min_size: int | Sequence[int] = 800,
        max_size: int = 1333,
        anchor_scale: float | None = None,
        pad_to: int = 32,
        width: int = WIDTH,
        head: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, DETECTORS)
        self.kind, self.classes = kind, tuple(classes)
        retina = kind == "retinanet"
        scale = anchor_scale or SMALLEST_ANCHOR / FIRST_STRIDE[kind]
        self.config = {
            "task": "detection",
            "kind": kind,
            "backbone": backbone,
            "classes": list(self.classes),
            "frozen_norm": frozen_norm,
            "min_size": min_size,
            "max_size": max_size,
            "anchor_scale": scale,
            "pad_to": pad_to,
            "width": width,
            "head": dict(head or {}),
            "arguments": dict(arguments or {}),
        }
        body = Backbone(
            backbone, pretrained=pretrained, frozen_norm=frozen_norm, **self.config["arguments"]
        )
        shared: dict[str, Any] = {
            "min_size": min_size,
            "max_size": max_size,
            # images come normalised: zeros, with which a batch is padded, are the mean colour
            "image_mean": [0.0] * 3,
            "image_std": [1.0] * 3,
            "size_divisible": pad_to,
            **self.config["head"],
        }
        strides = [FIRST_STRIDE[kind] * 2**level for level in range(5)]
        self.net: nn.Module
        if retina:
            # three sizes an octave; torchvision scales the side of a square
            sizes = tuple(tuple(scale * s * 2 ** (k / 3) for k in range(3)) for s in strides)
            anchors = AnchorGenerator(sizes, (_RATIOS,) * 5)
            self.net = RetinaNet(
                Pyramid(body, retina, width), len(classes), anchor_generator=anchors, **shared
            )
        else:
            sizes = tuple((scale * s,) for s in strides)
            anchors = AnchorGenerator(sizes, (_RATIOS,) * 5)
            self.net = MaskRCNN(
                Pyramid(body, retina, width),
                rpn_anchor_generator=anchors,
                # torchvision's own, whose sizes are for 256 channels
                mask_head=MaskRCNNHeads(width, [width] * 4, 1),
                mask_predictor=MaskRCNNPredictor(width, width, len(classes) + 1),
                box_head=TwoMLPHead(width * BOX_GRID**2, 4 * width),
                box_predictor=FastRCNNPredictor(4 * width, len(classes) + 1),
                **shared,
            )
        # torchvision computes boxes in the precision of what its heads say. In autocast's
        # bfloat16, with 8 bits, a small box becomes empty and its loss is no number
        says_boxes = ("head",) if retina else ("rpn.head", "roi_heads.box_predictor")
        for name in says_boxes:
            self.net.get_submodule(name).register_forward_hook(_exact_output)
        # of a class's own: 0 is the background where there is one
        self._first = 0 if retina else 1

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        return self.net.backbone.body  # type: ignore[union-attr,return-value]

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> Any:
        """Losses by name in training; else, for each image, what was found.

        Args:
            images: normalised (3, H, W), of any sizes.
            targets: for training, for each image ``boxes`` (N, 4) as x1, y1, x2, y2 in pixels,
                ``labels`` (N,) from 0 to K-1, and for Mask R-CNN ``masks`` (N, H, W) of 0 and 1.
                N may be 0.

        Returns:
            in evaluation a list of {boxes, labels, scores, masks}, most certain first; masks
            (N, 1, H, W) from 0 to 1, of Mask R-CNN.
        """
        if targets is not None:
            targets = [{**t, "labels": t["labels"] + self._first} for t in targets]
        found = self.net(list(images), targets)
        if self.training:
            return found
        return [{**one, "labels": one["labels"] - self._first} for one in found]


def detector(
    kind: str = "mask_rcnn",
    backbone: str = "hire_mlp_small",
    num_classes: int | Sequence[str] = 80,
    *,
    seed: int | None = None,
    **settings: Any,
) -> Detector:
    """A detector in evaluation mode.

    Args:
        kind: "retinanet" or "mask_rcnn".
        backbone: any network of timm's or ours with four stages.
        num_classes: how many, or their names; the background is not counted.
        seed: of the initial weights; PyTorch's own random state stays as it was.
        settings: ``pretrained`` weights of the backbone; ``frozen_norm``, see `Backbone`;
            ``min_size`` and ``max_size``, to which a side of an image is scaled (800 and 1333, as
            on COCO); ``anchor_scale``, the smallest anchor's side in strides (4 and 8, as on COCO);
            ``pad_to``, of which a batch's sides are multiples (32; 1 for no padding of a single
            image); ``width``, channels of the pyramid and of the heads (256, as the paper's; fewer
            make a small detector); ``head``, arguments of torchvision's class; and any argument
            of the backbone.

    Raises:
        HirelabError: an unknown kind or backbone, or one without four stages.
    """
    with seeded(seed):
        known = sort_settings(Detector, settings)
        return Detector(kind, backbone, class_names(num_classes), **known).eval()  # type: ignore[arg-type]

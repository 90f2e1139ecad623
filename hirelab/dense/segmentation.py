"""Semantic segmenters: UPerNet of transformers and Semantic FPN of segmentation-models-pytorch.

Both heads are the libraries' own; the sizes are those of the authors' configurations (UPerNet: 512
channels and an auxiliary head on stage 3; Semantic FPN: 256 and 128 channels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .._shared.checks import check_choice
from .._shared.errors import HirelabError
from ..models.factory import seeded
from .backbone import Backbone, DenseNetwork, class_names, sort_settings

__all__ = ["SEGMENTERS", "Segmenter", "segmenter"]

SEGMENTERS = ("upernet", "fpn")
_LACKS = "{} needs {}: pip install 'hirelab[dense]'."
AUXILIARY_WEIGHT = 0.4
"""Of the auxiliary head's loss in the authors' configuration."""


class UperNet(nn.Module):
    """UPerNet's head (Xiao et al. 2018) with an auxiliary one: logits at 1/4, and at 1/16."""

    def __init__(self, channels: list[int], classes: int, width: int, auxiliary: bool) -> None:
        super().__init__()
        try:
            from transformers import UperNetConfig
            from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead
        except ImportError as error:
            raise HirelabError(_LACKS.format("UPerNet", "transformers")) from error
        # its type hints leave out what every config of transformers takes
        settings: dict[str, Any] = {"num_labels": classes}
        config = UperNetConfig(hidden_size=width, auxiliary_in_channels=channels[2], **settings)
        self.decode = UperNetHead(config, channels)
        self.auxiliary = UperNetFCNHead(config, channels) if auxiliary else None

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        extra = [self.auxiliary(maps)] if self.training and self.auxiliary is not None else []
        return [self.decode(maps), *extra]


class SemanticFPN(nn.Module):
    """The head of Panoptic FPN (Kirillov et al. 2019): logits at 1/4."""

    def __init__(self, channels: list[int], classes: int, dropout: float) -> None:
        super().__init__()
        try:
            from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder
        except ImportError as error:
            lacks = _LACKS.format("Semantic FPN", "segmentation-models-pytorch")
            raise HirelabError(lacks) from error
        self.decode = FPNDecoder(channels, encoder_depth=4, dropout=dropout)
        self.classify = nn.Conv2d(self.decode.out_channels, classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.classify(self.decode(maps))]


class Segmenter(DenseNetwork):
    """A class for every pixel. See `segmenter` for the arguments."""

    def __init__(
        self,
        kind: str,
        backbone: str,
        classes: Sequence[str],
        *,
        pretrained: bool = False,
        frozen_norm: bool = False,
        stage_norms: bool = False,
        width: int = 512,
        auxiliary: bool = True,
        dropout: float = 0.1,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_choice("kind", kind, SEGMENTERS)
        self.kind, self.classes = kind, tuple(classes)
        self.config = {
            "task": "segmentation",
            "kind": kind,
            "backbone": backbone,
            "classes": list(self.classes),
            "frozen_norm": frozen_norm,
            "stage_norms": stage_norms,
            "width": width,
            "auxiliary": auxiliary,
            "dropout": dropout,
            "arguments": dict(arguments or {}),
        }
        self.backbone = Backbone(
            backbone,
            pretrained=pretrained,
            frozen_norm=frozen_norm,
            stage_norms=stage_norms,
            **self.config["arguments"],
        )
        channels = self.backbone.channels
        self.head: nn.Module = (
            UperNet(channels, len(classes), width, auxiliary)
            if kind == "upernet"
            else SemanticFPN(channels, len(classes), dropout)
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, 3, H, W), normalised, of any size -> logits (B, K, H, W).

        In training a list: those, and the auxiliary head's where there is one.
        """
        height, width = x.shape[-2:]
        if self.kind == "fpn":  # it doubles sides, so they have to be multiples of 32
            x = F.pad(x, (0, -width % 32, 0, -height % 32))
        size = x.shape[-2:]
        logits = [
            F.interpolate(one, size, mode="bilinear", align_corners=False)[..., :height, :width]
            for one in self.head(self.backbone(x))
        ]
        return logits if self.training else logits[0]

    def loss(self, logits: Tensor | list[Tensor], labels: Tensor, ignore: int = 255) -> Tensor:
        """Cross-entropy over the labelled pixels, with 0.4 times the auxiliary head's.

        Args:
            labels: (B, H, W) from 0 to K-1, or ``ignore``. A batch without any label gives 0.
        """
        several = logits if isinstance(logits, list) else [logits]
        labelled = (labels != ignore).sum().clamp(min=1)  # a mean over none would be no number
        sums = [
            F.cross_entropy(one.float(), labels, ignore_index=ignore, reduction="sum")
            for one in several
        ]
        return (sums[0] + AUXILIARY_WEIGHT * sum(sums[1:])) / labelled


def segmenter(
    kind: str = "upernet",
    backbone: str = "hire_mlp_small",
    num_classes: int | Sequence[str] = 150,
    *,
    seed: int | None = None,
    **settings: Any,
) -> Segmenter:
    """A segmenter in evaluation mode.

    Args:
        kind: "upernet" or "fpn".
        backbone: any network of timm's or ours with four stages.
        num_classes: how many, or their names.
        seed: of the initial weights; PyTorch's own random state stays as it was.
        settings: ``pretrained`` weights of the backbone; ``frozen_norm`` and ``stage_norms``, see
            `Backbone`; ``width`` of UPerNet's maps (512) and whether it has an ``auxiliary`` head;
            ``dropout`` of Semantic FPN; and any argument of the backbone.

    Raises:
        HirelabError: an unknown kind or backbone, one without four stages, a library that is not
            installed.
    """
    with seeded(seed):
        known = sort_settings(Segmenter, settings)
        return Segmenter(kind, backbone, class_names(num_classes), **known).eval()  # type: ignore[arg-type]

"""AttributionExplorer: what an image's class is read from, by point, method and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from .._shared.errors import HirelabError
from ..analysis.attribution import Attribution, attribute
from ..datasets.images import PHOTOGRAPHS
from ..datasets.transforms import normalise
from ..viz import overlay, theme
from ..viz.canvas import Canvas
from .controls import choice, slider
from .inputs import square_image
from .network import ModelExplorer

_GIVEN = "given"  # the image that the explorer was made with
_LAST = "last map of the network"
_POINTS = {
    _LAST: "",
    "block output": "out",
    "after the hire module": "mid",
    "branches, fused": "hire.fused",
    "height branch": "hire.height.out",
    "height regions, mixed": "hire.height.mixed",
    "width branch": "hire.width.out",
    "width regions, mixed": "hire.width.mixed",
    "channel branch": "hire.channel.out",
}
_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "Grad-CAM": ("grad_cam", {}),
    "gradient": ("gradient", {}),
    "SmoothGrad": ("smooth_grad", {"samples": 8}),
    "integrated gradients": ("integrated_gradients", {"steps": 16}),
    "guided backpropagation": ("guided_backprop", {}),
    "occlusion": ("occlusion", {}),
}
_SIDE = 310  # of a panel, in logical pixels


class AttributionExplorer(ModelExplorer):
    """Which places of an image speak for a class, and which against it.

    Region grids inside a shifted branch are carried back to places, see `analysis.attribution`.

    Args:
        model: a Hire-MLP; by default an untrained Hire-MLP-Tiny. Untrained weights are noted in the
            figure.
        image: the reader's own, shown as "given": a file, a tensor (3, H, W), a PIL image, an
            array, or a sample's name; the coffee cup by default.
        names: of the classes; their numbers without.
        settings: see ``AttributionExplorer.Settings``.

    Raises:
        HirelabError: for a network that is no Hire-MLP, too few names, and as `Explorer`.
    """

    title = "What the class is read from"

    @dataclass(frozen=True)
    class Settings:
        photograph: str = choice(_GIVEN, (_GIVEN, *PHOTOGRAPHS), "image")
        method: str = choice("Grad-CAM", _METHODS, "method")
        point: str = choice("block output", _POINTS, "Grad-CAM at")
        stage: int = slider(2, 0, 3, "stage")
        block: int = slider(1, 0, 23, "block")
        target: int = slider(-1, -1, 999, "class (-1: predicted)")

    def __init__(
        self,
        model: nn.Module | None = None,
        image: Any = None,
        names: Sequence[str] | None = None,
        **settings: Any,
    ):
        super().__init__(model, image, **settings)
        classes = self._model.num_classes
        if names is not None and len(names) < classes:
            raise HirelabError(
                f"There are {len(names)} names for {classes} classes; give one for each, or none."
            )
        self._names = names

    def limits(self) -> dict[str, Any]:
        return {**super().limits(), "target": self._model.num_classes - 1}

    def problem(self, s: Settings) -> str | None:
        if s.method != "Grad-CAM" or s.point == _LAST:
            return None
        missing = self.missing_block(s)
        if missing:
            return missing
        inside = _POINTS[s.point].split(".")
        return self.missing_branch(s, inside[1]) if inside[0] == "hire" else None

    def run(self, image: str, method: str, point: str | None, target: int | None) -> Attribution:
        """The attribution of an image, by its name; the predicted class for no target."""
        name, options = _METHODS[method]
        x = normalise([self._shown(image)])
        return attribute(self._model, x, target, point, method=name, **options)

    def _shown(self, image: str) -> Image.Image:
        return self._given if image == _GIVEN else square_image(image)

    def attribution(self, s: Settings | None = None) -> Attribution:
        """The attribution of the settings, by default of the current ones."""
        s = s or self.settings
        point = None
        if s.method == "Grad-CAM" and s.point != _LAST:
            point = f"{self.block_name(s)}.{_POINTS[s.point]}"
        return self._read(s.photograph, s.method, point, None if s.target < 0 else s.target)

    def measure(self, s: Settings) -> Attribution:
        return self.attribution(s)

    def facts(self, s: Settings, found: Attribution) -> dict[str, Any]:
        rows, cols = found.maps.shape[1:]
        size = float(np.abs(found.maps).sum())
        share = float(np.maximum(found.maps, 0).sum()) / size if size else 0.0
        return {
            "predicted": self._name(int(found.predicted[0])),
            "shown_class": self._name(int(found.targets[0])),
            "probability": round(float(found.probabilities[0]), 3),
            "at": found.point or "pixels",
            "map": f"{rows} x {cols}",
            "share_that_speaks_for_it": round(share, 3),
        }

    def _name(self, number: int) -> str:
        return str(self._names[number]) if self._names else f"class {number}"

    def draw(self, s: Settings, found: Attribution) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 486)
        canvas.text((6, 6), f"{s.method} at {found.point or 'pixels'}", theme.TITLE, bold=True)
        shown, predicted = (self._name(int(n[0])) for n in (found.targets, found.predicted))
        note = f"shown: {shown}, {found.probabilities[0]:.1%}"
        note += f"; predicted: {predicted}, {found.confidence[0]:.1%}{self.untrained_note()}"
        canvas.text((6, 38), note, theme.SMALL, theme.MUTED)
        values, image = found.upsampled[0], np.asarray(self._shown(s.photograph))
        smooth = 1 if found.point else 7
        boxes = [self._box(column) for column in range(3)]
        heads = ("the image", "what speaks for the class", "for and against")
        for box, words in zip(boxes, heads, strict=True):
            canvas.text((box[0], box[1] - 26), words, theme.SMALL, bold=True)
        canvas.draw_image(image, boxes[0], smooth=True)
        canvas.rect(boxes[0], outline=theme.LINE)
        overlay.draw_overlay(canvas, image, overlay.positive(values, smooth), boxes[1])
        overlay.draw_signed(canvas, values, boxes[2])
        below = boxes[0][3] + 6
        means = f"means over {smooth} x {smooth} pixels; " if smooth > 1 else ""
        words = f"{means}line: half the highest"
        canvas.text((boxes[1][0], below), words, 15, theme.MUTED)
        canvas.text((boxes[0][0], below), s.photograph, 15, theme.MUTED)
        canvas.text(
            (boxes[2][0], below), f"{values.min():.2g} to {values.max():.2g}", 15, theme.MUTED
        )
        x = canvas.swatch((boxes[2][0], below + 24), theme.BLUE, "for")
        canvas.swatch((x, below + 24), theme.ORANGE, "against")
        return canvas.image

    @staticmethod
    def _box(column: int) -> tuple[float, float, float, float]:
        left, top = 8 + column * (_SIDE + 52), 98
        return (left, top, left + _SIDE, top + _SIDE)

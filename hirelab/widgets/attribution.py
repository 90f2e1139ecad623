"""AttributionExplorer: what an image's class is read from, by point, method and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from .._shared.errors import HirelabError
from ..analysis.attribution import Attribution, attribute
from ..datasets.images import PHOTOGRAPHS
from ..datasets.transforms import normalise
from ..hooks.forward import class_name
from ..models.hire_mlp import BRANCHES
from ..viz import overlay, theme
from ..viz.canvas import Canvas
from .controls import choice, slider
from .inputs import GIVEN
from .network import ModelExplorer

PREDICTED = -1  # in place of a class: the one that the network names
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
        model: a Hire-MLP; by default the trained Hire-MLP-Pico that comes with hirelab. Untrained
            weights are noted in the figure.
        image: the reader's own, "the given one": a file, a tensor (3, H, W), a PIL image, an
            array, or a sample's name; the coffee cup by default.
        names: of the classes; by default those that the network's description has
            (``pretrained_cfg``), or else their numbers.
        img_size: the side of the image in pixels; by default the one the network was made for.
        settings: see ``AttributionExplorer.Settings``.

    Raises:
        HirelabError: for a network that is no Hire-MLP, too few names, and as `Explorer`.
    """

    title = "What the class is read from"
    given = MappingProxyType({"photograph": GIVEN})

    @dataclass(frozen=True)
    class Settings:
        photograph: str = choice(GIVEN, (GIVEN, *PHOTOGRAPHS), "image")
        method: str = choice("Grad-CAM", _METHODS, "method")
        point: str = choice("block output", _POINTS, "Grad-CAM at")
        stage: int = slider(2, 0, 3, "stage")
        block: int = slider(1, 0, 23, "block")
        target: int = choice(PREDICTED, (PREDICTED,), "class")

    def __init__(
        self,
        model: nn.Module | None = None,
        image: Any = None,
        names: Sequence[str] | None = None,
        img_size: int | None = None,
        **settings: Any,
    ):
        self._names = names
        super().__init__(model, image, img_size, **settings)

    def limits(self) -> dict[str, Any]:
        classes = self._model.num_classes
        if self._names is not None and len(self._names) < classes:
            raise HirelabError(
                f"There are {len(self._names)} names for {classes} classes; give one for each, or "
                "none."
            )
        closed = set(BRANCHES) - set(self.branches)
        return {
            **super().limits(),
            "point": [name for name, at in _POINTS.items() if not closed & set(at.split("."))],
            "target": {
                PREDICTED: "predicted",
                **{number: self._name(number) for number in range(classes)},
            },
        }

    def idle(self, s: Settings) -> tuple[str, ...]:
        if s.method != "Grad-CAM":  # the others read pixels
            return ("point", "stage", "block")
        return ("stage", "block") if s.point == _LAST else ()

    def run(self, image: str, method: str, point: str | None, target: int | None) -> Attribution:
        """The attribution of an image, by its name; the predicted class for no target."""
        name, options = _METHODS[method]
        x = normalise([self._shown(image)])
        return attribute(self._model, x, target, point, method=name, **options)

    def attribution(self, s: Settings | None = None) -> Attribution:
        """The attribution of the settings, by default of the current ones."""
        s = s or self.settings
        point = None
        if s.method == "Grad-CAM" and s.point != _LAST:
            point = f"{self.block_name(s)}.{_POINTS[s.point]}"
        return self._read(
            s.photograph, s.method, point, None if s.target == PREDICTED else s.target
        )

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
        return str(self._names[number]) if self._names else class_name(self._model, number)

    def words(self, s: Settings, found: Attribution) -> str:
        rows, cols = found.maps.shape[1:]
        share = self.facts(s, found)["share_that_speaks_for_it"]
        shown = self._name(int(found.targets[0]))
        stretched = (
            "" if (rows, cols) == found.upsampled.shape[1:] else ", stretched over the image"
        )
        return (
            f"Of all that the map holds, {share:.0%} speaks for {shown} and the rest against it. "
            f"It has {rows} x {cols} values{stretched}."
        )

    def draw(self, s: Settings, found: Attribution) -> Image.Image:
        canvas = Canvas(theme.WIDTH, 478)
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
        below = boxes[0][3] + 8
        size = np.abs(values).max()
        ends = (f"against: {-size:.2g}", f"for: {size:.2g}")
        overlay.draw_bar(canvas, (boxes[1][0], below, boxes[1][2], below + 12), ("0", "highest"))
        overlay.draw_signed_bar(canvas, (boxes[2][0], below, boxes[2][2], below + 12), ends)
        means = f"means over {smooth} x {smooth} pixels; " if smooth > 1 else ""
        words = f"{means}line: half the highest"
        canvas.text((boxes[1][0], below + 36), words, 15, theme.MUTED)
        name = self._image_name if s.photograph == GIVEN else s.photograph
        size_words = f"{name}, {self.img_size} x {self.img_size} pixels"
        canvas.text((boxes[0][0], below - 2), size_words, 15, theme.MUTED)
        span = f"from {values.min():.2g} to {values.max():.2g}"
        canvas.text((boxes[2][0], below + 36), span, 15, theme.MUTED)
        return canvas.image

    @staticmethod
    def _box(column: int) -> tuple[float, float, float, float]:
        left, top = 8 + column * (_SIDE + 52), 98
        return (left, top, left + _SIDE, top + _SIDE)

"""AttributionExplorer: what an image's class is read from, by point, method and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from .._shared.errors import HirelabError
from ..analysis.attribution import Attribution, attribute
from ..datasets.images import PHOTOGRAPHS
from ..datasets.transforms import normalise
from ..hooks.forward import is_trained
from ..models import create
from ..viz import overlay, theme
from ..viz.canvas import Canvas
from .explorer import Explorer, choice, slider
from .inputs import check_network, missing_stage, square_image

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
_METHODS = {
    "Grad-CAM": ("grad_cam", {}),
    "gradient": ("gradient", {}),
    "SmoothGrad": ("smooth_grad", {"samples": 8}),
    "integrated gradients": ("integrated_gradients", {"steps": 16}),
    "guided backpropagation": ("guided_backprop", {}),
    "occlusion": ("occlusion", {}),
}
_SIDE = 310  # of a panel, in logical pixels


class AttributionExplorer(Explorer):
    """Which places of an image speak for a class, and which against it.

    Region grids inside a shifted branch are carried back to places, see `analysis.attribution`.

    Args:
        model: a Hire-MLP; by default an untrained Hire-MLP-Tiny, and the sheet says so.
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
        stage: int = slider(3, 1, 4, "stage")
        block: int = slider(2, 1, 24, "block")
        target: int = slider(-1, -1, 999, "class (-1: predicted)")

    def __init__(
        self,
        model: nn.Module | None = None,
        image: Any = None,
        names: Sequence[str] | None = None,
        **settings: Any,
    ):
        self._model = create("hire_mlp_tiny", seed=0) if model is None else check_network(model)
        classes = self._model.num_classes
        if names is not None and len(names) < classes:
            raise HirelabError(
                f"There are {len(names)} names for {classes} classes; give one for each, or none."
            )
        self._names = names
        self._given = square_image(image)
        # The network and the images are fixed, so attributions are kept, a few at a time.
        self._read = lru_cache(maxsize=8)(self._run)
        super().__init__(**settings)

    def problem(self, s: Settings) -> str | None:
        if not 0 <= s.target < self._model.num_classes and s.target != -1:
            last = self._model.num_classes - 1
            return f"Class {s.target} is not there: the network has 0 to {last}."
        if s.method != "Grad-CAM" or s.point == _LAST:
            return None
        stages = self._model.stages
        if s.stage > len(stages):
            return missing_stage(stages, s.stage)
        blocks = stages[s.stage - 1].blocks
        if s.block > len(blocks):
            return f"Block {s.block} is not there: stage {s.stage} has {len(blocks)}."
        module = _POINTS[s.point].split(".")
        if module[:1] == ["hire"] and getattr(blocks[s.block - 1].hire, module[1]) is None:
            return f"The {module[1]} branch is not there: the network was built without it."
        return None

    def _run(self, image: str, method: str, point: str | None, target: int | None) -> Attribution:
        name, options = _METHODS[method]
        x = normalise([self._shown(image)])
        return attribute(self._model, x, target, point, method=name, **options)

    def _shown(self, image: str) -> Image.Image:
        return self._given if image == _GIVEN else square_image(image)

    def attribution(self, s: Settings | None = None) -> Attribution:
        """The attribution of the settings, by default of those in force."""
        s = s or self.settings
        point = None
        if s.method == "Grad-CAM" and s.point != _LAST:
            point = f"stages.{s.stage - 1}.blocks.{s.block - 1}.{_POINTS[s.point]}"
        return self._read(s.photograph, s.method, point, None if s.target < 0 else s.target)

    def facts(self, s: Settings) -> dict[str, Any]:
        found = self.attribution(s)
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

    def draw(self, s: Settings) -> Image.Image:
        found, facts = self.attribution(s), self.facts(s)
        canvas = Canvas(theme.WIDTH, 486)
        canvas.text((6, 6), f"{s.method} at {facts['at']}", theme.TITLE, bold=True)
        state = is_trained(self._model).trained
        note = f"shown: {facts['shown_class']}, {found.probabilities[0]:.1%}"
        note += f"; predicted: {facts['predicted']}, {found.confidence[0]:.1%}"
        if state is False:
            note += "; the weights are untrained"
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

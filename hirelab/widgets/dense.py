"""DenseExplorer: what a detector or segmenter finds, and what it takes it from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from .._shared.errors import HirelabError
from ..analysis.attribution import Attribution, attribute, upsample
from ..datasets.boxes import open_boxes
from ..datasets.images import open_image
from ..datasets.transforms import normalise
from ..dense.backbone import DenseNetwork
from ..dense.factory import load_dense
from ..dense.focus import focus
from ..dense.predictions import (
    Objects,
    PixelLabels,
    image_part,
    image_share,
    predict,
    stage_maps,
)
from ..hooks.forward import is_trained
from ..viz import maps, overlay, theme
from ..viz.canvas import Canvas
from .controls import choice, slider
from .inputs import GIVEN
from .network import SizedExplorer
from .phrases import several

ALL = -1  # in place of a class: all of them, or the one that is predicted
LOWEST = 0.05  # objects with lower scores are never shown
SCENES = tuple(f"scene {number}" for number in range(1, 9))
_LONGEST = 640  # of an image's sides, in pixels: larger ones take seconds
_PANEL, _GAP, _TOP = 334, 33, 98  # logical pixels
_TALLEST = 420


@dataclass(frozen=True, eq=False)
class Seen:
    """What the explorer shows: what was found, the chosen object, and what speaks for it."""

    found: Objects | PixelLabels
    chosen: int | None
    strength: np.ndarray
    speaks: Attribution | None
    heat: np.ndarray | None


class DenseExplorer(SizedExplorer):
    """What a detector or segmenter finds on an image, what its backbone holds there, and which
    places speak for the chosen object or pixel.

    The places are gradient times activation at the output of a stage, of the class's logit in the
    chosen box or pixel (`hirelab.dense.focus`). Grad-CAM itself weighs a channel by one number for
    the whole map, and would light up where nothing moves an answer about one place.

    Args:
        model: of `hl.detector`, `hl.segmenter` or `hl.load_dense`; by default the bundled detector
            of generated scenes, "scenes.mask_rcnn".
        image: the reader's own, "the given one": a file, a PIL image or an array; it keeps its
            proportions. By default a generated scene.
        settings: see ``DenseExplorer.Settings``.

    Raises:
        HirelabError: for another network, and as `Explorer`.
    """

    title = "What is found, and from where"
    pictured = True
    given = MappingProxyType({"photograph": GIVEN})

    @dataclass(frozen=True)
    class Settings:
        photograph: str = choice(GIVEN, (GIVEN, *SCENES), "image")
        threshold: int = slider(50, 5, 95, "lowest score, %")
        target: int = choice(ALL, (ALL,), "class")
        row: int = slider(50, 0, 100, "row, %")
        column: int = slider(50, 0, 100, "column, %")
        stage: int = slider(1, 0, 3, "stage")

    def __init__(self, model: nn.Module | None = None, image: Any = None, **settings: Any) -> None:
        network = load_dense("scenes.mask_rcnn") if model is None else model
        if not isinstance(network, DenseNetwork):
            raise HirelabError(
                f"The network is a {type(network).__name__}; give one of hl.detector, "
                "hl.segmenter or hl.load_dense."
            )
        self._model = network
        self._find = lru_cache(maxsize=8)(self._found)
        self._maps = lru_cache(maxsize=8)(lambda name: stage_maps(network, self._shown(name)))
        self._speaks = lru_cache(maxsize=32)(self._attribution)
        super().__init__(None, image, **settings)

    def fitted(self, image: Any) -> Image.Image:
        """The image in its own proportions, no side above 640 pixels."""
        if image is None:
            return _scene(2)
        opened = open_image(image)
        opened.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BICUBIC)
        return opened

    def _show_image(self, image: Image.Image) -> None:
        super()._show_image(image)
        for kept in (self._find, self._maps, self._speaks):
            kept.cache_clear()

    def limits(self) -> dict[str, Any]:
        every = "all" if self.detects else "predicted"
        return {"target": {ALL: every, **dict(enumerate(self._model.classes))}}

    @property
    def detects(self) -> bool:
        """Whether the network finds objects, and not classes of pixels."""
        return bool(self._model.config["task"] == "detection")

    def idle(self, s: Settings) -> tuple[str, ...]:
        return () if self.detects else ("threshold",)

    # -- measured

    def _shown(self, name: str) -> Image.Image:
        return self._image if name == GIVEN else _scene(SCENES.index(name))

    def _found(self, name: str) -> Objects | PixelLabels:
        return predict(self._model, self._shown(name), threshold=LOWEST)

    def found(self, s: Settings | None = None) -> Objects | PixelLabels:
        """What is found on the image of the settings, by default of the current ones."""
        s = s or self.settings
        found = self._find(s.photograph)
        if isinstance(found, PixelLabels):
            return found
        return found.above(s.threshold / 100, None if s.target == ALL else [s.target])

    def _pixel(self, s: Settings) -> tuple[int, int]:
        """(row, column) of the chosen place, in pixels."""
        image = self._shown(s.photograph)
        return (
            round(s.row / 100 * (image.height - 1)),
            round(s.column / 100 * (image.width - 1)),
        )

    def _attribution(
        self, name: str, place: tuple[float, ...], target: int | None, stage: int
    ) -> tuple[Attribution, np.ndarray]:
        """What speaks for a class at a place, and its map over the image's own part."""
        seen = focus(self._model, place)
        x = normalise([self._shown(name)])
        module = self._model.backbone.body.feature_info.module_name()[stage]
        spoken = attribute(seen, x, target, f"network.{module}", method="hires_cam")
        part = image_part(spoken.maps, image_share(self._model, x))
        return spoken, upsample(part, x.shape[2:])[0]

    def measure(self, s: Settings) -> Seen:
        found, chosen = self.found(s), None
        strength = np.sqrt((self._maps(s.photograph)[s.stage] ** 2).mean(0))
        place: tuple[float, ...] = self._pixel(s)
        target: int | None = None if s.target == ALL else s.target
        if isinstance(found, Objects):
            chosen = found.at(*place)
            if chosen is None:
                return Seen(found, None, strength, None, None)
            height, width = found.image.shape[:2]
            box = np.clip(found.boxes[chosen], 0, [width, height, width, height])
            place, target = tuple(map(float, box)), int(found.labels[chosen])
        spoken, heat = self._speaks(s.photograph, place, target, s.stage)
        return Seen(found, chosen, strength, spoken, heat)

    # -- said

    def facts(self, s: Settings, measured: Seen) -> dict[str, Any]:
        found, spoken = measured.found, measured.speaks
        facts: dict[str, Any] = {"map": "{} x {}".format(*measured.strength.shape)}
        if isinstance(found, Objects):
            facts["objects"] = len(found)
        if spoken is None:
            return facts
        facts["shown_class"] = self._name_of(s, measured)
        if isinstance(found, Objects):
            facts["score"] = round(float(found.scores[measured.chosen]), 3)
            facts["box"] = [round(float(edge), 1) for edge in found.boxes[measured.chosen]]
        else:
            facts["probability"] = round(float(spoken.probabilities[0]), 3)
        facts["share_inside"] = round(self._inside(s, measured), 3)
        return facts

    def _name_of(self, s: Settings, measured: Seen) -> str:
        """What the chosen object or pixel is called."""
        spoken = measured.speaks
        return "it" if spoken is None else self._model.classes[int(spoken.targets[0])]

    def _inside(self, s: Settings, measured: Seen) -> float:
        """Of what speaks for the class, the share inside the box, or on pixels of that class."""
        assert measured.heat is not None
        assert measured.speaks is not None
        positive = np.maximum(measured.heat, 0)
        if isinstance(measured.found, Objects):
            x1, y1, x2, y2 = measured.found.boxes[measured.chosen]
            height, width = positive.shape
            rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
            inside = np.outer((y1 <= rows) & (rows <= y2), (x1 <= columns) & (columns <= x2))
        else:
            inside = measured.found.labels == int(measured.speaks.targets[0])
        return float(positive[inside].sum() / positive.sum()) if positive.any() else 0.0

    def words(self, s: Settings, measured: Seen) -> str:
        found = measured.found
        if isinstance(found, Objects) and measured.chosen is None:
            return "Nothing is found with that score: lower it, or choose another class."
        facts = self.facts(s, measured)
        name, inside = facts["shown_class"], facts["share_inside"]
        if isinstance(found, Objects):
            count = several(len(found), "object")
            return (
                f"With {s.threshold}% and more: {count}. The chosen one is a {name} with "
                f"{facts['score']:.0%}; {inside:.0%} of what speaks for it at stage {s.stage} lies "
                "inside its box."
            )
        row, column = self._pixel(s)
        return (
            f"Row {row}, column {column} is {name} with {facts['probability']:.0%}; of what speaks "
            f"for it at stage {s.stage}, {inside:.0%} lies on pixels that are called so."
        )

    def draw(self, s: Settings, measured: Seen) -> Image.Image:
        found = measured.found
        height, width = found.image.shape[:2]
        wide = min(_PANEL, round(_TALLEST * width / height))
        high = round(wide * height / width)
        canvas = Canvas(theme.WIDTH, _TOP + high + 66)
        kind = f"{self._model.config['kind']} on {self._model.config['backbone']}"
        canvas.text((6, 6), f"What {kind} finds", theme.TITLE, bold=True)
        note = self._note(s, measured)
        canvas.text((6, 38), note, theme.SMALL, theme.MUTED)
        boxes = [
            (left, _TOP, left + wide, _TOP + high)
            for left in (8 + i * (_PANEL + _GAP) for i in range(3))
        ]
        rows, columns = measured.strength.shape
        heads = (
            "found",
            f"stage {s.stage}: {rows} x {columns} tokens",
            f"what speaks for {self._name_of(s, measured)}, stage {s.stage}",
        )
        for box, head in zip(boxes, heads, strict=True):
            canvas.text((box[0], _TOP - 26), head, theme.SMALL, bold=True)
        if isinstance(found, Objects):
            found.draw(canvas, boxes[0], measured.chosen)
        else:
            found.draw(canvas, boxes[0])
            self._cross(canvas, s, boxes[0])
        canvas.draw_image(maps.heat(measured.strength), boxes[1])
        canvas.rect(boxes[1], outline=theme.LINE)
        low, top = measured.strength.min(), measured.strength.max()
        under = boxes[1][3] + 6
        words = f"size of a token, {low:.2g} to {top:.2g}"
        canvas.text((boxes[1][0], under), words, 15, theme.MUTED)
        self._draw_heat(canvas, s, measured, boxes[2])
        return canvas.image

    def _note(self, s: Settings, measured: Seen) -> str:
        trained = is_trained(self._model).trained
        note = "; the weights are untrained" if trained is False else ""
        found = measured.found
        if isinstance(found, Objects):
            return f"{several(len(found), 'object')} with a score of {s.threshold}% or more{note}"
        return f"{found}{note}"

    def _cross(self, canvas: Canvas, s: Settings, box: tuple[float, ...]) -> None:
        """Mark the chosen pixel."""
        left, top, right, bottom = box
        x = left + (right - left) * s.column / 100
        y = top + (bottom - top) * s.row / 100
        for color, width in ((theme.PAPER, 5), (theme.FOCUS, 3)):
            canvas.line([(max(left, x - 9), y), (min(right, x + 9), y)], color, width)
            canvas.line([(x, max(top, y - 9)), (x, min(bottom, y + 9))], color, width)

    def _draw_heat(
        self, canvas: Canvas, s: Settings, measured: Seen, box: tuple[float, float, float, float]
    ) -> None:
        if measured.heat is None:
            canvas.rect(box, fill=theme.UNREACHED, outline=theme.LINE)
            canvas.text((box[0] + 12, box[1] + 10), "nothing is found", theme.SMALL, theme.MUTED)
            return
        overlay.draw_overlay(canvas, measured.found.image, overlay.positive(measured.heat), box)
        if isinstance(measured.found, Objects):
            height, width = measured.found.image.shape[:2]
            across, down = (box[2] - box[0]) / width, (box[3] - box[1]) / height
            x1, y1, x2, y2 = measured.found.boxes[measured.chosen]
            edges = (box[0] + x1 * across, box[1] + y1 * down,
                     box[0] + x2 * across, box[1] + y2 * down)  # fmt: skip
            canvas.rect(edges, outline=theme.FOCUS, width=3)
        else:
            self._cross(canvas, s, box)
        under = box[3] + 8
        overlay.draw_bar(canvas, (box[0], under, box[2], under + 12), ("0", "highest"))


@cache
def _scene(index: int) -> Image.Image:
    """One of the generated scenes that no bundled network was trained on."""
    return open_boxes("scenes", "val").read(index)

"""NetworkExplorer: a whole network on one image, and any point of any block of it large."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from PIL import Image

from ..analysis.provenance import Provenance, provenance
from ..datasets.images import PHOTOGRAPHS
from ..datasets.transforms import normalise
from ..hooks.forward import class_name
from ..hooks.points import Cache, Point
from ..models.hire_mlp import BRANCHES, HireBlock
from ..models.wiring import wire
from ..viz import maps, network, theme
from ..viz.canvas import Box, Canvas
from .controls import Depends, choice, slider
from .inputs import GIVEN
from .network import ModelExplorer, magnitude
from .phrases import said_of_gate

_AXIS = ("shifted", "regions", "mixed", "out")
_POINTS = (
    "out",
    "hire.input",
    *(f"hire.{axis}.{leaf}" for axis in ("height", "width") for leaf in _AXIS),
    "hire.channel.out",
    "hire.fused",
    "hire.out",
    "mid",
    "mlp.out",
)
_ANSWERS = 5
_SIDE, _TOP = 286, 258  # of the lower panels, in logical pixels


@dataclass(frozen=True, eq=False)
class Seen:
    """What the explorer shows.

    Attributes:
        stages: for the overview.
        probabilities: (classes,), 0 to 1; empty where the network has no classes.
        point, values: the chosen point, and its map (rows, columns).
        weights: (C, branches) of the block's gate; (0, 0) where there is none.
        reaches: the pixels that reach the chosen position without the gate.
    """

    stages: list[network.StageView]
    probabilities: np.ndarray
    point: Point
    values: np.ndarray
    weights: np.ndarray
    reaches: Provenance


class NetworkExplorer(ModelExplorer):
    """A whole network at a glance, from left to right: what leaves every block, what its gate
    weighs, what is answered; and a chosen point large, with the pixels that reach one place of it.

    Every map shows the root mean square over channels on its own scale. What reaches a place is
    exact (`hirelab.provenance`, spatial paths: without the gates, which hear the whole image).

    Args:
        model: a Hire-MLP; by default the trained Hire-MLP-Pico with 200 classes. Untrained weights
            are noted in the figure.
        image: the reader's own, "the given one": a file, a tensor (3, H, W), a PIL image, an
            array, or a sample's name; the coffee cup by default.
        img_size: the side of the image in pixels; by default the one the network was made for.
        settings: see ``NetworkExplorer.Settings``; ``row`` and ``column`` count in the point's own
            grid, which of a region grid has a place for each region.
    """

    title = "The whole network"
    given = MappingProxyType({"photograph": GIVEN})

    @dataclass(frozen=True)
    class Settings:
        photograph: str = choice(GIVEN, (GIVEN, *PHOTOGRAPHS), "image")
        stage: int = slider(1, 0, 3, "stage")
        block: int = slider(1, 0, 23, "block")
        point: str = choice("out", _POINTS, "point")
        row: int = slider(4, 0, 55, "row")
        column: int = slider(4, 0, 55, "column")

    USUAL = "hire_mlp_pico.tinyimagenet"  # which knows what an espresso is
    KEPT = 6  # passes: whole ones, and of single blocks

    def limits(self) -> dict[str, Any]:
        closed = {f"hire.{name}" for name in BRANCHES if name not in self.branches}
        open_points = [name for name in _POINTS if name.rpartition(".")[0] not in closed]

        def last(axis: int) -> Depends:
            def limit(stage: int, block: int, point: str) -> int:
                return self._grids[f"stages.{stage}.blocks.{block}.{point}"][axis] - 1

            return Depends(("stage", "block", "point"), limit)

        return {**super().limits(), "point": open_points, "row": last(0), "column": last(1)}

    @cached_property
    def _grids(self) -> dict[str, tuple[int, int]]:
        """(rows, columns) of every point; no rearrangement of a built network changes them."""
        return wire(self._model, self.img_size).grids

    @property
    def gated(self) -> bool:
        """Whether the network's blocks have gates."""
        return cast(HireBlock, self._blocks(0)[0]).hire.gate is not None

    # -- measured

    def run(self, photograph: str, points: tuple[str, ...]) -> Cache:
        """The tensors of some points on an image, by its name."""
        x = normalise([self._shown(photograph)]).to(next(self._model.parameters()))
        return self.activations(x, list(points))

    def overview(self, photograph: str) -> tuple[list[network.StageView], np.ndarray]:
        """Every stage as the overview shows it, and the probabilities of the classes."""
        cache = self._read(photograph, self._outlined())
        stages = []
        for i in range(len(self._model.stages)):
            source = cache[f"stages.{i}.downsample.out" if i else "stem.out"]
            names = [f"stages.{i}.blocks.{j}" for j in range(len(self._blocks(i)))]
            shown = [magnitude(source), *(magnitude(cache[f"{name}.out"]) for name in names)]
            gates = [f"{name}.hire.gate.out" for name in names]
            shares = [
                cache[name][0].float().mean(0).cpu().numpy() if name in cache else np.zeros(0)
                for name in gates
            ]
            shape = " x ".join(map(str, source.shape[1:]))
            stages.append(network.StageView(f"stage {i}", shape, shown, shares))
        logits = cache["logits"]
        classes = bool(self._model.num_classes) and logits.dim() == 2
        return stages, logits[0].float().softmax(0).cpu().numpy() if classes else np.zeros(0)

    def _outlined(self) -> tuple[str, ...]:
        """The points of the overview, each by its name: a star would mean those inside, too."""
        names = ["stem.out", "logits"]
        for i in range(len(self._model.stages)):
            names += [f"stages.{i}.downsample.out"] if i else []
            for j in range(len(self._blocks(i))):
                block = f"stages.{i}.blocks.{j}"
                names += [f"{block}.hire.gate.out"] if self.gated else []
                names += [f"{block}.out"]
        return tuple(names)

    def measure(self, s: Settings) -> Seen:
        block = self.block_name(s)
        stages, probabilities = self.overview(s.photograph)
        cache = self._read(s.photograph, (f"{block}.*",))
        name, gate = f"{block}.{s.point}", f"{block}.hire.gate.out"
        weights = cache[gate][0].float().cpu().numpy() if gate in cache else np.zeros((0, 0))
        reaches = provenance(self._model, (s.row, s.column), name, "spatial", self.img_size)
        return Seen(
            stages, probabilities, cache.point(name), magnitude(cache[name]), weights, reaches
        )

    # -- said

    def facts(self, s: Settings, seen: Seen) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "at": self.block_name(s),
            "shape": " x ".join(map(str, seen.point.shape[1:])),
        }
        if seen.point.rearrangement is not None:
            r = seen.point.rearrangement
            facts |= {"region": r.region, "shift": r.shift}
        facts["reached_share"] = round(float(seen.reaches.pixels.mean()), 3)
        for name, weights in zip(self.branches, seen.weights.T, strict=False):
            facts[f"gate_{name}"] = round(float(weights.mean()), 3)
        if len(seen.probabilities):
            first = int(seen.probabilities.argmax())
            facts["answer"] = class_name(self._model, first)
            facts["probability"] = round(float(seen.probabilities[first]), 3)
        return facts

    def words(self, s: Settings, seen: Seen) -> str:
        facts = self.facts(s, seen)
        answer = (
            f"The network says {facts['answer']} with {facts['probability']:.0%}. "
            if "answer" in facts
            else ""
        )
        return (
            f"{answer}{facts['reached_share']:.0%} of the pixels can reach "
            f"{_kind(seen.point)} ({s.row}, {s.column}) of {self.block_name(s)}.{s.point} through "
            f"shifts and regions. {said_of_gate(seen.weights, self.branches)}"
        )

    # -- drawn

    def draw(self, s: Settings, seen: Seen) -> Image.Image:
        canvas = Canvas(theme.WIDTH, _TOP + _SIDE + 50)
        canvas.text((6, 6), self.block_name(s), theme.TITLE, bold=True)
        x = 6 + canvas.text_width(self.block_name(s), theme.TITLE, bold=True) + 16
        note = "every map: root mean square over channels, on its own scale"
        canvas.text((x, 11), note + self.untrained_note(), theme.SMALL, theme.MUTED)
        image, names = np.asarray(self._shown(s.photograph)), self.branches
        strip = (8, 46, 806, 46 + network.OVERVIEW_HEIGHT)
        network.draw_overview(canvas, strip, image, seen.stages, names, (s.stage, s.block))
        self._draw_answers(canvas, seen, (836, 64, theme.WIDTH - 8, 64 + _ANSWERS * 31))
        boxes = [(x, _TOP, x + _SIDE, _TOP + _SIDE) for x in (8.0, 332.0, 656.0)]
        self._draw_point(canvas, s, seen, boxes[0])
        self._draw_reached(canvas, s, seen, image, boxes[1])
        left, top, _, bottom = boxes[2]
        self._draw_gate(canvas, seen, (left, top, theme.WIDTH - 8, bottom))
        return canvas.image

    def _draw_answers(self, canvas: Canvas, seen: Seen, box: Box) -> None:
        left, top, _, _ = box
        canvas.text((left, top - 26), "what it says", theme.SMALL, bold=True)
        if not len(seen.probabilities):
            canvas.text((left, top), "this network has no classes", 15, theme.MUTED)
            return
        first = np.argsort(-seen.probabilities)[:_ANSWERS]
        words = [class_name(self._model, int(number)) for number in first]
        bottom = top + len(first) * 31
        shares = [float(seen.probabilities[number]) for number in first]
        network.draw_answers(canvas, (left, top, box[2], bottom), words, shares)

    def _draw_point(self, canvas: Canvas, s: Settings, seen: Seen, box: Box) -> None:
        place = f"{s.point}: {_kind(seen.point)} ({s.row}, {s.column})"
        canvas.text((box[0], box[1] - 28), place, theme.SMALL, bold=True)
        rows, columns = seen.values.shape
        cell = min((box[2] - box[0]) / columns, (box[3] - box[1]) / rows)
        area = (box[0], box[1], box[0] + columns * cell, box[1] + rows * cell)
        canvas.draw_image(maps.heat(seen.values), area)
        canvas.rect(area, outline=theme.LINE)
        _ring(canvas, area, (rows, columns), (s.row, s.column))
        r = seen.point.rearrangement
        lines = [" x ".join(map(str, seen.point.shape[1:])) + " numbers"]
        lines[0] += f", {seen.values.min():.2g} to {seen.values.max():.2g}"
        if r is not None:
            lines.append(f"regions of {r.region} along its {seen.point.axis}, shift {r.shift}")
        for number, line in enumerate(lines):
            y = _TOP + _SIDE + 6 + 20 * number
            canvas.text((box[0], y), line, 15, theme.MUTED)

    def _draw_reached(
        self, canvas: Canvas, s: Settings, seen: Seen, image: np.ndarray, box: Box
    ) -> None:
        canvas.text((box[0], box[1] - 28), "pixels that can reach it", theme.SMALL, bold=True)
        pixels = seen.reaches.pixels
        canvas.draw_image(network.reached_part(image, pixels), box)
        canvas.rect(box, outline=theme.LINE)
        if seen.point.kind == "token grid" and not seen.point.shifted:
            _ring(canvas, box, seen.values.shape, (s.row, s.column))
        gated = bool(len(seen.weights))
        words = f"{pixels.mean():.0%} of them by shifts and regions;"
        canvas.text((box[0], _TOP + _SIDE + 6), words, 15, theme.MUTED)
        words = "the gate brings a mean of all of them" if gated else "this network has no gate"
        canvas.text((box[0], _TOP + _SIDE + 26), words, 15, theme.MUTED)

    def _draw_gate(self, canvas: Canvas, seen: Seen, box: Box) -> None:
        left, top, _, bottom = box
        head = "hire.gate.out, channels sorted" if len(seen.weights) else "hire.gate.out"
        canvas.text((left, top - 28), head, theme.SMALL, bold=True)
        if not len(seen.weights):
            canvas.rect(box, fill=theme.UNREACHED, outline=theme.LINE)
            words = "no gate: the branches are added up"
            canvas.text((left + 12, top + 10), words, theme.SMALL, theme.MUTED)
            return
        maps.draw_gate(canvas, seen.weights, self.branches, box)
        canvas.text((left, bottom + 29), "mean weights over the channels", 15, theme.MUTED)
        x = left
        for name, share in zip(self.branches, seen.weights.mean(axis=0), strict=True):
            x = canvas.swatch((x, bottom + 6), theme.BRANCH[name], f"{name} {share:.0%}")


def _kind(point: Point) -> str:
    """What one place of a point's grid is."""
    return "region" if point.kind == "region grid" else "token"


def _ring(canvas: Canvas, area: Box, grid: tuple[int, ...], position: tuple[int, int]) -> None:
    """Mark one place of a grid."""
    left, top, right, bottom = area
    high, wide = (bottom - top) / grid[0], (right - left) / grid[1]
    y, x = top + position[0] * high, left + position[1] * wide
    around = (x - 2, y - 2, x + wide + 2, y + high + 2)
    canvas.rect(around, outline=theme.PAPER, width=5)
    canvas.rect(around, outline=theme.FOCUS, width=3)

"""What a pyramid gives to a detector or segmenter.

stage_effect   its figures without one stage's map
fields_beside  how wide each level sees, on the scale of the objects
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from .._shared.errors import HirelabError
from .._shared.tables import Records, table
from ..datasets.boxes import BoxedImages
from ..datasets.label_maps import LabelMaps
from ..results import Result
from .backbone import DenseNetwork
from .detection import Detector
from .evaluation import evaluate_detector, evaluate_segmenter
from .segmentation import Segmenter

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = ["StageEffect", "blurred_stage", "fields_beside", "stage_effect"]

STAGES = 4


@dataclass(frozen=True, eq=False, repr=False)
class StageEffect(Records, Result):
    """What is found where one stage's map no longer says of where anything is.

    Attributes:
        task: "detection" or "segmentation".
        columns: what was measured, in percent: of detection box AP over all sizes, of small objects
            (area below 32 squared) and of medium ones (below 96 squared); of segmentation the mean
            IoU and each class's.
        values: (1 + 4, columns); first of the whole network, then without stage 0 to 3; NaN where
            there is nothing of that kind.
        images: how many were evaluated.
    """

    task: str
    columns: list[str]
    values: np.ndarray
    images: int

    @property
    def rows(self) -> list[str]:
        return ["whole", *(f"without stage {i}" for i in range(STAGES))]

    def records(self) -> list[dict[str, Any]]:
        """A row for each network: its name, and a figure for each column."""
        return [
            {"network": name, **dict(zip(self.columns, map(float, row), strict=True))}
            for name, row in zip(self.rows, self.values, strict=True)
        ]

    def __str__(self) -> str:
        body = [
            (name, *("" if v != v else f"{v:.1f}" for v in row))
            for name, row in zip(self.rows, self.values, strict=True)
        ]
        said = f"{self.task} on {self.images:,} images, percent"
        return f"{said}\n{table([('', *self.columns), *body], 'lr')}"

    def plot(self) -> Figure:
        """Bars: a panel for each column, the whole network first."""
        from ..viz.dense import parts

        return parts(
            "without one stage's map", self.rows, self.columns, self.values,
            unit="box AP, %" if self.task == "detection" else "IoU, %", text=str(self),
        )  # fmt: skip


@contextmanager
def blurred_stage(model: DenseNetwork, stage: int) -> Iterator[None]:
    """While it lasts, the pyramid reads one stage's map as its mean over places.

    How strong each channel is stays known, where it is not. The stages after it are as before: the
    backbone itself goes on with the whole map.

    Args:
        stage: 0 to 3; 3 is the coarsest.

    Raises:
        HirelabError: there is no such stage.
    """
    if stage not in range(STAGES):
        raise HirelabError(f"stage is {stage!r}; give 0 (1/4 of the image) to 3 (1/32).")

    def blur(module: nn.Module, given: Any, maps: list[Tensor]) -> list[Tensor]:
        mean = maps[stage].mean((-2, -1), keepdim=True).expand_as(maps[stage])
        return [*maps[:stage], mean, *maps[stage + 1 :]]

    handle = model.backbone.register_forward_hook(blur)
    try:
        yield
    finally:
        handle.remove()


def stage_effect(
    model: DenseNetwork, images: BoxedImages | LabelMaps, *, progress: bool = True
) -> StageEffect:
    """Evaluate a network whole, and with each stage's map blurred away (`blurred_stage`).

    Args:
        images: of `open_boxes` for a detector, of `open_label_maps` for a segmenter.

    Raises:
        HirelabError: images of the other task, or as `evaluate_detector`, `evaluate_segmenter`.
    """
    values = [_figures(model, images, progress)]
    for stage in range(STAGES):
        with blurred_stage(model, stage):
            values.append(_figures(model, images, progress))
    return StageEffect(
        "detection" if isinstance(model, Detector) else "segmentation",
        list(values[0]),
        np.array([list(one.values()) for one in values]),
        len(images),
    )


def _figures(
    model: DenseNetwork, images: BoxedImages | LabelMaps, progress: bool
) -> dict[str, float]:
    if isinstance(model, Detector) and isinstance(images, BoxedImages):
        found = evaluate_detector(model, images, masks=False, progress=progress)
        return {"all": found.box["ap"], **{k: found.box[k] for k in ("small", "medium")}}
    if isinstance(model, Segmenter) and isinstance(images, LabelMaps):
        pixels = evaluate_segmenter(model, images, progress=progress)
        return {"mean": pixels.miou, **pixels.by_class()}
    raise HirelabError(
        f"The network is a {type(model).__name__} and the images are {type(images).__name__}; give "
        "a detector images of open_boxes, or a segmenter images of open_label_maps."
    )


def fields_beside(groups: Mapping[str, Mapping[str, Any]], images: BoxedImages) -> Figure:
    """Receptive fields on the scale of the objects that are to be found.

    Args:
        groups: {title: {map: field of `hl.receptive_field`}}, such as of the backbone's maps and of
            the pyramid's; read for its ``half_mass_side``, the side of the square that holds half
            of what a place hears.
        images: whose boxes are drawn as a histogram of their sides (the root of their area).

    Raises:
        HirelabError: no field, or no box.
    """
    from ..viz.dense import sides as draw

    boxes = np.array([
        ((one.box[2] - one.box[0]) * (one.box[3] - one.box[1])) ** 0.5
        for objects in images.objects for one in objects
    ])  # fmt: skip
    if not all([groups, *groups.values()]) or not boxes.size:
        raise HirelabError("There are no fields or no boxes; give at least one of each.")
    halves = {
        title: {name: float(field.half_mass_side) for name, field in fields.items()}
        for title, fields in groups.items()
    }
    rows = [
        (title, name, f"{side:g}", f"{(boxes < side).mean():.0%}")
        for title, sides in halves.items()
        for name, side in sides.items()
    ]
    head = ("", "map", "half-mass side, px", "boxes that are narrower")
    return draw(halves, boxes, unit="boxes", text=table([head, *rows], "llr"))

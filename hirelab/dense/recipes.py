"""What training a detector or segmenter does: the field's schedules, and small ones."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .._shared.errors import HirelabError
from ..training.recipes import PRECISIONS

__all__ = ["DENSE_PRESETS", "DenseRecipe"]

SCHEDULES = ("step", "poly")


@dataclass(frozen=True)
class DenseRecipe:
    """What a run does, besides network, data and seed. The defaults are detection's "1x".

    Attributes:
        epochs: passes over the training images.
        batch_size: images in one step, over all processes together.
        lr, weight_decay: of AdamW.
        schedule: "step": a tenth after each of ``milestones``; "poly": (1 - t) ** ``power``, t from
            0 to 1 over the run.
        milestones: shares of the run, from 0 to 1.
        warmup_steps: steps over which the rate rises linearly before.
        clip_grad: largest norm of all gradients together; 0 for no limit.
        sides: of detection: an image's shorter side is scaled to one of these, drawn anew each
            time; evaluation takes the last. ``max_side``: of its longer one, at most.
        proposals: of Mask R-CNN: regions of an image that are looked at in training, half as many
            in evaluation; ``samples``: those that its heads learn from.
        crop: of segmentation: side of the square that is cut out; 0: the whole image.
        scale: of segmentation: by how much an image is scaled before, smallest and largest.
        flip: mirror half of the images.
        jitter: strength of colour jitter, from 0 to 1.
        drop_path: highest rate of stochastic depth of the backbone.
        frozen_norm: see `Backbone`.
        precision: "no", "bf16" or "fp16".
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.

    Raises:
        HirelabError: a value out of its range.
    """

    epochs: int = 12
    batch_size: int = 16
    lr: float = 1e-4
    weight_decay: float = 0.05
    schedule: str = "step"
    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    power: float = 1.0
    warmup_steps: int = 500
    clip_grad: float = 0.0
    sides: tuple[int, ...] = (800,)
    max_side: int = 1333
    proposals: int = 2000
    samples: int = 512
    crop: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    jitter: float = 0.0
    drop_path: float = 0.1
    frozen_norm: bool = False
    precision: str = "bf16"
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)!r} and must be {cure}"
            for name, good, cure in (
                ("epochs", self.epochs >= 1, "at least 1"),
                ("batch_size", self.batch_size >= 1, "at least 1"),
                ("lr", self.lr > 0, "above 0"),
                ("schedule", self.schedule in SCHEDULES, " or ".join(SCHEDULES)),
                ("milestones", all(0 < m < 1 for m in self.milestones), "between 0 and 1"),
                ("sides", all(s >= 32 for s in self.sides) and self.sides, "at least 32 pixels"),
                ("max_side", self.max_side >= max(self.sides or (0,)), "no less than sides"),
                ("crop", self.crop == 0 or self.crop >= 32, "0, or at least 32 pixels"),
                (
                    "scale",
                    len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1],
                    "two, above 0, the smaller first",
                ),
                ("jitter", 0 <= self.jitter <= 1, "from 0 to 1"),
                ("precision", self.precision in PRECISIONS, "no, bf16 or fp16"),
                ("evaluate_every", self.evaluate_every >= 1, "at least 1"),
            )
            if not good
        ]
        if wrong:
            raise HirelabError("; ".join(wrong))

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0, of ``steps``."""
        done = step / steps
        if self.schedule == "poly":
            rate = self.lr * (1 - done) ** self.power
        else:
            rate = self.lr * 0.1 ** sum(done >= m for m in self.milestones)
        return rate * min(1.0, (step + 1) / (self.warmup_steps + 1))


_MANY = tuple(range(480, 801, 32))
_ADE20K = DenseRecipe(
    schedule="poly", batch_size=32, weight_decay=0.01, crop=512, jitter=0.5, drop_path=0.2,
    evaluate_every=10,
)  # fmt: skip

DENSE_PRESETS: dict[str, DenseRecipe] = {
    # Detection as mmdetection's 1x and 3x, with AdamW as PVT and Swin have it (the authors released
    # no configuration for detection).
    "1x": DenseRecipe(),
    "3x": dataclasses.replace(
        DenseRecipe(), epochs=36, milestones=(27 / 36, 33 / 36), sides=_MANY
    ),
    # The authors' configurations: 80,000 and 40,000 steps of 32 of ADE20K's 20,210 images.
    "ade20k-upernet": dataclasses.replace(_ADE20K, epochs=127, lr=1.2e-4, warmup_steps=800),
    "ade20k-fpn": dataclasses.replace(
        _ADE20K, epochs=63, lr=2e-4, weight_decay=0.05, power=0.9, warmup_steps=0, drop_path=0.1
    ),
    # Hundreds of small images on a few cores.
    "small": DenseRecipe(
        epochs=20, batch_size=4, lr=5e-4, schedule="poly", power=0.9, warmup_steps=50,
        clip_grad=5.0, sides=(160,), max_side=208, proposals=200, samples=64, crop=128,
        scale=(0.75, 1.5), jitter=0.3,
        drop_path=0.0, precision="no", evaluate_every=5,
    ),
}  # fmt: skip

"""What a training run does: the paper's recipe, smaller ones derived from it, and changes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._shared.errors import HirelabError, unknown

__all__ = ["PRESETS", "Recipe", "preset", "table"]


@dataclass(frozen=True)
class Recipe:
    """What a training run does, besides network, data and seed. The defaults are the paper's.

    Source: arXiv 2108.13341 v1 section 4.1 and the authors' training command. Where these differ
    (batch and learning rate of Tiny, drop path), the paper's text is taken; see `PRESETS`.

    Attributes:
        epochs, warmup_epochs, cooldown_epochs: the learning rate rises linearly over the warm-up,
            falls as a cosine until ``epochs`` and stays at ``min_lr`` for the cool-down after them.
        batch: images a step, over all processes together.
        lr, min_lr, warmup_lr, weight_decay: of AdamW.
        size: pixels a side, at the end of training and in validation.
        start_size: pixels a side at first, from where it grows (see `size_at`); 0: ``size``.
        crop: share of a validation image's side that the network sees, as timm's crop_pct.
        scale: smallest share of an image's area that a training crop keeps.
        repeats: repeated augmentation (Hoffer et al. 2020): how often an image comes in a batch.
        augment, color_jitter, erase: timm's RandAugment string, and strengths; "" and 0 for none.
        mixup, cutmix, mix_probability, smoothing: alphas of the two, how often either, and label
            smoothing.
        drop_path: highest rate of stochastic depth.
        ema: decay of the averaged weights that are validated and kept; 0 for none.
        precision: "no", "bf16" or "fp16" for mixed precision.
        compile: run the network through torch.compile.
        evaluate_every: epochs between validations; the last epoch is always validated.
    """

    epochs: int = 300
    warmup_epochs: int = 20
    cooldown_epochs: int = 10
    batch: int = 1024
    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    weight_decay: float = 0.05
    size: int = 224
    start_size: int = 0
    crop: float = 0.875
    scale: float = 0.08
    repeats: int = 3
    augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    erase: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mix_probability: float = 1.0
    smoothing: float = 0.1
    drop_path: float = 0.0
    ema: float = 0.0
    precision: str = "bf16"
    compile: bool = False
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {value!r} and must be {cure}"
            for name, value, good, cure in (
                ("epochs", self.epochs, self.epochs >= 1, "at least 1"),
                ("batch", self.batch, self.batch >= 2, "at least 2, for BatchNorm and mixup"),
                ("lr", self.lr, self.lr > 0, "above 0"),
                ("size", self.size, self.size >= 32, "at least 32 pixels"),
                ("crop", self.crop, 0 < self.crop <= 1, "above 0 and at most 1"),
                ("scale", self.scale, 0 < self.scale <= 1, "above 0 and at most 1"),
                ("repeats", self.repeats, self.repeats >= 1, "at least 1"),
                ("ema", self.ema, 0 <= self.ema < 1, "from 0 to below 1"),
                ("precision", self.precision, self.precision in PRECISIONS, "no, bf16 or fp16"),
            )
            if not good
        ]
        if wrong:
            raise HirelabError("; ".join(wrong))

    @property
    def total_epochs(self) -> int:
        """Epochs with the cool-down."""
        return self.epochs + self.cooldown_epochs

    @property
    def stored_size(self) -> int:
        """Side of the decoded squares: the validation crop is their middle, without resizing."""
        return round(self.size / self.crop)

    def size_at(self, epoch: int) -> int:
        """Pixels a side in an epoch: three steps from ``start_size`` to ``size``.

        Six tenths of the epochs at the first size, three half-way, the last at the full one: early
        epochs learn as much from fewer pixels. Multiples of 32, the network's stride.
        """
        first = self.start_size or self.size
        done = epoch / self.epochs
        share = 0 if done < 0.6 else 0.5 if done < 0.9 else 1
        return self.size if share == 1 else round((first + share * (self.size - first)) / 32) * 32

    def differences(self, other: Recipe | None = None) -> dict[str, tuple[Any, Any]]:
        """{setting: (the other's value, this one's)}; the other is by default the paper's."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other or PRESETS["imagenet"])
        return {k: (theirs[k], v) for k, v in mine.items() if v != theirs[k]}


PRECISIONS = ("no", "bf16", "fp16")

PRESETS: dict[str, Recipe] = {
    "imagenet": (_paper := Recipe()),
    # Tiny with the authors' command instead of the paper's text: 8 GPUs with 256 images each.
    "imagenet-authors-tiny": dataclasses.replace(_paper, batch=2048, lr=2e-3),
    # A hundredth of the images: smaller batches for as many steps, crops that keep more of the
    # object, milder augmentation because the network is small and sees few epochs, averaged weights
    # instead of a long cool-down. 64 to 128 pixels, which two cores can train in two hours.
    "subset": (
        _subset := dataclasses.replace(
            _paper,
            epochs=80,
            warmup_epochs=4,
            cooldown_epochs=0,
            batch=64,
            size=128,
            start_size=64,
            scale=0.3,
            repeats=1,
            augment="rand-m6-n1-mstd0.5-inc1",
            erase=0.0,
            mixup=0.2,
            mix_probability=0.7,
            drop_path=0.05,
            ema=0.999,
            evaluate_every=5,
        )
    ),
    "subset-long": dataclasses.replace(_subset, epochs=300, warmup_epochs=10, drop_path=0.1),
    # A few minutes, to see the loop at work.
    "quick": dataclasses.replace(
        _subset, epochs=3, warmup_epochs=1, size=64, start_size=0, precision="no", evaluate_every=1
    ),
}


def preset(name: str, changes: Sequence[str] = ()) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of `PRESETS` with changes "NAME=VALUE"; and the network's, "model.NAME=VALUE".

    Values are Python literals; what is none is a string.

    Raises:
        HirelabError: an unknown preset or setting (with near names), a value of the wrong type.
    """
    if name not in PRESETS:
        raise HirelabError(unknown("preset", name, PRESETS, f"There are {', '.join(PRESETS)}."))
    recipe: dict[str, Any] = {}
    network: dict[str, Any] = {}
    types = {f.name: type(getattr(PRESETS[name], f.name)) for f in dataclasses.fields(Recipe)}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise HirelabError(f"--set takes NAME=VALUE, not {change!r}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if key.startswith("model."):
            network[key.removeprefix("model.")] = value
            continue
        if key not in types:
            raise HirelabError(unknown("setting", key, types, f"A recipe has {', '.join(types)}."))
        if types[key] is float and type(value) is int:
            value = float(value)
        if type(value) is not types[key]:
            raise HirelabError(f"{key} is {value!r} and must be a {types[key].__name__}")
        recipe[key] = value
    return dataclasses.replace(PRESETS[name], **recipe), network


def table() -> str:
    """The paper's recipe, and of every other preset the settings that differ, a column each."""
    names = list(PRESETS)
    rows = [["", *names]]
    for f in dataclasses.fields(Recipe):
        values = [getattr(one, f.name) for one in PRESETS.values()]
        shown = [str(v) if v != "" else "none" for v in values]
        rest = ["" if v == values[0] else text for v, text in zip(values, shown, strict=True)]
        rows.append([f.name, shown[0], *rest[1:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)

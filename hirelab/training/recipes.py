"""What a training run does: the paper's recipe, smaller ones derived from it, and changes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .._shared import tables
from .._shared.errors import HirelabError, unknown

__all__ = ["PRESETS", "Recipe", "changed", "preset", "stored_size", "table"]


RecipeType = TypeVar("RecipeType")
PRECISIONS = ("no", "bf16", "fp16")
NOT_NEGATIVE = (
    "warmup_epochs", "cooldown_epochs", "min_lr", "warmup_lr", "weight_decay", "color_jitter",
    "mixup", "cutmix",
)  # fmt: skip
PROBABILITIES = ("reprob", "mixup_prob", "smoothing")


@dataclass(frozen=True)
class Recipe:
    """What a training run does, besides network, data and seed. The defaults are the paper's.

    Source: arXiv 2108.13341 v1 section 4.1 and the authors' training command. Where these differ
    (batch size and learning rate of Tiny, drop path), the paper's text is taken; see `PRESETS`.
    Settings have the names that timm's training script and its parts give them.

    Attributes:
        epochs, warmup_epochs, cooldown_epochs: the learning rate rises linearly over the warm-up,
            falls as a cosine until ``epochs`` and stays at ``min_lr`` for the cool-down after them.
        batch_size: images in one step, over all processes together.
        lr, min_lr, warmup_lr, weight_decay: of AdamW.
        img_size: side in pixels, at the end of training and in validation.
        start_img_size: side at first, from where it grows (see `img_size_at`); 0: ``img_size``.
        crop_pct: share of a validation image's side that the network sees, above 0 to 1.
        scale: smallest share of an image's area that a training crop keeps, above 0 to 1.
        aug_repeats: repeated augmentation (Hoffer et al. 2020): how often an image comes in a
            batch.
        auto_augment: timm's string for RandAugment; "" for none.
        color_jitter, reprob: strength of colour jitter, probability of random erasing; 0 for none.
        mixup, cutmix, mixup_prob, smoothing: alphas of the two, probability of applying either,
            and label smoothing.
        drop_path: highest rate of stochastic depth.
        ema_decay: of the averaged weights that are validated and kept; 0 for no averaging.
        precision: "no", "bf16" or "fp16" for mixed precision.
        compile: run the network through torch.compile.
        evaluate_every: epochs between validations; the last epoch is always validated.

    Raises:
        HirelabError: a value out of its range.
    """

    epochs: int = 300
    warmup_epochs: int = 20
    cooldown_epochs: int = 10
    batch_size: int = 1024
    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup_lr: float = 1e-6
    weight_decay: float = 0.05
    img_size: int = 224
    start_img_size: int = 0
    crop_pct: float = 0.875
    scale: float = 0.08
    aug_repeats: int = 3
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.4
    reprob: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    mixup_prob: float = 1.0
    smoothing: float = 0.1
    drop_path: float = 0.0
    ema_decay: float = 0.0
    precision: str = "bf16"
    compile: bool = False
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)!r} and must be {cure}"
            for name, good, cure in (
                ("epochs", self.epochs >= 1, "at least 1"),
                ("batch_size", self.batch_size >= 2, "at least 2, for BatchNorm and mixup"),
                *((name, getattr(self, name) >= 0, "at least 0") for name in NOT_NEGATIVE),
                *((name, 0 <= getattr(self, name) <= 1, "from 0 to 1") for name in PROBABILITIES),
                ("lr", self.lr > 0, "above 0"),
                ("img_size", self.img_size >= 32, "at least 32 pixels"),
                (
                    "start_img_size",
                    self.start_img_size == 0 or 32 <= self.start_img_size <= self.img_size,
                    f"0, or from 32 to img_size ({self.img_size}) pixels",
                ),
                ("drop_path", 0 <= self.drop_path < 1, "from 0 to below 1"),
                ("crop_pct", 0 < self.crop_pct <= 1, "above 0 and at most 1"),
                ("scale", 0 < self.scale <= 1, "above 0 and at most 1"),
                ("aug_repeats", self.aug_repeats >= 1, "at least 1"),
                ("ema_decay", 0 <= self.ema_decay < 1, "from 0 to below 1"),
                ("precision", self.precision in PRECISIONS, "no, bf16 or fp16"),
                ("evaluate_every", self.evaluate_every >= 1, "at least 1"),
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
        """Side of the decoded images: the validation crop is their middle, without resizing."""
        return stored_size(self.img_size, self.crop_pct)

    def img_size_at(self, epoch: int) -> int:
        """Side in pixels in an epoch: three steps from ``start_img_size`` to ``img_size``.

        Six tenths of the epochs at the first size, three half-way, the last at the full one: early
        epochs learn as much from fewer pixels. Multiples of 32, the network's stride.
        """
        last = self.img_size
        first = self.start_img_size or last
        done = epoch / self.epochs
        share = 0 if done < 0.6 else 0.5 if done < 0.9 else 1
        return last if share == 1 else round((first + share * (last - first)) / 32) * 32

    def differences(self, other: Recipe | None = None) -> dict[str, tuple[Any, Any]]:
        """{setting: (the other's value, this one's)}; the other is by default the paper's."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other or PAPER)
        return {k: (theirs[k], v) for k, v in mine.items() if v != theirs[k]}


def stored_size(img_size: int, crop_pct: float) -> int:
    """Side of decoded images whose middle ``img_size`` pixels are the share ``crop_pct``."""
    return round(img_size / crop_pct)


PAPER = Recipe()

# A hundredth of the images: smaller batches for as many steps, crops that keep more of the object,
# milder augmentation because the network is small and sees few epochs, averaged weights instead of
# a long cool-down. 64 to 128 pixels, which two cores can train in two hours.
SUBSET = dataclasses.replace(
    PAPER,
    epochs=80,
    warmup_epochs=4,
    cooldown_epochs=0,
    batch_size=64,
    img_size=128,
    start_img_size=64,
    scale=0.3,
    aug_repeats=1,
    auto_augment="rand-m6-n1-mstd0.5-inc1",
    reprob=0.0,
    mixup=0.2,
    mixup_prob=0.7,
    drop_path=0.05,
    ema_decay=0.999,
    evaluate_every=5,
)

# A few minutes, to see the loop at work.
QUICK = dataclasses.replace(
    SUBSET,
    epochs=3,
    warmup_epochs=1,
    img_size=64,
    start_img_size=0,
    precision="no",
    evaluate_every=1,
)

PRESETS: dict[str, Recipe] = {
    "imagenet": PAPER,
    # Tiny with the authors' command instead of the paper's text: 8 GPUs with 256 images each.
    "imagenet-authors-tiny": dataclasses.replace(PAPER, batch_size=2048, lr=2e-3),
    "subset": SUBSET,
    "subset-long": dataclasses.replace(SUBSET, epochs=300, warmup_epochs=10, drop_path=0.1),
    "quick": QUICK,
}


def preset(name: str, changes: Sequence[str] = ()) -> tuple[Recipe, dict[str, Any]]:
    """A recipe of `PRESETS` with changes "NAME=VALUE"; and the network's, "model.NAME=VALUE".

    Values are Python literals; what is not one is taken as a string.

    Raises:
        HirelabError: an unknown preset or setting (with near names), a value of the wrong type.
    """
    return changed(PRESETS, name, changes)


def changed(
    presets: Mapping[str, RecipeType], name: str, changes: Sequence[str]
) -> tuple[RecipeType, dict[str, Any]]:
    """`preset` among others than `PRESETS`: of any frozen dataclass with a default for each field.

    Raises:
        HirelabError: as `preset`.
    """
    if name not in presets:
        raise HirelabError(unknown("preset", name, presets, f"There are {', '.join(presets)}."))
    recipe: dict[str, Any] = {}
    network: dict[str, Any] = {}
    found: Any = presets[name]
    types = {f.name: type(getattr(found, f.name)) for f in dataclasses.fields(found)}
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
        if types[key] is tuple:
            value = _several(key, value, getattr(found, key))
        if type(value) is not types[key]:
            raise HirelabError(f"{key} is {value!r} and must be of type {types[key].__name__}")
        recipe[key] = value
    return dataclasses.replace(found, **recipe), network


def _several(key: str, value: Any, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a setting that has several; one alone is a tuple of one."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    kind = type(default[0])
    if kind is float:
        values = tuple(float(one) if type(one) is int else one for one in values)
    if any(type(one) is not kind for one in values):
        raise HirelabError(
            f"{key} is {value!r} and must be of type {kind.__name__}, or several with commas "
            f"between: {key}={','.join(map(str, default))}"
        )
    return values


def table() -> str:
    """The paper's recipe, and of every other preset the settings that differ, one column each."""
    rows = [["", *PRESETS]]
    for f in dataclasses.fields(Recipe):
        first, *rest = (getattr(recipe, f.name) for recipe in PRESETS.values())
        rows.append([f.name, _shown(first), *("" if v == first else _shown(v) for v in rest)])
    return tables.table(rows)


def _shown(value: Any) -> str:
    return "none" if value == "" else str(value)

"""One training loop, short enough to read: Accelerate runs it anywhere, timm brings the parts.

    Recipe, PRESETS   what a run does; `imagenet` is the paper's, the others say how they differ
    train             runs a recipe, or goes on with one that was stopped
    evaluate          accuracy of a network on the validation pictures

**Randomness is a function of the seed and of a position, and of nothing else.** The order of an
epoch follows from (seed, epoch), the augmentation of a picture from (seed, epoch, place in that
order), mixup and drop path from (seed, step, process). So a run needs no state of a random
generator to go on after a stop, and the number of worker processes changes nothing.

**Batches are global.** A step takes `Recipe.batch` pictures over all processes together; process r
of n takes every n-th of them. The effective batch is kept on any number of processes, and with
synchronised BatchNorm so is the function that is trained.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin
from PIL import Image
from safetensors.torch import save_file
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ._files import UserError, atomic, write_atomic
from ._names import unknown
from .datasets.cache import Squares, decoded
from .datasets.samples import IMAGENET_MEAN, IMAGENET_STD
from .datasets.subsets import open_pictures
from .results import Result, versions
from .sync_norm import synchronise

__all__ = ["PRESETS", "Evaluation", "Recipe", "evaluate", "history", "preset", "train"]


# --- the recipe --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What a training run does, besides network, data and seed. The defaults are the paper's.

    Source: arXiv 2108.13341 v1 section 4.1 and the authors' training command. Where these differ
    (batch and learning rate of Tiny, drop path), the paper's text is taken; see `PRESETS`.

    Attributes:
        epochs, warmup_epochs, cooldown_epochs: the learning rate rises linearly over the warm-up,
            falls as a cosine until ``epochs`` and stays at ``min_lr`` for the cool-down after them.
        batch: pictures a step, over all processes together.
        lr, min_lr, warmup_lr, weight_decay: of AdamW.
        size: pixels a side, at the end of training and in validation.
        start_size: pixels a side at the beginning, from where it grows (see `size_at`); 0: ``size``.
        crop: share of a validation picture's side that the network sees, as timm's crop_pct.
        scale: smallest share of a picture's area that a training crop keeps.
        repeats: repeated augmentation (Hoffer et al. 2020): how often a picture comes in a batch.
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
            raise UserError("; ".join(wrong))

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

        Half of the epochs at the first size, three tenths half-way, the last fifth at the full
        one: early epochs learn as much from fewer pixels. Multiples of 32, the network's stride.
        """
        first = self.start_size or self.size
        done = epoch / self.epochs
        share = 0 if done < 0.5 else 0.5 if done < 0.8 else 1
        return self.size if share == 1 else round((first + share * (self.size - first)) / 32) * 32

    def differences(self, other: Recipe | None = None) -> dict[str, tuple[Any, Any]]:
        """{setting: (the other's value, this one's)}; the other is by default the paper's."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other or PRESETS["imagenet"])
        return {k: (theirs[k], v) for k, v in mine.items() if v != theirs[k]}


PRECISIONS = ("no", "bf16", "fp16")

PRESETS: dict[str, Recipe] = {
    "imagenet": (_paper := Recipe()),
    # Tiny with the authors' command instead of the paper's text: 8 GPUs with 256 pictures each.
    "imagenet-authors-tiny": dataclasses.replace(_paper, batch=2048, lr=2e-3),
    # A hundredth of the pictures: smaller batches for as many steps, crops that keep more of the
    # object, milder augmentation because the network is small and sees few epochs, averaged weights
    # instead of a long cool-down. 64 to 128 pixels, which two cores can train in two hours.
    "subset": (
        _subset := dataclasses.replace(
            _paper,
            epochs=100,
            warmup_epochs=5,
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
        UserError: an unknown preset or setting (with near names), a value of the wrong type.
    """
    if name not in PRESETS:
        raise UserError(unknown("preset", name, PRESETS, f"There are {', '.join(PRESETS)}."))
    recipe: dict[str, Any] = {}
    network: dict[str, Any] = {}
    types = {f.name: type(getattr(PRESETS[name], f.name)) for f in dataclasses.fields(Recipe)}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise UserError(f"--set takes NAME=VALUE, not {change!r}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if key.startswith("model."):
            network[key.removeprefix("model.")] = value
            continue
        if key not in types:
            raise UserError(unknown("setting", key, types, f"A recipe has {', '.join(types)}."))
        if types[key] is float and type(value) is int:
            value = float(value)
        if type(value) is not types[key]:
            raise UserError(f"{key} is {value!r} and must be a {types[key].__name__}")
        recipe[key] = value
    return dataclasses.replace(PRESETS[name], **recipe), network


# --- data --------------------------------------------------------------------------------------


def _seed(*position: int) -> int:
    """A number for `_at` from a position, such as (seed, epoch, place)."""
    return int(np.random.SeedSequence(position).generate_state(1)[0])


def _at(number: int) -> None:
    """Set every random generator that timm's parts draw from on the CPU."""
    random.seed(number)
    np.random.seed(number)
    # not torch.manual_seed, which also keeps a note for every kind of accelerator that is not in
    # use, with a stack trace: 0.7 ms, and memory that grows
    torch.default_generator.manual_seed(number)


class _Augmented(Dataset):
    """Augmented pictures by (epoch, place in the epoch's order, index of the picture)."""

    def __init__(self, squares: Squares, recipe: Recipe, seed: int) -> None:
        self.squares, self.recipe, self.seed = squares, recipe, seed
        self._transforms: dict[int, Any] = {}

    def _transform(self, size: int):
        if size not in self._transforms:
            self._transforms[size] = create_transform(
                size,
                is_training=True,
                use_prefetcher=True,  # bytes come out; the batch is normalised at once
                scale=(self.recipe.scale, 1.0),
                auto_augment=self.recipe.augment or None,
                color_jitter=self.recipe.color_jitter or None,
                interpolation="bicubic",
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
            )
        return self._transforms[size]

    def __getitem__(self, where: tuple[int, int, int]) -> tuple[Tensor, int]:
        epoch, place, index = where
        _at(_seed(self.seed, epoch, place))
        picture = Image.fromarray(self.squares.pixels[index])
        return self._transform(self.recipe.size_at(epoch))(picture), int(self.squares.labels[index])

    def __len__(self) -> int:
        return len(self.squares)


class _Order:
    """Batches of `_Augmented`'s keys: an epoch's order, from a step on, one process's share."""

    def __init__(self, count: int, recipe: Recipe, seed: int, rank: int = 0, world: int = 1):
        self.count, self.recipe, self.seed, self.rank, self.world = count, recipe, seed, rank, world
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return self.count // self.recipe.batch

    def order(self) -> np.ndarray:
        """Indices of the epoch's pictures: as many as there are, each ``repeats`` times running."""
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return np.repeat(shuffled, self.recipe.repeats)[: self.count]

    def batch(self, step: int) -> list[tuple[int, int, int]]:
        """The keys of one batch, of all processes."""
        start = step * self.recipe.batch
        chosen = self.order()[start : start + self.recipe.batch]
        return [(self.epoch, start + i, int(index)) for i, index in enumerate(chosen)]

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        order, size = self.order(), self.recipe.batch
        for step in range(self.first, len(self)):
            start = step * size
            places = range(start + self.rank, start + size, self.world)
            yield [(self.epoch, place, int(order[place])) for place in places]


def _together(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])


def _normalised(x: Tensor) -> Tensor:
    """Bytes (N, 3, H, W) as a network takes them."""
    mean, std = (x.new_tensor(v, dtype=torch.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (x.float() / 255 - mean[:, None, None]) / std[:, None, None]


# --- evaluation --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Evaluation(Result):
    """What a network says about labelled pictures.

    Attributes:
        classes: names of the classes, in words.
        labels: (N,), the right class of every picture.
        probabilities: float32 (N, classes).
        size: pixels a side. data: fingerprint of the pictures. skipped: how many were unreadable.
    """

    classes: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    size: int
    data: str
    skipped: int = 0

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of every picture, (N,)."""
        return self.probabilities.argmax(1)

    def top(self, k: int = 1) -> float:
        """Share of pictures whose class is among the ``k`` most probable, in percent."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return 100 * float(((self.probabilities > own[:, None]).sum(1) < k).mean())

    @property
    def loss(self) -> float:
        """Mean negative logarithm of the right class's probability, in nats."""
        own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(own, 1e-12)).mean())

    def confusion(self) -> np.ndarray:
        """Counts (right class, predicted class)."""
        table = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(table, (self.labels, self.predicted), 1)
        return table

    def by_class(self) -> dict[str, float]:
        """Accuracy on the pictures of each class, in percent."""
        table = self.confusion()
        shares = 100 * np.diag(table) / np.maximum(table.sum(1), 1)
        return {name: float(share) for name, share in zip(self.classes, shares, strict=True)}

    def calibration(self, bins: int = 15) -> float:
        """Expected calibration error in percent (Guo et al. 2017, eq. 3): the mean gap between
        confidence and accuracy over equally wide bins of confidence."""
        sure = self.probabilities.max(1)
        right = self.predicted == self.labels
        place = np.minimum((sure * bins).astype(int), bins - 1)
        gaps = [abs((sure[place == b] - right[place == b]).sum()) for b in range(bins)]
        return 100 * float(sum(gaps)) / len(sure)

    def __str__(self) -> str:
        return (
            f"top-1 {self.top(1):.2f} %, top-5 {self.top(5):.2f} % on {len(self.labels):,} "
            f"pictures at {self.size} x {self.size}; loss {self.loss:.3f}, "
            f"calibration error {self.calibration():.1f} %"
        )


@torch.no_grad()
def evaluate(model: nn.Module, squares: Squares, size: int, batch: int = 128) -> Evaluation:
    """Classify the middle of every square, ``size`` pixels a side, in float32.

    The network is left in the mode (training or not) in which it came.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    stored = squares.pixels.shape[1]
    if size > stored:
        raise UserError(f"the stored squares are {stored} pixels wide and size is {size}")
    start = round((stored - size) / 2)
    found = []
    try:
        for first in range(0, len(squares), batch):
            cut = squares.pixels[first : first + batch, start : start + size, start : start + size]
            x = torch.from_numpy(np.ascontiguousarray(cut)).permute(0, 3, 1, 2).to(device)
            found.append(model(_normalised(x)).float().softmax(1).cpu().numpy())
    finally:
        model.train(training)
    return Evaluation(
        squares.pictures.words(),
        squares.labels,
        np.concatenate(found),
        size,
        squares.pictures.fingerprint,
        len(squares.skipped),
    )


# --- training ----------------------------------------------------------------------------------


@dataclass
class _State:
    """What a checkpoint holds besides tensors. ``step`` counts the steps taken, over all epochs."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """Where a run stands after `train`: its folder, the history's rows, and whether it is done."""

    out: Path
    history: list[dict[str, float]]
    done: bool


def train(
    model: str,
    data: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    model_arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int = 0,
    part: int = 0,
    save_minutes: float = 5.0,
    stop_after: int = 0,
    tensorboard: bool = False,
    command: str = "",
) -> Run:
    """Train ``model`` (any of timm's, ours among them) on ``data``, into the folder ``out``.

    Called again with the same arguments it goes on from the last checkpoint, and on CPU ends with
    the same weights, bit for bit, as a run that was never stopped. ``out`` holds

        run.json           what was asked for, on what machine and versions
        history.jsonl      a row an epoch: loss, accuracy, learning rate, pictures a second
        checkpoint.pt      to go on from; written after each epoch and every ``save_minutes``
        model.safetensors  at the end: the weights (averaged ones, where the recipe averages)
        evaluation.npz     at the end: an `Evaluation` of them

    Args:
        model: a network's name; ``model_arguments`` go to it besides classes and drop path.
        data: see `datasets.subsets.open_pictures`; it has the splits train and val.
        workers: processes that load pictures; on a CPU, 0 is fastest.
        part: pictures a process computes at once; a share that is larger is taken in parts, whose
            gradients are added up. 0: the whole share. BatchNorm sees one part at a time.
        stop_after: stop, with a checkpoint, after so many steps of this call; 0 for never.
        tensorboard: also write the history for TensorBoard, into ``out``.
        command: written into run.json.

    Raises:
        UserError: what the user can put right: data, a folder that holds another run, a batch that
            does not divide over the processes, a loss that is not finite, a full disk.
    """
    out = Path(out)
    # one graph a size: shapes that vary make slower code, and there are three sizes at most
    compiler = TorchDynamoPlugin(backend="inductor" if recipe.compile else "no", dynamic=False)
    accelerator = Accelerator(mixed_precision=recipe.precision, dynamo_plugin=compiler)
    rank, world = accelerator.process_index, accelerator.num_processes
    if recipe.batch % world:
        raise UserError(
            f"a batch of {recipe.batch} does not divide over {world} processes: choose a multiple"
        )
    with accelerator.main_process_first():  # which decodes, while the others wait and then read
        train_set, val_set = _open(data, recipe, accelerator.is_main_process)
    steps = len(train_set) // recipe.batch
    if not steps:
        raise UserError(
            f"{len(train_set)} training pictures do not fill a batch of {recipe.batch}: lower it"
        )
    asked = {
        "model": model,
        "model_arguments": dict(model_arguments or {}),
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "classes": list(train_set.pictures.classes),
        "data": {"train": train_set.pictures.fingerprint, "val": val_set.pictures.fingerprint},
        "pictures": {"train": len(train_set), "val": len(val_set)},
        "skipped": {**train_set.skipped, **val_set.skipped},
    }
    resuming = _claim(out, asked, command, world) if accelerator.is_main_process else False
    accelerator.wait_for_everyone()

    _at(_seed(seed))
    net = _build(model, len(train_set.pictures.classes), recipe, model_arguments or {})
    if world > 1:
        net = synchronise(net, accelerator.device)
    optimizer = create_optimizer_v2(
        net, "adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, eps=1e-8, foreach=True
    )
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        cooldown_epochs=recipe.cooldown_epochs,
        min_lr=recipe.min_lr,
        warmup_lr=recipe.warmup_lr,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    net = net.to(accelerator.device)
    average = ModelEmaV3(net, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    prepared, prepared_optimizer = accelerator.prepare(net, optimizer)
    mix = Mixup(
        recipe.mixup,
        recipe.cutmix,
        prob=recipe.mix_probability if recipe.mixup or recipe.cutmix else 0.0,
        label_smoothing=recipe.smoothing,
        num_classes=len(train_set.pictures.classes),
    )
    erase = RandomErasing(recipe.erase, mode="pixel", device=accelerator.device)
    criterion = SoftTargetCrossEntropy()

    tensors = {"model": net, "optimizer": prepared_optimizer}
    if average:
        tensors["average"] = average.module
    if accelerator.scaler is not None:
        tensors["scaler"] = accelerator.scaler
    checkpoint = out / "checkpoint.pt"
    state = _restore(checkpoint, tensors) if checkpoint.exists() else _State()
    if state.step and accelerator.is_main_process:
        print(f"going on after step {state.step:,} of {steps * recipe.total_epochs:,}", flush=True)
    elif resuming:
        print("no checkpoint was reached before the stop: starting again", flush=True)

    def save() -> None:
        if accelerator.is_main_process:
            _save(checkpoint, tensors, state)
            rows = "".join(json.dumps(row) + "\n" for row in state.history)
            write_atomic(out / "history.jsonl", rows)

    order = _Order(len(train_set), recipe, seed, rank, world)
    loader = DataLoader(
        _Augmented(train_set, recipe, seed),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_together,
        pin_memory=accelerator.device.type == "cuda",
    )
    taken, saved = 0, time.monotonic()
    with _polite_stop() as stopped:
        for epoch in range(state.step // steps, recipe.total_epochs):
            order.epoch, order.first = epoch, state.step % steps
            bar = tqdm(
                loader,
                f"epoch {epoch + 1}/{recipe.total_epochs}",
                initial=order.first,
                total=steps,
                disable=None if accelerator.is_main_process else True,
                leave=False,
            )
            net.train()
            clock = time.monotonic()
            for x, y in bar:
                _at(number := _seed(seed, state.step, rank))
                if torch.cuda.is_available():
                    torch.cuda.manual_seed(number)
                x = erase(_normalised(x.to(accelerator.device, non_blocking=True)))
                x, y = mix(x, y.to(accelerator.device))
                schedule.step_update(state.step)
                loss = _gradients(accelerator, prepared, criterion, x, y, part)
                # Read at every step: a step on NaN would poison the weights that are still good.
                if not math.isfinite(loss):
                    raise UserError(_not_finite(loss, state.step, epoch, order, train_set, recipe))
                prepared_optimizer.step()
                prepared_optimizer.zero_grad(set_to_none=True)
                state.step += 1
                if average:
                    average.update(net, state.step)
                state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
                now = time.monotonic()
                state.seconds, clock = state.seconds + now - clock, now
                taken += 1
                bar.set_postfix_str(
                    f"loss {state.loss_sum / state.loss_count:.3f}, "
                    f"{recipe.batch * state.loss_count / state.seconds:.0f} pictures/s"
                )
                last = state.step % steps == 0
                if not last and now - saved > 60 * save_minutes:
                    save()
                    saved = time.monotonic()
                if not last and (stopped() or taken == stop_after):
                    save()
                    return Run(out, state.history, done=False)
            row = {
                "epoch": epoch + 1,
                "step": state.step,
                "size": recipe.size_at(epoch),
                "lr": optimizer.param_groups[0]["lr"],
                "loss": state.loss_sum / state.loss_count,
                "pictures_per_second": recipe.batch * state.loss_count / state.seconds,
                "seconds": state.seconds,
            }
            final = epoch + 1 == recipe.total_epochs
            if final or (epoch + 1) % recipe.evaluate_every == 0:
                judged = evaluate(average.module if average else net, val_set, recipe.size)
                row |= {"val_loss": judged.loss, "val_top1": judged.top(1)}
            state.history.append(row)
            state.loss_sum, state.loss_count, state.seconds = 0.0, 0, 0.0
            save()
            saved = time.monotonic()
            if accelerator.is_main_process:
                _say(row, recipe)
                if tensorboard:
                    _tensorboard(out, row)
            if not final and (stopped() or (stop_after and taken >= stop_after)):
                return Run(out, state.history, done=False)
    if accelerator.is_main_process:
        final_net = average.module if average else net
        with atomic(out / "model.safetensors") as temporary:
            # contiguous, since safetensors keeps no strides
            values = {k: v.cpu().contiguous() for k, v in final_net.state_dict().items()}
            save_file(values, temporary)
        result = evaluate(final_net, val_set, recipe.size)
        result.save(out / "evaluation.npz")
        print(result, flush=True)
    accelerator.wait_for_everyone()
    return Run(out, state.history, done=True)


def history(out: str | Path) -> list[dict[str, float]]:
    """The rows of a run's history, an epoch each."""
    path = Path(out) / "history.jsonl"
    if not path.exists():
        raise UserError(f"{out} has no history.jsonl: it is no run, or none that ended an epoch")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _open(data: str | Path, recipe: Recipe, main: bool) -> tuple[Squares, Squares]:
    train_pictures = open_pictures(data, "train")
    val_pictures = open_pictures(data, "val", train_pictures.classes)
    pair = [
        decoded(one, recipe.stored_size, progress=main) for one in (train_pictures, val_pictures)
    ]
    for squares in pair:
        if main and squares.skipped:
            print(f"warning: {squares.report()}", file=sys.stderr, flush=True)
    return pair[0], pair[1]


def _build(name: str, classes: int, recipe: Recipe, arguments: Mapping[str, Any]) -> nn.Module:
    import hirelab.models  # noqa: F401  (registers the networks with timm)

    if not timm.is_model(name):
        raise UserError(unknown("network", name, timm.list_models(), "See timm.list_models()."))
    try:
        return timm.create_model(
            name, num_classes=classes, drop_path_rate=recipe.drop_path, **arguments
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} with {dict(arguments)}: {error}") from error


def _gradients(
    accelerator: Accelerator,
    model: nn.Module,
    criterion: nn.Module,
    x: Tensor,
    y: Tensor,
    part: int,
) -> float:
    """Backward through the batch, in parts where asked; the mean loss of this process's share."""
    part = part or len(x)
    total = 0.0
    starts = range(0, len(x), part)
    for start in starts:
        piece = x[start : start + part]
        # gradients meet the other processes' once, with the last part
        if start == starts[-1]:
            loss = criterion(model(piece), y[start : start + part]) * (len(piece) / len(x))
            accelerator.backward(loss)
        else:
            with accelerator.no_sync(model):
                loss = criterion(model(piece), y[start : start + part]) * (len(piece) / len(x))
                accelerator.backward(loss)
        total += loss.detach()
    return float(accelerator.reduce(torch.as_tensor(total, device=x.device), "mean"))


def _not_finite(
    loss: float, step: int, epoch: int, order: _Order, squares: Squares, recipe: Recipe
) -> str:
    keys = order.batch(step % len(order))
    names = [squares.pictures.names[squares.kept[index]] for _, _, index in keys]
    return (
        f"the loss became {loss} at step {step + 1:,} (epoch {epoch + 1}), on the batch of "
        f"{names[0]}, {names[1]} and {len(names) - 2} more; the last checkpoint is from before. "
        f"Lower lr ({recipe.lr:g}) or raise warmup_epochs ({recipe.warmup_epochs}), with another "
        f"--out; in half precision, try precision=no"
    )


def _claim(out: Path, asked: dict[str, Any], command: str, world: int) -> bool:
    """Write run.json, or check that it asks for the same; whether there was one."""
    path = out / "run.json"
    asked = json.loads(json.dumps(asked))  # tuples become lists, as in the file
    if path.exists():
        before = json.loads(path.read_text())["asked"]
        if before != asked:
            raise UserError(
                f"{out} holds another run ({_changed(before, asked)}): choose another --out, or "
                f"remove it to start over"
            )
        return True
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds files of something else: choose another --out")
    facts = {
        "asked": asked,
        "command": command,
        "started": time.strftime("%Y-%m-%d"),
        "processes": world,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_atomic(path, json.dumps(facts, indent=1) + "\n")
    return False


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    flat = [{**one, **one["recipe"]} for one in (before, now)]
    keys = [k for k in flat[1] if k != "recipe" and flat[0].get(k) != flat[1][k]]
    shown = [f"{k} {flat[0].get(k)!r}, not {flat[1][k]!r}" for k in keys[:3]]
    return "; ".join(text if len(text) < 120 else text[:117] + "..." for text in shown)


def hardware() -> str:
    """The processor and the accelerator that torch runs on here, and how many threads."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(one.split(":")[1].strip() for one in lines if one.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpus = torch.cuda.device_count()
    extra = f", {gpus} x {torch.cuda.get_device_name()}" if gpus else ""
    return f"{name}, {torch.get_num_threads()} threads{extra}"


def _save(path: Path, tensors: Mapping[str, Any], state: _State) -> None:
    """Write a checkpoint; the one before stays until this one is whole."""
    content = {name: part.state_dict() for name, part in tensors.items()}
    try:
        with atomic(path) as temporary:
            torch.save({**content, "state": dataclasses.asdict(state)}, temporary)
    # torch reports a full disk as a RuntimeError of its writer
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint of step {state.step:,} could not be written to {path.parent} "
            f"({error}); the one before is still there: make room, and run the same command again"
        ) from error


def _restore(path: Path, tensors: Mapping[str, Any]) -> _State:
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in tensors.items():
        part.load_state_dict(content[name])
    return _State(**content["state"])


@contextmanager
def _polite_stop() -> Iterator:
    """While it lasts, the first Ctrl-C or SIGTERM only asks; what it gives says whether one did."""
    asked = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step, with a checkpoint ...", file=sys.stderr, flush=True)

    try:
        before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(row: Mapping[str, float], recipe: Recipe) -> None:
    left = (recipe.total_epochs - row["epoch"]) * row["seconds"] / 60
    judged = f", top-1 {row['val_top1']:.2f} %" if "val_top1" in row else ""
    print(
        f"epoch {row['epoch']}/{recipe.total_epochs}: loss {row['loss']:.3f}{judged}, "
        f"{row['pictures_per_second']:.0f} pictures/s at {row['size']} px, "
        f"about {left:.0f} min left",
        flush=True,
    )


def _tensorboard(out: Path, row: Mapping[str, float]) -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs it: pip install tensorboard") from error
    with SummaryWriter(str(out / "tensorboard")) as writer:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, row["step"])

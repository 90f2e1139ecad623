"""One training loop, short enough to read: Accelerate runs it anywhere, timm brings the parts.

**Randomness is a function of the seed and of a position, and of nothing else.** The order of an
epoch follows from (seed, epoch), the augmentation of an image from (seed, epoch, place in that
order), mixup and drop path from (seed, step, process). So a run needs no state of a random
generator to go on after a stop, and the number of worker processes changes nothing.

**Batches are global.** A step takes `Recipe.batch` images over all processes together; process r
of n takes every n-th of them. The effective batch is kept on any number of processes, and with
synchronised BatchNorm so is the function that is trained.

`recipes` says what a run does, `runs` what its folder holds.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
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

from .._shared.errors import HirelabError
from .._shared.files import atomic, write_atomic
from ..datasets.cache import DecodedImages, decode
from ..datasets.subsets import open_images
from ..datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from .distributed import synchronise
from .evaluation import evaluate, normalised
from .recipes import Recipe
from .runs import History, build, claim

__all__ = ["Run", "train"]


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
    """Augmented images by (epoch, place in the epoch's order, index of the image)."""

    def __init__(self, squares: DecodedImages, recipe: Recipe, seed: int) -> None:
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
        image = Image.fromarray(self.squares.pixels[index])
        return self._transform(self.recipe.size_at(epoch))(image), int(self.squares.labels[index])

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
        """Indices of the epoch's images: as many as there are, each ``repeats`` times running."""
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


# --- training ----------------------------------------------------------------------------------


@dataclass
class _Progress:
    """Where a run stands, kept in its checkpoint: steps over all epochs, the open epoch's sums."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """Where a run stands after `train`: its folder, its history, and whether it came to its end."""

    out: Path
    history: History
    done: bool


class _Trainer:
    """Everything that one step needs, and everything that a checkpoint keeps."""

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        recipe: Recipe,
        classes: int,
        steps: int,
        seed: int,
        part: int,
    ) -> None:
        self.accelerator, self.recipe, self.seed, self.part = accelerator, recipe, seed, part
        if accelerator.num_processes > 1:
            network = synchronise(network, accelerator.device)
        self.optimizer = create_optimizer_v2(
            network, "adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, eps=1e-8, foreach=True
        )
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            "cosine",
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            cooldown_epochs=recipe.cooldown_epochs,
            min_lr=recipe.min_lr,
            warmup_lr=recipe.warmup_lr,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
        self.network = network.to(accelerator.device)
        self.average = ModelEmaV3(network, recipe.ema, use_warmup=True) if recipe.ema else None
        # what runs: the network, wrapped for several processes, half precision and the compiler
        self.running, self.stepper = accelerator.prepare(network, self.optimizer)
        mixes = recipe.mixup or recipe.cutmix
        self.mix = Mixup(
            recipe.mixup,
            recipe.cutmix,
            prob=recipe.mix_probability if mixes else 0.0,
            label_smoothing=recipe.smoothing,
            num_classes=classes,
        )
        self.erase = RandomErasing(recipe.erase, mode="pixel", device=accelerator.device)
        self.criterion = SoftTargetCrossEntropy()
        self.progress = _Progress()

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one, where the recipe averages."""
        return self.average.module if self.average else self.network

    def step(self, x: Tensor, y: Tensor, stopped: Callable[[], bool]) -> tuple[float, bool]:
        """One step on this process's share of a batch, bytes and labels.

        Returns the mean loss, and whether any process was asked to stop, so that all stop at the
        same step. A loss that is not finite leaves everything as it was.
        """
        device, step = self.accelerator.device, self.progress.step
        _at(number := _seed(self.seed, step, self.accelerator.process_index))
        if device.type == "cuda":
            torch.cuda.manual_seed(number)
        x = self.erase(normalised(x.to(device, non_blocking=True)))
        x, y = self.mix(x, y.to(device))
        self.schedule.step_update(step)
        loss = self._gradients(x, y)
        told = torch.stack([loss, torch.tensor(float(stopped()), device=device)])
        mean, asked = self.accelerator.reduce(told, "mean").tolist()
        # Read at every step: a step on NaN would poison the weights that are still good.
        if math.isfinite(mean):
            self.stepper.step()
            self.progress.step += 1
            if self.average:
                self.average.update(self.network, self.progress.step)
        self.stepper.zero_grad(set_to_none=True)
        return mean, asked > 0

    def _gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Backward through the share, in parts where asked; the share's mean loss."""
        size = self.part or len(x)
        pieces = list(zip(x.split(size), y.split(size), strict=True))
        total = x.new_zeros(())
        for i, (piece, target) in enumerate(pieces):
            last = i == len(pieces) - 1  # with it, gradients meet those of the other processes
            with nullcontext() if last else self.accelerator.no_sync(self.running):
                loss = self.criterion(self.running(piece), target) * (len(piece) / len(x))
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.network, "optimizer": self.stepper}
        if self.average:
            parts["average"] = self.average.module
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def save(self, out: Path) -> None:
        """Write the checkpoint and the history; the ones before stay until these are whole."""
        content = {name: part.state_dict() for name, part in self._parts().items()}
        try:
            with atomic(out / CHECKPOINT) as temporary:
                torch.save({**content, "state": dataclasses.asdict(self.progress)}, temporary)
            rows = "".join(json.dumps(row) + "\n" for row in self.progress.history)
            write_atomic(out / "history.jsonl", rows)
        # torch reports a full disk as a RuntimeError of its writer
        except (OSError, RuntimeError) as error:
            raise HirelabError(
                f"the checkpoint of step {self.progress.step:,} could not be written to {out} "
                f"({error}); the one before is still there: make room, and run the same command "
                f"again"
            ) from error

    def restore(self, out: Path) -> bool:
        """Go back to the checkpoint, if there is one."""
        if not (out / CHECKPOINT).exists():
            return False
        content = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.progress = _Progress(**content["state"])
        return True


CHECKPOINT = "checkpoint.pt"


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
        history.jsonl      a row an epoch: loss, accuracy, learning rate, images a second
        checkpoint.pt      to go on from; written after each epoch and every ``save_minutes``
        model.safetensors  at the end: the weights (averaged ones, where the recipe averages)
        evaluation.npz     at the end: an `Evaluation` of them
        curves.png         at the end: loss and accuracy against epochs

    Args:
        model: a network's name; ``model_arguments`` go to it besides classes and drop path.
        data: see `datasets.subsets.open_images`; it has the splits train and val.
        workers: processes that load images; on a CPU, 0 is fastest.
        part: images a process computes at once; a share that is larger is taken in parts, whose
            gradients are added up. 0: the whole share. BatchNorm sees one part at a time.
        stop_after: stop, with a checkpoint, after so many steps of this call; 0 for never.
        tensorboard: also write the history for TensorBoard, into ``out``/tensorboard.
        command: written into run.json.

    Raises:
        HirelabError: what the user can put right: data, a folder that holds another run, a batch
            that does not divide over the processes, a loss that is not finite, a full disk.
    """
    out = Path(out)
    # one graph a size: shapes that vary make slower code, and there are three sizes at most
    compiler = TorchDynamoPlugin(backend="inductor" if recipe.compile else "no", dynamic=False)
    accelerator = Accelerator(mixed_precision=recipe.precision, dynamo_plugin=compiler)
    main, world = accelerator.is_main_process, accelerator.num_processes
    if recipe.batch % (2 * world):
        raise HirelabError(
            f"a batch of {recipe.batch} does not give {world} process{'es' * (world > 1)} an even "
            f"number of images each, which mixup pairs: choose a multiple of {2 * world}"
        )
    with accelerator.local_main_process_first():  # it decodes; the others then find the squares
        train_set, val_set = _open(data, recipe, main)
    steps = len(train_set) // recipe.batch
    if not steps:
        raise HirelabError(
            f"{len(train_set)} training images do not fill a batch of {recipe.batch}: lower it"
        )
    classes = train_set.images.classes
    asked = {
        "model": model,
        "model_arguments": dict(model_arguments or {}),
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "classes": list(classes),
        "data": {"train": train_set.images.fingerprint, "val": val_set.images.fingerprint},
        "images": {"train": len(train_set), "val": len(val_set)},
        "skipped": {**train_set.skipped, **val_set.skipped},
    }
    if main:
        claim(out, asked, str(data), command, world)
    accelerator.wait_for_everyone()

    _at(_seed(seed))
    network = build(model, len(classes), recipe, model_arguments or {})
    trainer = _Trainer(accelerator, network, recipe, len(classes), steps, seed, part)
    if trainer.restore(out) and main:
        of = f"{steps * recipe.total_epochs:,}"
        print(f"going on after step {trainer.progress.step:,} of {of}", flush=True)
    order = _Order(len(train_set), recipe, seed, accelerator.process_index, world)
    loader = DataLoader(
        _Augmented(train_set, recipe, seed),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_together,
        pin_memory=accelerator.device.type == "cuda",
    )
    clock = _Clock(60 * save_minutes, stop_after)
    with _polite_stop() as stopped, _board(out, tensorboard and main) as board:
        for epoch in range(trainer.progress.step // steps, recipe.total_epochs):
            order.epoch, order.first = epoch, trainer.progress.step % steps
            if not _epoch(trainer, loader, order, train_set, out, clock, stopped):
                return Run(out, History(trainer.progress.history), done=False)
            row = _row(trainer, epoch, val_set)
            if main:
                trainer.save(out)
                _say(row, recipe)
                for name, value in row.items() if board else ():
                    board.add_scalar(name, value, row["step"])
            over = epoch + 1 == recipe.total_epochs
            if not over and clock.stops(stopped()):
                return Run(out, History(trainer.progress.history), done=False)
    if main:
        _finish(trainer, val_set, out)
    accelerator.wait_for_everyone()
    return Run(out, History(trainer.progress.history), done=True)


class _Clock:
    """When a checkpoint is due, and when this call has taken its steps."""

    def __init__(self, save_seconds: float, stop_after: int) -> None:
        self.save_seconds, self.stop_after = save_seconds, stop_after
        self.saved = self.last = time.monotonic()
        self.taken = 0

    def tick(self) -> float:
        """Count a step; the seconds since the one before."""
        now = time.monotonic()
        passed, self.last = now - self.last, now
        self.taken += 1
        return passed

    def save_due(self) -> bool:
        if due := self.last - self.saved > self.save_seconds:
            self.saved = self.last
        return due

    def stops(self, asked: bool) -> bool:
        return asked or 0 < self.stop_after <= self.taken


def _epoch(
    trainer: _Trainer,
    loader: DataLoader,
    order: _Order,
    squares: DecodedImages,
    out: Path,
    clock: _Clock,
    stopped: Callable[[], bool],
) -> bool:
    """The rest of an epoch; False if it was stopped before its end, with a checkpoint."""
    progress, main = trainer.progress, trainer.accelerator.is_main_process
    bar = tqdm(
        loader,
        f"epoch {order.epoch + 1}/{order.recipe.total_epochs}",
        initial=order.first,
        total=len(order),
        disable=None if main else True,
        leave=False,
    )
    trainer.network.train()
    clock.last = time.monotonic()
    for x, y in bar:
        loss, asked = trainer.step(x, y, stopped)
        if not math.isfinite(loss):
            raise HirelabError(_not_finite(loss, progress.step, order, squares))
        progress.loss_sum += loss
        progress.loss_count += 1
        progress.seconds += clock.tick()
        speed = order.recipe.batch * progress.loss_count / progress.seconds
        mean = progress.loss_sum / progress.loss_count
        bar.set_postfix_str(f"loss {mean:.3f}, {speed:.0f} images/s")
        if progress.step % len(order) == 0:
            break  # the end of an epoch has a checkpoint of its own, after validation
        stops = clock.stops(asked)
        if main and (stops or clock.save_due()):
            trainer.save(out)
        if stops:
            return False
    bar.close()
    return True


def _row(trainer: _Trainer, epoch: int, val_set: DecodedImages) -> dict[str, float]:
    """Close an epoch: its row of the history, validated where the recipe says so.

    Every process validates all images, which takes as long as waiting for one that does.
    """
    progress, recipe = trainer.progress, trainer.recipe
    row = {
        "epoch": epoch + 1,
        "step": progress.step,
        "size": recipe.size_at(epoch),
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "loss": progress.loss_sum / progress.loss_count,
        "images_per_second": recipe.batch * progress.loss_count / progress.seconds,
        "seconds": progress.seconds,
    }
    if epoch + 1 == recipe.total_epochs or (epoch + 1) % recipe.evaluate_every == 0:
        judged = evaluate(trainer.judged, val_set, recipe.size)
        row |= {"val_loss": judged.loss, "val_top1": judged.top(1)}
    progress.history.append(row)
    progress.loss_sum, progress.loss_count, progress.seconds = 0.0, 0, 0.0
    return row


def _finish(trainer: _Trainer, val_set: DecodedImages, out: Path) -> None:
    """Weights, their evaluation and the curves, in a finished run's folder."""
    with atomic(out / "model.safetensors") as temporary:
        # contiguous, since safetensors keeps no strides
        values = {k: v.cpu().contiguous() for k, v in trainer.judged.state_dict().items()}
        save_file(values, temporary)
    result = evaluate(trainer.judged, val_set, trainer.recipe.size)
    result.save(out / "evaluation.npz")
    History(trainer.progress.history).plot().save(out / "curves.png")
    print(result, flush=True)


def _open(data: str | Path, recipe: Recipe, main: bool) -> tuple[DecodedImages, DecodedImages]:
    train_images = open_images(data, "train")
    val_images = open_images(data, "val", train_images.classes)
    pair = [decode(one, recipe.stored_size, progress=main) for one in (train_images, val_images)]
    for squares in pair:
        if main and squares.skipped:
            print(f"warning: {squares.report()}", file=sys.stderr, flush=True)
    return pair[0], pair[1]


def _not_finite(loss: float, step: int, order: _Order, squares: DecodedImages) -> str:
    keys = order.batch(step % len(order))
    names = [squares.images.names[squares.kept[index]] for _, _, index in keys]
    recipe = order.recipe
    return (
        f"the loss became {loss} at step {step + 1:,} (epoch {order.epoch + 1}), on the batch of "
        f"{names[0]}, {names[1]} and {len(names) - 2} more; the last checkpoint is from before. "
        f"Lower lr ({recipe.lr:g}) or raise warmup_epochs ({recipe.warmup_epochs}), with another "
        f"--out; in half precision, try precision=no"
    )


@contextmanager
def _polite_stop() -> Iterator[Callable[[], bool]]:
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


@contextmanager
def _board(out: Path, wanted: bool) -> Iterator[Any]:
    """A TensorBoard writer, or None where none is wanted."""
    if not wanted:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise HirelabError("--tensorboard needs it: pip install 'hirelab[tensorboard]'") from error
    with SummaryWriter(str(out / "tensorboard")) as writer:
        yield writer


def _say(row: Mapping[str, float], recipe: Recipe) -> None:
    left = (recipe.total_epochs - row["epoch"]) * row["seconds"] / 60
    judged = f", top-1 {row['val_top1']:.2f} %" if "val_top1" in row else ""
    print(
        f"epoch {row['epoch']}/{recipe.total_epochs}: loss {row['loss']:.3f}{judged}, "
        f"{row['images_per_second']:.0f} images/s at {row['size']} px, "
        f"about {left:.0f} min left",
        flush=True,
    )

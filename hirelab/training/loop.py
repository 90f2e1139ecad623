"""The training loop: Accelerate runs it anywhere, timm brings the parts.

**Randomness is a function of the seed and of a position, and of nothing else.** The order of an
epoch follows from (seed, epoch), the augmentation of an image from (seed, epoch, place in that
order), mixup and drop path from (seed, step, process). So a run needs no state of a random
generator to go on after a stop, and the number of worker processes changes nothing.

**Batches are global.** A step takes `Recipe.batch_size` images over all processes together; process
r of n takes every n-th of them. The effective batch is kept on any number of processes, and with
synchronised BatchNorm so is the function that is trained.

`recipes` says what a run does, `data` which images a step sees, `trainer` what a step is,
`progress` what a checkpoint keeps, `stopping` when to leave, `runs` what the folder holds. Here:
their order, and what is said meanwhile.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.files import atomic
from ..datasets.cache import DecodedImages, decode
from ..datasets.subsets import LabelledImages, open_images
from .data import AugmentedDataset, EpochSampler, collate, position_seed, set_seed
from .evaluation import Evaluation, evaluate
from .network import build_network
from .recipes import Recipe
from .runs import EVALUATION, WEIGHTS, History, RunConfig, check_folder, start_or_resume
from .stopping import Clock, stop_requests
from .trainer import Trainer

__all__ = ["LOOP", "DivergedError", "Run", "train"]

LOOP = 1
"""Version of the loop: raised when the same configuration would train to other weights."""


class DivergedError(HirelabError):
    """The loss is no longer a number: the recipe does not suit the network."""


@dataclass(frozen=True)
class Run:
    """Where a run stands after `train`: its folder, its history, and whether it came to its end."""

    out: Path
    history: History
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
    micro_batch: int = 0,
    save_minutes: float = 5.0,
    stop_after: int = 0,
    tensorboard: bool = False,
    command: str = "",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Run:
    """Train ``model`` (any of timm's, ours among them) on ``data``, into the folder ``out``.

    Called again with the same arguments it goes on from the last checkpoint, and on CPU ends with
    the same weights, bit for bit, as a run that was never stopped. ``out`` holds

        run.json           a `RunInfo`: what was asked for, on what machine and versions
        history.jsonl      one row for each epoch, see `History`
        checkpoint.pt      to go on from; written after each epoch and every ``save_minutes``
        model.safetensors  at the end: the weights (averaged ones, where the recipe averages)
        evaluation.npz     at the end: an `Evaluation` of them
        curves.png         at the end: loss and accuracy against epochs

    What is wrong with the arguments is said before any image is decoded and anything is written.

    Args:
        model: a network's name; ``model_arguments`` go to it besides classes and drop path.
        data: see `datasets.subsets.open_images`; it has the splits train and val.
        workers: processes that load images; on a CPU, 0 is fastest.
        micro_batch: images a process computes at once; a larger share is taken in several, whose
            gradients are added up. 0: the whole share. BatchNorm sees one micro-batch at a time.
        save_minutes: between checkpoints inside an epoch.
        stop_after: stop, with a checkpoint, after so many steps of this call; 0 for never.
        tensorboard: also write the history for TensorBoard, into ``out``/tensorboard.
        command: written into run.json.
        on_epoch: called with each epoch's row of the history, instead of printing it and the
            final evaluation.

    Raises:
        HirelabError: what the user can put right: an unknown network, data, a folder that holds
            another run, a batch that does not divide over the processes, a full disk.
        DivergedError: the loss is not finite.
    """
    out = Path(out)
    if recipe.compile:  # the graphs of networks trained before count against the compiler's limit
        torch.compiler.reset()
    # one graph for each size: shapes that vary make slower code, and there are three at most
    compiler = TorchDynamoPlugin(backend="inductor" if recipe.compile else "no", dynamic=False)
    accelerator = Accelerator(mixed_precision=recipe.precision, dynamo_plugin=compiler)
    main, world = accelerator.is_main_process, accelerator.num_processes
    _check_batch(recipe, world)
    train_images = open_images(data, "train")
    val_images = open_images(data, "val", train_images.classes)
    config = RunConfig(
        model,
        dict(model_arguments or {}),
        seed,
        recipe,
        train_images.classes,
        {"train": train_images.fingerprint, "val": val_images.fingerprint},
    )
    set_seed(position_seed(seed))
    network = build_network(model, len(config.classes), recipe.drop_path, config.model_arguments)
    if main:
        check_folder(out, config, but=("images", "skipped"))
    train_set = _decode(train_images, recipe, accelerator)
    val_set = _decode(val_images, recipe, accelerator)
    steps = len(train_set) // recipe.batch_size
    if not steps:
        raise HirelabError(
            f"{len(train_set)} training images do not fill a batch of {recipe.batch_size}: lower it"
        )
    if main:
        config = dataclasses.replace(
            config,
            images={"train": len(train_set), "val": len(val_set)},
            skipped={**train_set.skipped, **val_set.skipped},
        )
        start_or_resume(out, config, str(data), command, world)
    accelerator.wait_for_everyone()

    trainer = Trainer(accelerator, network, recipe, len(config.classes), steps, seed, micro_batch)
    if trainer.restore(out) and main:
        total = f"{steps * recipe.total_epochs:,}"
        print(f"going on after step {trainer.progress.step:,} of {total}", flush=True)
    sampler = EpochSampler(len(train_set), recipe, seed, accelerator.process_index, world)
    loader = DataLoader(
        AugmentedDataset(train_set, recipe, seed),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=accelerator.device.type == "cuda",
    )
    clock = Clock(60 * save_minutes, stop_after)
    with stop_requests() as stopped, _board(out, tensorboard and main) as board:
        for epoch in range(trainer.progress.step // steps, recipe.total_epochs):
            sampler.epoch, sampler.first_step = epoch, trainer.progress.step % steps
            if not _train_epoch(trainer, loader, sampler, train_set, out, clock, stopped):
                return Run(out, History(trainer.progress.history), done=False)
            row = _close_epoch(trainer, epoch, val_set)
            if main:
                trainer.save(out)
                if on_epoch:
                    on_epoch(row)
                else:
                    _say(row, recipe)
                for name, value in row.items() if board else ():
                    board.add_scalar(name, value, row["step"])
            over = epoch + 1 == recipe.total_epochs
            if not over and clock.stops(stopped()):
                return Run(out, History(trainer.progress.history), done=False)
    if main:
        found = _finish(trainer, val_set, out)
        if not on_epoch:
            print(found, flush=True)
    accelerator.wait_for_everyone()
    return Run(out, History(trainer.progress.history), done=True)


def _check_batch(recipe: Recipe, world: int) -> None:
    if recipe.batch_size % (2 * world):
        raise HirelabError(
            f"a batch of {recipe.batch_size} does not give {world} process{'es' * (world > 1)} an "
            f"even number of images each, which mixup pairs: choose a multiple of {2 * world}"
        )


def _decode(images: LabelledImages, recipe: Recipe, accelerator: Accelerator) -> DecodedImages:
    """The decoded images of a split, for every process; the unreadable ones are reported."""
    main = accelerator.is_main_process
    # The first process on a machine decodes; the others then find the images in the cache.
    with accelerator.local_main_process_first():
        found = decode(images, recipe.stored_size, progress=main)
    if main and found.skipped:
        print(f"warning: {found.report()}", file=sys.stderr, flush=True)
    return found


def _train_epoch(
    trainer: Trainer,
    loader: DataLoader,
    sampler: EpochSampler,
    images: DecodedImages,
    out: Path,
    clock: Clock,
    stopped: Callable[[], bool],
) -> bool:
    """The rest of an epoch; False if it was stopped before its end, with a checkpoint."""
    progress, main = trainer.progress, trainer.accelerator.is_main_process
    bar = tqdm(
        loader,
        f"epoch {sampler.epoch + 1}/{trainer.recipe.total_epochs}",
        initial=sampler.first_step,
        total=len(sampler),
        disable=None if main else True,
        leave=False,
    )
    trainer.network.train()
    clock.last = time.monotonic()
    for x, y in bar:
        loss, asked = trainer.step(x, y, stopped)
        if not math.isfinite(loss):
            raise DivergedError(_not_finite(loss, progress.step, sampler, images))
        progress.count(loss, clock.tick())
        bar.set_postfix_str(f"loss {progress.loss:.3f}, {_speed(trainer):.0f} images/s")
        if progress.step % len(sampler) == 0:
            break  # the end of an epoch has a checkpoint of its own, after validation
        stops = clock.stops(asked)
        if main and (stops or clock.save_due()):
            trainer.save(out)
        if stops:
            return False
    bar.close()
    return True


def _speed(trainer: Trainer) -> float:
    """Images a second in the open epoch."""
    progress = trainer.progress
    return trainer.recipe.batch_size * progress.loss_count / progress.seconds


def _close_epoch(trainer: Trainer, epoch: int, val_set: DecodedImages) -> dict[str, float]:
    """Close an epoch: its row of the history, validated where the recipe says so.

    Every process validates all images, which takes as long as waiting for one that does.
    """
    progress, recipe = trainer.progress, trainer.recipe
    row = {
        "epoch": epoch + 1,
        "step": progress.step,
        "img_size": recipe.img_size_at(epoch),
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "loss": progress.loss,
        "images_per_second": _speed(trainer),
        "seconds": progress.seconds,
    }
    if epoch + 1 == recipe.total_epochs or (epoch + 1) % recipe.evaluate_every == 0:
        main = trainer.accelerator.is_main_process
        found = evaluate(trainer.evaluated, val_set, recipe.img_size, progress=main)
        row |= {"val_loss": found.loss, "val_top1": found.accuracy(1)}
    progress.close_epoch(row)
    return row


def _finish(trainer: Trainer, val_set: DecodedImages, out: Path) -> Evaluation:
    """Weights, their evaluation and the curves, in a finished run's folder."""
    with atomic(out / WEIGHTS) as temporary:
        # contiguous, since safetensors keeps no strides
        values = {k: v.cpu().contiguous() for k, v in trainer.evaluated.state_dict().items()}
        save_file(values, temporary)
    result = evaluate(trainer.evaluated, val_set, trainer.recipe.img_size)
    result.save(out / EVALUATION)
    History(trainer.progress.history).plot().save(out / "curves.png")
    return result


def _not_finite(loss: float, step: int, sampler: EpochSampler, images: DecodedImages) -> str:
    keys = sampler.batch(step % len(sampler))
    names = [images.images.names[images.kept[index]] for _, _, index in keys]
    recipe = sampler.recipe
    return (
        f"the loss became {loss} at step {step + 1:,} (epoch {sampler.epoch + 1}), on the batch of "
        f"{names[0]}, {names[1]} and {len(names) - 2} more; the last checkpoint is from before. "
        f"Lower lr ({recipe.lr:g}) or raise warmup_epochs ({recipe.warmup_epochs}), with another "
        f"--out; in half precision, try precision=no"
    )


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
    top1 = f", top-1 {row['val_top1']:.2f} %" if "val_top1" in row else ""
    print(
        f"epoch {row['epoch']}/{recipe.total_epochs}: loss {row['loss']:.3f}{top1}, "
        f"{row['images_per_second']:.0f} images/s at {row['img_size']} px, "
        f"about {left:.0f} min left",
        flush=True,
    )

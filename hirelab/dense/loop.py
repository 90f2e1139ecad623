"""Training a detector or segmenter: what `training.loop` does for classifiers, on other batches.

Randomness is a function of the seed and of a position, checkpoints are whole or not there, and a
run that is started again goes on, on a CPU to the same weights bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.optim import create_optimizer_v2
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from .._shared.checks import check_choice
from .._shared.errors import HirelabError
from .._shared.files import remove_unfinished, unfinished, write_atomic
from .._shared.reading import read_object
from ..datasets.boxes import BoxedImages, open_boxes
from ..datasets.label_maps import NO_LABEL, LabelMaps, open_label_maps
from ..results import hardware, versions
from ..training.data import position_seed, set_seed
from ..training.distributed import synchronise
from ..training.loop import DivergedError
from ..training.progress import Progress, restore_checkpoint, save_checkpoint
from ..training.runs import EVALUATION, RUN, WEIGHTS, History
from ..training.stopping import Clock, stop_requests
from .backbone import DenseNetwork
from .data import DenseSampler, DetectionImages, PixelImages, fitted_sizes
from .detection import DETECTORS, FIRST_STRIDE, Detector, detector
from .evaluation import (
    SCALES,
    Detections,
    PixelEvaluation,
    evaluate_detector,
    evaluate_segmenter,
)
from .factory import load_dense
from .recipes import DenseRecipe
from .segmentation import SEGMENTERS, Segmenter, segmenter

__all__ = ["TASKS", "DenseRun", "evaluate_dense", "train_dense"]

TASKS = {"detection": DETECTORS, "segmentation": SEGMENTERS}
Images = BoxedImages | LabelMaps


@dataclass(frozen=True)
class DenseRun:
    """Where a run stands: its folder, history and evaluation, and whether it came to its end."""

    out: Path
    history: History
    evaluation: Detections | PixelEvaluation | None
    done: bool


def train_dense(
    kind: str,
    backbone: str,
    data: str | Path,
    recipe: DenseRecipe,
    out: str | Path,
    *,
    pretrained: bool = True,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int = 0,
    save_minutes: float = 5.0,
    stop_after: int = 0,
    command: str = "",
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> DenseRun:
    """Train a detector or segmenter on ``data``, into the folder ``out``.

    Called again with the same arguments it goes on from the last checkpoint. ``out`` holds run.json
    (what was asked for, and on what machine and versions), history.jsonl (a row for each epoch),
    checkpoint.pt, and at the end model.safetensors (see `factory.load_dense`) and evaluation.npz (a
    `Detections` or `PixelEvaluation`).

    Args:
        kind: "retinanet", "mask_rcnn", "upernet" or "fpn".
        backbone: any network of timm's or ours with four stages; ``pretrained``: from its trained
            weights.
        data: with the splits train and val; see `open_boxes` and `open_label_maps`.
        settings: of `detector` or `segmenter`, but for those that the recipe has.
        workers: processes that load images.
        save_minutes: between checkpoints inside an epoch.
        stop_after: stop, with a checkpoint, after so many steps of this call; 0 for never.
        command: written into run.json.
        on_epoch: called with each epoch's row of the history, instead of printing it.

    Raises:
        HirelabError: what the user can put right: an unknown kind, backbone or data, a folder that
            holds another run, a batch that does not divide over the processes, a full disk.
        DivergedError: the loss is not finite.
    """
    task = next((name for name, kinds in TASKS.items() if kind in kinds), "")
    check_choice("kind", kind, [one for kinds in TASKS.values() for one in kinds])
    out = Path(out)
    accelerator = Accelerator(mixed_precision=recipe.precision)
    main, world = accelerator.is_main_process, accelerator.num_processes
    if recipe.batch_size % world:
        raise HirelabError(
            f"a batch of {recipe.batch_size} does not divide over {world} processes: choose a "
            f"multiple of {world}"
        )
    opened = open_boxes if task == "detection" else open_label_maps
    train_images: Images = opened(data, "train")
    val_images: Images = opened(data, "val")
    if train_images.classes != val_images.classes:
        raise HirelabError(f"{data}: the splits train and val have different classes")
    set_seed(position_seed(seed))
    model = _network(kind, backbone, train_images, recipe, pretrained, dict(settings or {}), seed)
    asked = {
        "task": task,
        "network": model.config,
        "pretrained": pretrained,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "fingerprints": {"train": train_images.fingerprint, "val": val_images.fingerprint},
    }
    if main:
        _start_or_resume(out, asked, str(data), command, world)
    accelerator.wait_for_everyone()

    sampler = DenseSampler(
        _groups(train_images), recipe.batch_size, seed, accelerator.process_index, world
    )
    if not len(sampler):
        raise HirelabError(
            f"{len(train_images)} training images do not fill a batch of {recipe.batch_size}: "
            "lower it"
        )
    trainer = _Trainer(accelerator, model, recipe, len(sampler), seed)
    if trainer.restore(out) and main:
        total = f"{trainer.steps:,}"
        print(f"going on after step {trainer.progress.step:,} of {total}", flush=True)
    loader = DataLoader(
        _dataset(train_images, recipe, seed, kind),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=list,
    )
    clock = Clock(60 * save_minutes, stop_after)
    progress, found = trainer.progress, None
    with stop_requests() as stopped:
        for epoch in range(progress.step // len(sampler), recipe.epochs):
            sampler.epoch, sampler.first_step = epoch, progress.step % len(sampler)
            if not _train_epoch(trainer, loader, sampler, out, clock, stopped):
                return DenseRun(out, History(progress.history), None, done=False)
            row, found = _close_epoch(trainer, epoch, val_images)
            if main:
                trainer.save(out)
                (on_epoch or _say)(row)
            if epoch + 1 < recipe.epochs and clock.stops(stopped()):
                return DenseRun(out, History(progress.history), None, done=False)
    found = found or _evaluate(model, val_images)  # a run that was stopped after its last epoch
    if main:
        model.save(out / WEIGHTS)
        found.save(out / EVALUATION)
        if not on_epoch:
            print(found, flush=True)
    accelerator.wait_for_everyone()
    return DenseRun(out, History(progress.history), found, done=True)


def evaluate_dense(
    network: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    *,
    multi_scale: bool = False,
    pad: int = 0,
    masked: bool = False,
) -> Detections | PixelEvaluation:
    """Evaluate what `train_dense` trained.

    Args:
        network: a finished run's folder, or the file of its weights.
        data: by default the run's own; a file does not say.
        multi_scale: of a segmenter: over `SCALES`, mirrored too.
        pad, masked: pixels of empty canvas, and gates that do not hear it, see
            `evaluate_segmenter` and `evaluate_detector`.

    Raises:
        HirelabError: no such network or data, other classes, several scales for a detector.
    """
    path = Path(network)
    model = load_dense(path)
    if path.is_dir():
        data = data or read_object(path / RUN, "source")["source"]
    if data is None:
        raise HirelabError(f"{path} does not say what it was trained on: give --data")
    if isinstance(model, Detector):
        if multi_scale:
            raise HirelabError(
                "--multi-scale is for segmenters; a detector sees its images at one scale"
            )
        return evaluate_detector(model, open_boxes(data, split), pad=pad, masked=masked)
    assert isinstance(model, Segmenter)
    scales = SCALES if multi_scale else (1.0,)
    images = open_label_maps(data, split)
    return evaluate_segmenter(
        model, images, scales=scales, flip=multi_scale, pad=pad, masked=masked
    )


def _network(
    kind: str,
    backbone: str,
    images: Images,
    recipe: DenseRecipe,
    pretrained: bool,
    settings: dict[str, Any],
    seed: int,
) -> DenseNetwork:
    """The network of a run, with what the recipe says of it."""
    arguments = {"drop_path_rate": recipe.drop_path, **settings.pop("arguments", {})}
    shared = {
        "pretrained": pretrained,
        "frozen_norm": recipe.frozen_norm,
        "arguments": arguments,
        "seed": seed,
        **settings,
    }
    if isinstance(images, BoxedImages):
        sides, anchor = fitted_sizes(images, recipe)
        sizes = {
            "min_size": sides,
            "max_size": recipe.max_side,
            "anchor_scale": anchor / FIRST_STRIDE[kind],
        }
        few = {
            "rpn_post_nms_top_n_train": recipe.proposals,
            "rpn_post_nms_top_n_test": recipe.proposals // 2,
            "box_batch_size_per_image": recipe.samples,
        }
        head = (few if kind == "mask_rcnn" else {}) | shared.pop("head", {})
        return detector(kind, backbone, images.classes, head=head, **{**sizes, **shared})
    return segmenter(kind, backbone, images.classes, **shared)


def _dataset(images: Images, recipe: DenseRecipe, seed: int, kind: str) -> Any:
    if isinstance(images, BoxedImages):
        return DetectionImages(images, recipe, seed, masks=kind == "mask_rcnn")
    return PixelImages(images, recipe, seed)


def _groups(images: Images) -> list[int]:
    """Upright images are one group and lying ones another; crops are all alike."""
    if isinstance(images, LabelMaps):
        return [0] * len(images)
    return [int(height > width) for width, height in images.sizes]


def _start_or_resume(
    out: Path, asked: Mapping[str, Any], source: str, command: str, processes: int
) -> None:
    """Write run.json, or make sure that the folder's run was asked for the same, and remove what a
    killed process left half-written.

    Raises:
        HirelabError: it holds another run, naming what differs, or something else.
    """
    path, own = out / RUN, json.loads(json.dumps(asked))
    if path.exists():
        try:
            before = dict(read_object(path, "asked")["asked"])
        except (ValueError, TypeError) as error:
            raise HirelabError(f"{path} is no run of this kind: choose another --out") from error
        changed = [name for name in own if own[name] != before.get(name)]
        if changed:
            raise HirelabError(
                f"{out} holds another run (its {' and '.join(changed)} differ): choose another "
                "--out, or remove it to start over"
            )
        remove_unfinished(out)
        return
    if out.is_file() or (out.exists() and set(out.iterdir()) - set(unfinished(out))):
        raise HirelabError(f"{out} holds files of something else: choose another --out")
    info = {
        "asked": own,
        "source": source,
        "command": command,
        "started": time.strftime("%Y-%m-%d"),
        "processes": processes,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_atomic(path, json.dumps(info, indent=1) + "\n")


class _Trainer:
    """Everything that one step needs, and everything that a checkpoint keeps."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: DenseNetwork,
        recipe: DenseRecipe,
        batches: int,
        seed: int,
    ) -> None:
        self.accelerator, self.recipe, self.seed = accelerator, recipe, seed
        self.steps = batches * recipe.epochs
        if accelerator.num_processes > 1:
            synchronise(model, accelerator.device)
        self.model = model.to(accelerator.device)
        self.optimizer = create_optimizer_v2(
            model, "adamw", lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self.running, self.stepper = accelerator.prepare(model, self.optimizer)
        self.progress = Progress()

    def step(self, batch: list[Any], stopped: Callable[[], bool]) -> tuple[float, bool]:
        """One step; the mean loss over all processes, and whether any was asked to stop.

        A loss that is not finite leaves everything as it was.
        """
        device, step = self.accelerator.device, self.progress.step
        set_seed(position_seed(self.seed, step, self.accelerator.process_index))
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(step, self.steps)
        loss = self._loss(batch)
        self.accelerator.backward(loss)
        both = torch.stack([loss.detach(), torch.tensor(float(stopped()), device=device)])
        mean, asked = self.accelerator.reduce(both, "mean").tolist()
        if math.isfinite(mean):
            if self.recipe.clip_grad:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
            self.stepper.step()
            self.progress.step += 1
        self.stepper.zero_grad(set_to_none=True)
        return mean, asked > 0

    def _loss(self, batch: list[Any]) -> Tensor:
        device = self.accelerator.device
        if isinstance(self.model, Detector):
            x = [one.to(device) for one, _ in batch]
            targets = [{k: v.to(device) for k, v in t.items()} for _, t in batch]
            return sum(self.running(x, targets).values(), torch.zeros((), device=device))
        assert isinstance(self.model, Segmenter)
        crops, labels = (torch.stack([pair[i] for pair in batch]).to(device) for i in (0, 1))
        return self.model.loss(self.running(crops), labels, NO_LABEL)

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.stepper}
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def save(self, out: Path) -> None:
        save_checkpoint(out, self._parts(), self.progress)

    def restore(self, out: Path) -> bool:
        found = restore_checkpoint(out, self._parts())
        if found is not None:
            self.progress = found
        return found is not None


def _train_epoch(
    trainer: _Trainer,
    loader: DataLoader,
    sampler: DenseSampler,
    out: Path,
    clock: Clock,
    stopped: Callable[[], bool],
) -> bool:
    """The rest of an epoch; False if it was stopped before its end, with a checkpoint."""
    progress, main = trainer.progress, trainer.accelerator.is_main_process
    bar = tqdm(
        loader,
        f"epoch {sampler.epoch + 1}/{trainer.recipe.epochs}",
        initial=sampler.first_step,
        total=len(sampler),
        disable=None if main else True,
        leave=False,
    )
    trainer.model.train()
    clock.last = time.monotonic()
    for batch in bar:
        loss, asked = trainer.step(batch, stopped)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss became {loss} at step {progress.step + 1:,}; the last checkpoint is "
                f"from before. Lower lr ({trainer.recipe.lr:g}), raise warmup_steps "
                f"({trainer.recipe.warmup_steps}) or set clip_grad, with another --out"
            )
        progress.count(loss, clock.tick())
        bar.set_postfix_str(f"loss {progress.loss:.3f}")
        if progress.step % len(sampler) == 0:
            break
        stops = clock.stops(asked)
        if main and (stops or clock.save_due()):
            trainer.save(out)
        if stops:
            return False
    bar.close()
    return True


def _evaluate(model: DenseNetwork, images: Images) -> Detections | PixelEvaluation:
    if isinstance(images, BoxedImages):
        assert isinstance(model, Detector)
        return evaluate_detector(model, images)
    assert isinstance(model, Segmenter)
    return evaluate_segmenter(model, images)


def _close_epoch(
    trainer: _Trainer, epoch: int, images: Images
) -> tuple[dict[str, float], Detections | PixelEvaluation | None]:
    """Close an epoch: its row of the history, evaluated where the recipe says so."""
    progress, recipe = trainer.progress, trainer.recipe
    row = {
        "epoch": epoch + 1,
        "step": progress.step,
        "lr": recipe.lr_at(progress.step - 1, trainer.steps),
        "loss": progress.loss,
        "images_per_second": recipe.batch_size * progress.loss_count / progress.seconds,
        "seconds": progress.seconds,
    }
    found = None
    if epoch + 1 == recipe.epochs or (epoch + 1) % recipe.evaluate_every == 0:
        found = _evaluate(trainer.model, images)
        row |= _figures(found)
    progress.close_epoch(row)
    return row, found


def _figures(found: Detections | PixelEvaluation) -> dict[str, float]:
    """What the history keeps of an evaluation."""
    if isinstance(found, PixelEvaluation):
        return {"val_miou": found.miou, "val_pixel_accuracy": found.pixel_accuracy}
    masks = {"val_mask_ap": found.mask["ap"]} if found.mask else {}
    return {"val_box_ap": found.box["ap"], "val_box_ap50": found.box["ap50"], **masks}


def _say(row: Mapping[str, float]) -> None:
    figures = "".join(
        f", {name.removeprefix('val_').replace('_', ' ')} {value:.2f} %"
        for name, value in row.items()
        if name.startswith("val_")
    )
    print(
        f"epoch {row['epoch']:.0f}: loss {row['loss']:.3f}{figures}, "
        f"{row['images_per_second']:.1f} images/s",
        flush=True,
    )

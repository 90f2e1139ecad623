"""One step of training, and everything that a checkpoint keeps of it.

timm brings the parts (optimiser, schedule, mixup, erasing, averaging), Accelerate runs them on one
device or many. What is random in a step follows from (seed, step, process).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from ..datasets.transforms import normalise
from .data import position_seed, set_seed
from .distributed import synchronise
from .progress import Progress, restore_checkpoint, save_checkpoint
from .recipes import Recipe

__all__ = ["Trainer"]


class Trainer:
    """Everything that one step needs, and everything that a checkpoint keeps.

    Args:
        accelerator: says on what, and with which processes, it runs.
        network: untrained; trained in place.
        recipe: what the training does.
        classes: of the network's answer.
        steps: in an epoch.
        seed: of the run.
        micro_batch: images a process computes at once; 0 for its whole share of a batch.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        recipe: Recipe,
        classes: int,
        steps: int,
        seed: int,
        micro_batch: int = 0,
    ) -> None:
        self.accelerator, self.recipe = accelerator, recipe
        self.seed, self.micro_batch = seed, micro_batch
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
        self.average = (
            ModelEmaV3(network, recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        )
        # what runs: the network, wrapped for several processes, half precision and the compiler
        self.running, self.stepper = accelerator.prepare(network, self.optimizer)
        mixes = recipe.mixup or recipe.cutmix
        self.mix = Mixup(
            recipe.mixup,
            recipe.cutmix,
            prob=recipe.mixup_prob if mixes else 0.0,
            label_smoothing=recipe.smoothing,
            num_classes=classes,
        )
        self.erase = RandomErasing(recipe.reprob, mode="pixel", device=accelerator.device)
        self.criterion = SoftTargetCrossEntropy()
        self.progress = Progress()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the averaged one, where the recipe averages."""
        return self.average.module if self.average else self.network

    def step(self, x: Tensor, y: Tensor, stopped: Callable[[], bool]) -> tuple[float, bool]:
        """One step on this process's share of a batch.

        Args:
            x: uint8 (N, 3, H, W).
            y: (N,) labels.
            stopped: whether this process was asked to stop.

        Returns:
            The mean loss over all processes, and whether any of them was asked to stop, so that
            all stop at the same step. A loss that is not finite leaves everything as it was.
        """
        step = self.progress.step
        x, y = self.prepare(x, y, step)
        self.schedule.step_update(step)
        loss = self.gradients(x, y)
        both = torch.stack([loss, torch.tensor(float(stopped()), device=loss.device)])
        mean, asked = self.accelerator.reduce(both, "mean").tolist()
        # Read at every step: a step on NaN would poison the weights that are still good.
        if math.isfinite(mean):
            self.stepper.step()
            self.progress.step += 1
            if self.average:
                self.average.update(self.network, self.progress.step)
        self.stepper.zero_grad(set_to_none=True)
        return mean, asked > 0

    def prepare(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """A share of a batch as the network sees it, on its device: normalised, erased and mixed.

        Leaves the random generators where (seed, ``step``, process) puts them.

        Returns:
            float32 (N, 3, H, W), and the answers that are wanted, (N, classes).
        """
        device = self.accelerator.device
        number = position_seed(self.seed, step, self.accelerator.process_index)
        set_seed(number)
        if device.type == "cuda":
            torch.cuda.manual_seed(number)
        x = self.erase(normalise(x.to(device, non_blocking=True)))
        return self.mix(x, y.to(device, non_blocking=True))

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """Backward through the share, in micro-batches where asked; the share's mean loss."""
        size = self.micro_batch or len(x)
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
        """What a checkpoint keeps the state of, by its key there."""
        parts = {"model": self.network, "optimizer": self.stepper}
        if self.average:
            parts["average"] = self.average.module
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def save(self, out: Path) -> None:
        """Write the checkpoint and the history; the ones before stay until these are whole.

        Raises:
            HirelabError: the disk refuses; what was there is still there.
        """
        save_checkpoint(out, self._parts(), self.progress)

    def restore(self, out: Path) -> bool:
        """Go back to the checkpoint in ``out``; False where there is none."""
        found = restore_checkpoint(out, self._parts())
        if found is not None:
            self.progress = found
        return found is not None

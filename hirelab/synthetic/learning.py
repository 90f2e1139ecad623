"""What a network can learn of the generated tasks, beside what the index maps say it could.

token_network       a real Hire-MLP of one stage, whose stem reads one token at a time
line_reach          which lines of tokens reach which in such a network, exactly
train_on_task       trains it on a task and measures every position on fresh images
reach_by_learning   both for `CopyFromDistance`: the reach, learnt
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from ..analysis.reach import reach_through
from ..models.hire_mlp import ConvNormAct, HireMLP, blocks_of, stages_of
from ..rearrange import AXES
from ..results import Result
from .tasks import UNSCORED, CopyFromDistance, Task

__all__ = ["TaskResult", "line_reach", "reach_by_learning", "token_network", "train_on_task"]


# ------------------------------------------------------------------ networks


def token_network(
    task: Task,
    depth: int = 2,
    dim: int = 32,
    region: int = 3,
    shift: int = 1,
    cycle: int = 2,
    *,
    seed: int = 0,
    **settings: Any,
) -> HireMLP:
    """An untrained Hire-MLP of one stage that reads and answers token by token.

    Args:
        depth: blocks; block j shifts by ``(j mod cycle) * shift`` tokens.
        dim: channels, at least 4.
        region, shift: as in `HireMLP`.
        cycle: its ``shift_cycle``.
        seed: of the weights; PyTorch's own random state stays as it was.
        settings: other arguments of `HireMLP`: padding, cross_region, restore, branches, fusion.

    Raises:
        HirelabError: for an impossible choice, naming it and the cure.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        network = HireMLP(
            task.symbols,
            task.questions * task.classes,
            global_pool="",
            depths=(depth,),
            dims=(dim,),
            region=region,
            shift=shift,
            shift_cycle=cycle,
            **settings,
        )
        network.stem = ConvNormAct(task.symbols, dim, 1, stride=1, padding=0)
    network.feature_info[0]["reduction"] = 1
    return network.eval()


def line_reach(network: HireMLP, size: int) -> dict[str, np.ndarray]:
    """Which line reaches which, exactly, through all blocks of a one-stage network.

    A token is reached by another one of the map only if, along each axis, its line is reached by
    the other's: every block may pass on along the height, along the width or not at all.

    Returns:
        For "height" and "width", (size, size) bool: ``[out, in]``. What passes through a gate is
        left out.

    Raises:
        HirelabError: for a network of several stages, whose maps shrink on the way.
    """
    if len(network.stages) != 1:
        raise HirelabError(
            f"The network has {len(network.stages)} stages and token numbers change from one to "
            "the next; give a network of one stage, as token_network builds it."
        )
    reach = {}
    for axis in AXES:
        branches = [getattr(block.hire, axis) for block in blocks_of(stages_of(network)[0])]
        steps = (b.rearrangement(size) for b in branches if b is not None)
        *_, reach[axis] = reach_through(steps, size)
    return reach


# ------------------------------------------------------------------ learning


@dataclass(frozen=True, eq=False)
class TaskResult(Result):
    """What a network has learnt of a task, on images that it was not trained on.

    Attributes:
        task: the task's name and fields.
        network: the rearrangement of every branch, by the branch's path.
        parameters: numbers in the network.
        steps, batch_size, lr: of the training.
        images: how many the accuracy is measured on.
        chance: share of right answers of a token that no other one reaches.
        positions: (questions, size, size) share of right answers, 0..1, NaN where nobody is asked.
        upper_bound: the same for the best network with the same reach and no gate; all NaN for a
            network whose reach is not known.
        loss: (steps,) training loss.
        seconds: of the training.
    """

    task: dict[str, Any]
    network: dict[str, str]
    parameters: int
    steps: int
    batch_size: int
    lr: float
    images: int
    chance: float
    positions: np.ndarray
    upper_bound: np.ndarray
    loss: np.ndarray
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of right answers over all tokens that are asked."""
        return float(np.nanmean(self.positions))

    @property
    def by_distance(self) -> dict[int, tuple[float, float]]:
        """For every distance of `CopyFromDistance`, nearest first: (accuracy, upper bound).

        Raises:
            HirelabError: for another task, which asks for no distance.
        """
        if "distances" not in self.task:
            raise HirelabError(
                f"{self.task['name']} asks for no distance; by_distance is for CopyFromDistance."
            )
        rows = zip(self.task["distances"], self.positions, self.upper_bound, strict=True)
        # where nobody is asked both are NaN, and a foreign network's bound is NaN throughout
        found = {d: (float(np.nanmean(p)), float(np.mean(c[~np.isnan(p)]))) for d, p, c in rows}
        return {d: found[d] for d in sorted(found, key=lambda d: (abs(d), d))}

    def __str__(self) -> str:
        """What was learnt beside what can be: one line, and one more for each distance."""
        possible = float(np.mean(self.upper_bound[~np.isnan(self.positions)]))
        lines = [
            f"{self.task['name']}: {self.accuracy:.1%} right, {possible:.1%} possible, "
            f"{self.chance:.1%} by chance; {self.steps} steps, {self.images} fresh images"
        ]
        if "distances" in self.task:
            rows = self.by_distance.items()
            lines += [f"{d:+3} tokens: {a:.1%} of {c:.1%}" for d, (a, c) in rows]
        return "\n".join(lines)

    def agreement(self, within: float = 0.1) -> float:
        """Share of the positions asked whose accuracy is ``within`` or less from the bound."""
        asked = ~np.isnan(self.positions)
        return float((np.abs(self.positions - self.upper_bound)[asked] <= within).mean())


def train_on_task(
    task: Task,
    network: nn.Module,
    steps: int = 300,
    *,
    batch_size: int = 32,
    lr: float = 0.01,
    images: int = 512,
) -> TaskResult:
    """Train the network on the task, in place, and measure it on fresh images.

    AdamW with one cycle of the learning rate, all images new at every step. Comes out the same
    for the same task and weights (to the last bit on one kind of machine with one thread count).
    The network is left in evaluation mode.

    Args:
        network: from images (n, symbols, size, size) to logits
            (n, questions * classes, size, size); any, but the upper bound is known only for a
            Hire-MLP, of one stage.
        steps, batch_size: images seen are their product; at least 1 each.
        lr: the highest learning rate.
        images: how many to measure on.

    Raises:
        HirelabError: for counts below 1, and a network with answers of another shape.
        RuntimeError: when the loss is no longer a number, naming the step.
    """
    steps = check_whole("steps", steps, 1)
    batch_size = check_whole("batch_size", batch_size, 1)
    images = check_whole("images", images, 1)
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-4)
    # OneCycleLR divides by the steps of each of its two phases: none may be empty
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, max(steps, 10), pct_start=0.2)
    losses = []
    began = time.perf_counter()
    # for dropout and drop path, where the network has them
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
        torch.manual_seed(task.seed)
        network.train()
        for step in range(steps):
            x, target, _ = (t.to(device) for t in task.batch(batch_size, step))
            loss = F.cross_entropy(_answers(task, network, x), target, ignore_index=UNSCORED)
            if not torch.isfinite(loss):
                raise RuntimeError(
                    f"The loss is {loss.item()} at step {step}; give a smaller lr than {lr}."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    seconds = time.perf_counter() - began
    network.eval()
    settings = inspect.signature(type(task)).parameters  # a task keeps what it was made with
    mask = task.mask()
    rearrangements, bound = {}, np.full(mask.shape, np.nan)
    if isinstance(network, HireMLP):
        rearrangements = {k: b.extra_repr() for k, b in network.axis_branches().items()}
        bound = task.upper_bound(line_reach(network, task.size))
    return TaskResult(
        task={"name": type(task).__name__, **{name: getattr(task, name) for name in settings}},
        network=rearrangements,
        parameters=sum(p.numel() for p in network.parameters()),
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        images=images,
        chance=task.chance,
        positions=np.where(mask, _measure(task, network, images, device), np.nan),
        upper_bound=bound,
        loss=np.array(losses),
        seconds=round(seconds, 2),
    )


def _answers(task: Task, network: nn.Module, x: Tensor) -> Tensor:
    """The network's logits as (n, classes, questions, size, size), what cross entropy reads."""
    logits = network(x)
    wanted = (len(x), task.questions * task.classes, task.size, task.size)
    if logits.shape != wanted:
        raise HirelabError(
            f"The network answers with shape {tuple(logits.shape)}; every token must answer "
            f"{task.questions} questions of {task.classes} classes: {wanted}; token_network does."
        )
    return logits.unflatten(1, (task.questions, task.classes)).transpose(1, 2)


@torch.no_grad()
def _measure(task: Task, network: nn.Module, images: int, device: torch.device) -> np.ndarray:
    """(questions, size, size) the share of fresh images in which a token is right."""
    right = torch.zeros(task.questions, task.size, task.size, device=device)
    for step, first in enumerate(range(0, images, 128)):
        x, target, _ = (t.to(device) for t in task.batch(min(128, images - first), step, True))
        right += (_answers(task, network, x).argmax(1) == target).sum(0)
    return (right / images).cpu().numpy().astype(float)


def reach_by_learning(
    distances: Sequence[int] = (-3, -2, -1, 1, 2, 3),
    size: int = 12,
    *,
    axis: str = "height",
    symbols: int = 2,
    steps: int = 300,
    seed: int = 0,
    **network: Any,
) -> TaskResult:
    """Learn to copy from every distance at once, beside the reach that the index maps say.

    Args:
        distances, size, axis, symbols: as in `CopyFromDistance`, on a ring.
        steps: of the training.
        seed: of weights and images.
        network: arguments of `token_network`; without a gate unless ``fusion`` says otherwise, and
            then ``size`` must be a multiple of ``region * symbols``.

    Returns:
        A `TaskResult`; ``by_distance`` has accuracy and truth for each distance, ``positions``
        and ``upper_bound`` for every token.

    Raises:
        HirelabError: for an impossible choice, naming it and the cure.
    """
    network = {"fusion": "sum", "region": 3, **network}
    region = 1 if network["fusion"] == "sum" else network["region"]
    task = CopyFromDistance(size, tuple(distances), symbols, region, axis, seed=seed)
    return train_on_task(task, token_network(task, seed=seed, **network), steps)

"""Generated tasks that isolate what the rearrangement is for. No download; the same by seed.

A picture is a grid of ``size`` x ``size`` tokens, each holding one of a few symbols, one-hot over
the channels. Every token has to answer, so the head is dense:

    CopyFromDistance    which symbol does the token d rows (or columns) away hold?
    TextureInRegion     which way do the stripes run in my region?
    MeetAcrossBorder    what do I and the token beyond my region's border hold together?

No token can guess. An answer hangs on a line (a row, for the axis height) that is drawn apart from
all others, and all answers are equally frequent: who has not heard of that line is right by
``chance``, exactly.

Nor can an average over the map tell, which is what a network's gate hears. Every picture holds
every symbol equally often, in every line and even in every slot of the regions across it, so what
tokens compute by themselves has the same mean in all pictures. What regions compute has not, but
such a mean says the same of all regions in a row of them: for `CopyFromDistance` and
`MeetAcrossBorder` a network without a cross-region step learns nothing from it. With one, and in
`TextureInRegion`, that is not exact; ``fusion="sum"`` builds networks without a gate, for which
`Task.ceiling` holds everywhere.

So the index maps alone say which places can be right, `solve` trains a network and measures beside
it, and `reach_by_learning` does both for the reach.
The networks of `token_network` are real ones, with a stem that reads one token at a time.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..rearrange import AXES, check_whole
from ..results import Result

if TYPE_CHECKING:
    from ..models.hire_mlp import HireMLP

__all__ = [
    "UNSCORED",
    "Batch",
    "CopyFromDistance",
    "MeetAcrossBorder",
    "Solved",
    "Task",
    "TextureInRegion",
    "line_reach",
    "reach_by_learning",
    "solve",
    "token_network",
]

UNSCORED = -100
"""The target where a token is not asked; PyTorch's losses leave it out by themselves."""


class Batch(NamedTuple):
    """Pictures, what every token must answer, and which tokens are asked.

    Attributes:
        x: (n, symbols, size, size) float32, one-hot over the symbols.
        target: (n, questions, size, size) int64 in 0..classes-1, `UNSCORED` where nobody is asked.
        mask: (questions, size, size) bool, True where a token is asked; the same for all pictures.
    """

    x: Tensor
    target: Tensor
    mask: Tensor


class Task(ABC):
    """What the three tasks share. ``size`` and ``seed`` are fields of each.

    A network answers with logits of shape (n, questions * classes, size, size), the classes of the
    first question first.
    """

    size: int
    seed: int
    symbols: int

    def _whole(self, **least: int) -> None:
        """Check the named fields and keep them as Python's own numbers, which can be saved."""
        for name, bound in least.items():
            object.__setattr__(self, name, _at_least(bound, name, getattr(self, name)))

    @property
    def questions(self) -> int:
        """How many answers every token gives."""
        return 1

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many answers there are to a question; all are equally frequent."""

    @property
    def chance(self) -> float:
        """The share of right answers without hearing anybody, 0..1."""
        return 1 / self.classes

    @abstractmethod
    def mask(self) -> np.ndarray:
        """(questions, size, size) bool, True where a token is asked."""

    @abstractmethod
    def ceiling(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        """(questions, size, size) the best share of right answers, 0..1, NaN where nobody is asked.

        Args:
            reach: for "height" and "width", (size, size) bool: ``reach[axis][out, in]`` is True
                where line ``in`` can change line ``out``; see `line_reach`. What a gate hears is
                left out.
        """

    @abstractmethod
    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Symbols (n, size, size) and answers (n, questions, size, size)."""

    def batch(self, n: int, step: int, fresh: bool = False) -> Batch:
        """``n`` pictures; the same for the same task, ``n``, ``step`` and ``fresh``.

        Args:
            n: pictures, at least 1.
            step: which batch, from 0.
            fresh: draw from the pictures kept for measuring, which training never asks for.

        Raises:
            ValueError: for counts that are no whole numbers, or too small.
        """
        n, step = _at_least(1, "n", n), _at_least(0, "step", step)
        rng = np.random.default_rng([self.seed, int(fresh), step])
        symbols, answers = self._draw(rng, n)
        mask = self.mask()
        target = np.where(mask, answers, UNSCORED)
        x = F.one_hot(torch.from_numpy(symbols), self.symbols).permute(0, 3, 1, 2).float()
        return Batch(x.contiguous(), torch.from_numpy(target), torch.from_numpy(mask))


def _at_least(least: int, name: str, value: object) -> int:
    """The count as an int, or a ValueError where it is no whole number or too small."""
    count = check_whole(name, value)
    if count < least:
        raise ValueError(f"{name} is {count}; give at least {least}.")
    return count


def _check_axis(axis: str) -> None:
    if axis not in AXES:
        raise ValueError(f"axis is {axis!r}; choose {' or '.join(AXES)}.")


def _check_lines(size: int, region: int, symbols: int) -> None:
    if size % (region * symbols):
        raise ValueError(
            f"size is {size}, region {region} and symbols {symbols}; every slot of the regions on "
            "a line holds every symbol equally often: give a size that is a multiple of "
            f"{region} x {symbols}."
        )


def _lines(rng: np.random.Generator, n: int, size: int, region: int, symbols: int) -> np.ndarray:
    """(n, size, size) maps of independent rows. In a row the tokens of one slot, ``region`` apart,
    are a shuffle of equally many of each symbol."""
    slot = np.arange(size // region, dtype=np.int64)[:, None] % symbols
    rows = np.broadcast_to(slot, (n, size, size // region, region))
    return rng.permuted(rows, axis=2).reshape(n, size, size)


def _across(rows: np.ndarray, axis: str) -> np.ndarray:
    """What was made for rows, for lines across ``axis``: as it is for height, turned for width."""
    return rows if axis == "height" else np.swapaxes(rows, -1, -2)


def _place(lines: np.ndarray, size: int, axis: str) -> np.ndarray:
    """(questions, size) values of a line as (questions, size, size) values of its tokens."""
    return _across(np.repeat(lines[:, :, None], size, axis=2), axis)


@dataclass(frozen=True)
class CopyFromDistance(Task):
    """Every token answers with the symbol of the token ``d`` further along ``axis``.

    One question a distance, so that one training gives accuracy against distance: the reach.

    Args:
        size: tokens along each side, at least 3 and a multiple of ``region * symbols``.
        distances: in tokens, whole numbers between -size and size; negative is towards lower index.
        symbols: at least 2.
        region: of the network that is to be asked, so that its gate hears nothing of use; a
            network without one can be asked with 1.
        axis: "height" (rows away) or "width" (columns away).
        wrap: whether the line is a ring, as it is for the shift, which rolls: then every token has
            a source, and hearing round the edge counts. Otherwise a token whose source would lie
            outside is not asked.
        seed: of the pictures, 0 or more.

    Raises:
        ValueError: for an impossible choice, naming it and the cure.
    """

    size: int = 12
    distances: tuple[int, ...] = (1,)
    symbols: int = 4
    region: int = 3
    axis: str = "height"
    wrap: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self._whole(size=3, region=1, symbols=2, seed=0)  # a Hire-MLP reads 3 x 3 or more
        _check_lines(self.size, self.region, self.symbols)
        _check_axis(self.axis)
        given = (self.distances,) if np.ndim(self.distances) == 0 else tuple(self.distances)
        object.__setattr__(self, "distances", tuple(check_whole("distance", d) for d in given))
        if not given or len(set(given)) < len(given) or max(map(abs, given)) >= self.size:
            raise ValueError(
                f"distances is {self.distances}; give one or more, each once and shorter than the "
                f"line of {self.size}."
            )

    @property
    def questions(self) -> int:
        return len(self.distances)

    @property
    def classes(self) -> int:
        return self.symbols

    def _sources(self) -> np.ndarray:
        """(questions, size) the line that every line copies from, not wrapped yet."""
        return np.arange(self.size) + np.array(self.distances)[:, None]

    def mask(self) -> np.ndarray:
        sources = self._sources()
        asked = np.full(sources.shape, True)
        if not self.wrap:
            asked = (sources >= 0) & (sources < self.size)
        return _place(asked, self.size, self.axis)

    def ceiling(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        heard = reach[self.axis][np.arange(self.size), self._sources() % self.size]
        best = _place(np.where(heard, 1.0, self.chance), self.size, self.axis)
        return np.where(self.mask(), best, np.nan)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = _lines(rng, n, self.size, self.region, self.symbols)
        answers = rows[:, self._sources() % self.size]
        return _across(rows, self.axis), _across(answers, self.axis)


@dataclass(frozen=True)
class TextureInRegion(Task):
    """Every token says which way the symbols of its region rise: four directions, on the diagonals.

    The map is cut into regions of ``region`` x ``region`` tokens, as an unshifted network cuts it.
    From token to token the symbols of a region go up or down by one, round the ring of symbols,
    along the height and along the width, from a start of its own. A token alone knows nothing
    (a quarter right); who also hears along one axis, one of the two answers (a half); nothing
    beyond the region helps.

    Args:
        size: tokens along each side, a multiple of ``region``.
        region: at least 3: on a ring of two symbols up and down are the same. There are as many
            symbols, so that every line of a region holds each of them once.
        seed: of the pictures, 0 or more.

    Raises:
        ValueError: for an impossible choice, naming it and the cure.
    """

    size: int = 12
    region: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        self._whole(size=3, region=3, seed=0)
        if self.size % self.region:
            raise ValueError(
                f"size is {self.size} and region {self.region}; every texture fills its region: "
                "give a size that is a multiple of region."
            )

    @property
    def symbols(self) -> int:
        return self.region

    @property
    def classes(self) -> int:
        return 4  # 2 * (down the height) + (down the width)

    def mask(self) -> np.ndarray:
        return np.full((1, self.size, self.size), True)

    def ceiling(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        line = np.arange(self.size)
        apart = line[:, None] - line
        together = line[:, None] // self.region == line // self.region
        # half a ring away is the same symbol up and down
        telling = together & (2 * apart % self.region != 0)
        height, width = ((reach[axis] & telling).any(1) for axis in ("height", "width"))
        return self.chance * (1.0 + height[:, None]) * (1.0 + width) * self.mask()

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        regions = self.size // self.region
        grid = (n, regions, regions)
        start, texture = (rng.integers(high, size=grid) for high in (self.region, self.classes))
        start, texture = (v.repeat(self.region, 1).repeat(self.region, 2) for v in (start, texture))
        within = np.arange(self.size) % self.region
        up_height, up_width = 1 - 2 * (texture // 2), 1 - 2 * (texture % 2)
        symbols = (start + up_height * within[:, None] + up_width * within) % self.symbols
        return symbols, texture[:, None]


@dataclass(frozen=True)
class MeetAcrossBorder(Task):
    """The tokens on the two sides of a region border both answer with their sum, modulo symbols.

    With two symbols: do we hold the same, or not? Only the last token of a region and the first of
    the next are asked, along ``axis``; regions are those of an unshifted network. Each needs the
    other one, from which no mixing inside regions ever brings it anything.

    Args:
        size: tokens along each side, a multiple of ``region * symbols``.
        region: at least 2, or every token would stand on two borders.
        symbols: at least 2.
        axis: "height" or "width".
        seed: of the pictures, 0 or more.

    Raises:
        ValueError: for an impossible choice, naming it and the cure.
    """

    size: int = 12
    region: int = 3
    symbols: int = 2
    axis: str = "height"
    seed: int = 0

    def __post_init__(self) -> None:
        self._whole(size=3, region=2, symbols=2, seed=0)
        _check_lines(self.size, self.region, self.symbols)
        _check_axis(self.axis)

    @property
    def classes(self) -> int:
        return self.symbols

    def _partners(self) -> np.ndarray:
        """(1, size) the line beyond the border that a line stands at, itself where at none."""
        partners = np.arange(self.size)
        first = partners[self.region :: self.region].copy()
        partners[first], partners[first - 1] = first - 1, first
        return partners[None]

    def mask(self) -> np.ndarray:
        return _place(self._partners() != np.arange(self.size), self.size, self.axis)

    def ceiling(self, reach: Mapping[str, np.ndarray]) -> np.ndarray:
        heard = reach[self.axis][np.arange(self.size), self._partners()]
        best = _place(np.where(heard, 1.0, self.chance), self.size, self.axis)
        return np.where(self.mask(), best, np.nan)

    def _draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = _lines(rng, n, self.size, self.region, self.symbols)
        answers = (rows[:, None] + rows[:, self._partners()]) % self.symbols
        return _across(rows, self.axis), _across(answers, self.axis)


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
        ValueError: for an impossible choice, naming it and the cure.
    """
    # here, because data sets stand below networks, and a task needs none
    from ..models.hire_mlp import ConvNormAct, HireMLP

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
    """Which line can have heard of which, exactly, through all blocks of a one-stage network.

    A token hears another one of the map only if, along each axis, its line hears the other's: every
    block may pass on along the height, along the width or not at all.

    Returns:
        For "height" and "width", (size, size) bool: ``[out, in]``. What a gate hears is left out.

    Raises:
        ValueError: for a network of several stages, whose maps shrink on the way.
    """
    from ..provenance import heard  # here for the same reason as in token_network

    if len(network.stages) != 1:
        raise ValueError(
            f"The network has {len(network.stages)} stages and token numbers change from one to "
            "the next; give a network of one stage, as token_network builds it."
        )
    reach = {}
    for axis in AXES:
        branches = [getattr(block.hire, axis) for block in network.stages[0].blocks]
        *_, reach[axis] = heard((b.rearrangement(size) for b in branches if b is not None), size)
    return reach


# ------------------------------------------------------------------ learning


@dataclass(frozen=True, eq=False)
class Solved(Result):
    """What a network has learnt of a task, on pictures that it was not trained on.

    Attributes:
        task: the task's name and fields.
        network: the rearrangement of every branch, by the branch's path.
        parameters: numbers in the network.
        steps, batch, lr: of the training.
        pictures: how many the accuracy is measured on.
        chance: share of right answers without hearing anybody.
        places: (questions, size, size) share of right answers, 0..1, NaN where nobody is asked.
        ceiling: the same for the best network with the same reach and no gate; all NaN for a
            network whose reach is not known.
        loss: (steps,) training loss.
        seconds: of the training.
    """

    task: dict[str, Any]
    network: dict[str, str]
    parameters: int
    steps: int
    batch: int
    lr: float
    pictures: int
    chance: float
    places: np.ndarray
    ceiling: np.ndarray
    loss: np.ndarray
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of right answers over all tokens that are asked."""
        return float(np.nanmean(self.places))

    @property
    def by_distance(self) -> dict[int, tuple[float, float]]:
        """For every distance of `CopyFromDistance`, nearest first: (accuracy, ceiling).

        Raises:
            ValueError: for another task, which asks for no distance.
        """
        if "distances" not in self.task:
            raise ValueError(
                f"{self.task['name']} asks for no distance; by_distance is for CopyFromDistance."
            )
        rows = zip(self.task["distances"], self.places, self.ceiling, strict=True)
        # where nobody is asked both are NaN, and a foreign network's ceiling is NaN throughout
        found = {d: (float(np.nanmean(p)), float(np.mean(c[~np.isnan(p)]))) for d, p, c in rows}
        return {d: found[d] for d in sorted(found, key=lambda d: (abs(d), d))}

    def __str__(self) -> str:
        """What was learnt beside what can be, in a line or, for distances, a line each."""
        possible = float(np.mean(self.ceiling[~np.isnan(self.places)]))
        lines = [
            f"{self.task['name']}: {self.accuracy:.1%} right, {possible:.1%} possible, "
            f"{self.chance:.1%} by chance; {self.steps} steps, {self.pictures} fresh pictures"
        ]
        if "distances" in self.task:
            rows = self.by_distance.items()
            lines += [f"{d:+3} tokens: {a:.1%} of {c:.1%}" for d, (a, c) in rows]
        return "\n".join(lines)

    def agreement(self, within: float = 0.1) -> float:
        """Share of the places asked whose accuracy is at most ``within`` from the ceiling."""
        asked = ~np.isnan(self.places)
        return float((np.abs(self.places - self.ceiling)[asked] <= within).mean())


def solve(
    task: Task,
    network: nn.Module,
    steps: int = 300,
    *,
    batch: int = 32,
    lr: float = 0.01,
    pictures: int = 512,
) -> Solved:
    """Train the network on the task, in place, and measure it on fresh pictures.

    AdamW with one cycle of the learning rate, all pictures new at every step. Comes out the same
    for the same task and weights (to the last bit on one kind of machine with one thread count).
    The network is left in evaluation mode.

    Args:
        network: from pictures (n, symbols, size, size) to logits
            (n, questions * classes, size, size); any, but `Solved.ceiling` is known only for
            Hire-MLP of one stage.
        steps, batch: pictures seen are their product; at least 1 each.
        lr: the highest learning rate.
        pictures: how many to measure on.

    Raises:
        ValueError: for counts below 1, and a network with answers of another shape.
        RuntimeError: when the loss is no longer a number, naming the step.
    """
    steps, batch, pictures = (
        _at_least(1, name, value)
        for name, value in (("steps", steps), ("batch", batch), ("pictures", pictures))
    )
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
            x, target, _ = (t.to(device) for t in task.batch(batch, step))
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
    known = hasattr(network, "axis_branches")
    mask = task.mask()
    return Solved(
        task={"name": type(task).__name__, **asdict(task)},
        network={k: b.extra_repr() for k, b in network.axis_branches().items()} if known else {},
        parameters=sum(p.numel() for p in network.parameters()),
        steps=steps,
        batch=batch,
        lr=lr,
        pictures=pictures,
        chance=task.chance,
        places=np.where(mask, _measure(task, network, pictures, device), np.nan),
        ceiling=task.ceiling(line_reach(network, task.size))
        if known
        else np.full(mask.shape, np.nan),
        loss=np.array(losses),
        seconds=round(seconds, 2),
    )


def _answers(task: Task, network: nn.Module, x: Tensor) -> Tensor:
    """The network's logits as (n, classes, questions, size, size), what cross entropy reads."""
    logits = network(x)
    wanted = (len(x), task.questions * task.classes, task.size, task.size)
    if logits.shape != wanted:
        raise ValueError(
            f"The network answers with shape {tuple(logits.shape)}; every token must answer "
            f"{task.questions} questions of {task.classes} classes: {wanted}; token_network does."
        )
    return logits.unflatten(1, (task.questions, task.classes)).transpose(1, 2)


@torch.no_grad()
def _measure(task: Task, network: nn.Module, pictures: int, device: torch.device) -> np.ndarray:
    """(questions, size, size) the share of fresh pictures in which a token is right."""
    right = torch.zeros(task.questions, task.size, task.size, device=device)
    for step, first in enumerate(range(0, pictures, 128)):
        x, target, _ = (t.to(device) for t in task.batch(min(128, pictures - first), step, True))
        right += (_answers(task, network, x).argmax(1) == target).sum(0)
    return (right / pictures).cpu().numpy().astype(float)


def reach_by_learning(
    distances: Sequence[int] = (-3, -2, -1, 1, 2, 3),
    size: int = 12,
    *,
    axis: str = "height",
    symbols: int = 2,
    steps: int = 300,
    seed: int = 0,
    **network: Any,
) -> Solved:
    """Learn to copy from every distance at once, beside what the index maps say can be heard.

    Args:
        distances, size, axis, symbols: as in `CopyFromDistance`, on a ring.
        steps: of the training.
        seed: of weights and pictures.
        network: arguments of `token_network`; without a gate unless ``fusion`` says otherwise, and
            then ``size`` must be a multiple of ``region * symbols``.

    Returns:
        A `Solved`; ``by_distance`` has accuracy and truth for each distance, ``places`` and
        ``ceiling`` for every token.

    Raises:
        ValueError: for an impossible choice, naming it and the cure.
    """
    network = {"fusion": "sum", "region": 3, **network}
    region = 1 if network["fusion"] == "sum" else network["region"]
    task = CopyFromDistance(size, distances, symbols, region, axis, seed=seed)
    return solve(task, token_network(task, seed=seed, **network), steps)

"""Networks that learn a generated task before the reader's eyes.

learn_beside   trains networks one after another on one task and measures them on the way
live           shows a growing figure of that in a notebook
Learning       what came of it: accuracy by distance, moment by moment, beside what is possible

The training itself is `train_on_task`, untouched: whoever watches leaves no trace in what is
learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.checks import check_whole
from .._shared.errors import HirelabError
from .._shared.tables import table
from ..hooks.forward import eval_mode
from ..models.hire_mlp import HireMLP
from ..results import Result
from .learning import line_reach, train_on_task
from .tasks import CopyFromDistance

if TYPE_CHECKING:
    from ..viz.figures import Figure

__all__ = ["Learning", "learn_beside", "live"]

IMAGES = 128
"""Fresh images that every moment is measured on: an accuracy is then good to about a point."""


@dataclass(frozen=True, eq=False, repr=False)
class Learning(Result):
    """How well networks copied from every distance, moment by moment.

    Attributes:
        names: of the networks, in the order of their training.
        distances: in tokens, rising; each is the mean over both directions, where both are asked.
        moments: (moments,) training steps done before each measurement.
        accuracy: (names, moments, distances) share of right answers on fresh images, 0..1; NaN
            where a network has not come to that moment yet.
        possible: (names, distances) the best that each network's index maps allow, 0..1.
        chance: share of right answers of a token that knows nothing, 0..1.
        axis: along which is copied, "height" or "width".
    """

    names: list[str]
    distances: list[int]
    moments: np.ndarray
    accuracy: np.ndarray
    possible: np.ndarray
    chance: float
    axis: str

    def learnt_after(self, within: float = 0.05) -> np.ndarray:
        """(names, distances) the steps after which the accuracy is ``within`` of what is possible,
        for the first time; NaN for what stays below, and for what no more than chance is possible.
        """
        close = self.accuracy >= self.possible[:, None] - within
        steps = self.moments[close.argmax(1)].astype(float)
        learnable = self.possible > self.chance + within
        return np.where(close.any(1) & learnable, steps, np.nan)

    @property
    def shortfall(self) -> float:
        """By how much the last measurement stays below what is possible at most, 0..1."""
        return max(0.0, float(np.max(self.possible - self.accuracy[:, -1])))

    def plot(self) -> Figure:
        """A panel for each network: a line for every distance, with what is possible dashed."""
        from ..viz.learning import learning_curves

        return learning_curves(
            self.names,
            self.distances,
            self.moments,
            self.accuracy,
            self.possible,
            self.chance,
            "rows" if self.axis == "height" else "columns",
        )

    def __repr__(self) -> str:
        return f"{' and '.join(self.names)}, measured after {self.moments[-1]} steps"

    def __str__(self) -> str:
        """What is possible, a line for each network, and how near all of it was learnt."""
        unit = "row" if self.axis == "height" else "column"
        head = ["possible, %", *(f"{d} {unit}{'s' * (d > 1)} away" for d in self.distances)]
        rows = [[name, *(f"{100 * share:.1f}" for share in one)]
                for name, one in zip(self.names, self.possible, strict=True)]  # fmt: skip
        # rounded up: the same on every machine, nearly
        points = ceil(100 * self.shortfall)
        return f"{table([head, *rows], 'lr')}\nlearnt, within {points} point{'s' * (points != 1)}"


def learn_beside(
    task: CopyFromDistance,
    networks: Mapping[str, HireMLP],
    steps: int = 100,
    every: int = 5,
    *,
    show: Callable[[Learning], None] | None = None,
    **settings: Any,
) -> Learning:
    """Train networks on one task, one after another and in place, and measure each on the way.

    Args:
        networks: by name; each of one stage, as `token_network` builds it.
        steps: of each training; ``settings`` are the other arguments of `train_on_task`.
        every: steps from one measurement to the next.
        show: is given what is known so far after every measurement; `live` in a notebook.

    Returns:
        A `Learning`. The networks are those of `train_on_task`, to the last bit.

    Raises:
        HirelabError: for no network, counts below 1, and as `train_on_task`.
    """
    steps, every = check_whole("steps", steps, 1), check_whole("every", every, 1)
    if not networks:
        raise HirelabError("learn_beside got no network; give at least one, by name.")
    far = np.abs(task.distances)
    distances = sorted(set(far.tolist()))

    def by_distance(share: np.ndarray) -> list[float]:
        """Of (questions, size, size) with NaN where nobody is asked."""
        asked = np.where(task.mask(), share, np.nan)
        return [float(np.nanmean(asked[far == d])) for d in distances]

    moments = np.array(sorted({*range(0, steps, every), steps}))
    accuracy = np.full((len(networks), len(moments), len(distances)), np.nan)
    possible = [by_distance(task.upper_bound(line_reach(n, task.size))) for n in networks.values()]

    def so_far() -> Learning:
        return Learning(
            names=list(networks),
            distances=distances,
            moments=moments,
            accuracy=accuracy.copy(),
            possible=np.array(possible),
            chance=task.chance,
            axis=task.axis,
        )

    for row, network in zip(accuracy, networks.values(), strict=True):

        def look(step: int, row: np.ndarray = row, network: HireMLP = network) -> None:
            found = np.flatnonzero(moments == step)
            if len(found):
                row[found[0]] = by_distance(_measure(task, network))
                if show is not None:
                    show(so_far())

        with _before_every_step(network, look):
            train_on_task(task, network, steps, **settings)
        look(steps)
    return so_far()


@contextmanager
def _before_every_step(network: nn.Module, look: Callable[[int], None]) -> Iterator[None]:
    """Call ``look(step)`` before each training step, counted from 0."""
    step = 0

    def count(module: nn.Module, _: Any) -> None:
        nonlocal step
        if module.training:  # and not while it is measured
            now, step = step, step + 1
            look(now)

    handle = network.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _measure(task: CopyFromDistance, network: HireMLP) -> np.ndarray:
    """(questions, size, size) the share of fresh images in which a token is right."""
    x, target, _ = task.batch(IMAGES, 0, True)
    with eval_mode(network):
        logits: Tensor = network(x)
    answers = logits.unflatten(1, (task.questions, task.classes)).argmax(2)
    return (answers == target).double().mean(0).numpy()


def live(every: int = 3) -> Callable[[Learning], None]:
    """For ``show`` of `learn_beside`: one figure in a notebook that grows while networks learn.

    Args:
        every: measurements from one drawing to the next, since drawing takes longer than a step.
    """
    from IPython.display import display

    handle: Any = None
    calls = 0

    def show(learning: Learning) -> None:
        nonlocal handle, calls
        calls += 1
        whole = not np.isnan(learning.accuracy).any()
        if handle is None:
            handle = display(_Growing(learning), display_id=True)
        elif whole or calls % every == 0:
            handle.update(_Growing(learning))

    return show


@dataclass(frozen=True)
class _Growing:
    """A figure whose text stays the same while it grows, as a stored notebook is compared by it."""

    learning: Learning

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        names = " and ".join(self.learning.names)
        bundle = self.learning.plot()._repr_mimebundle_()
        return {**bundle, "text/plain": f"accuracy by distance while {names} learn"}

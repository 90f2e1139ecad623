"""Why cells should differ: the generated tasks, learnt with the rearrangement of each stage.

A small data set cannot tell most cells apart. What a rearrangement lets a token reach can be told:
each stage of a cell becomes a small network that reads token by token, learns the tasks in `TASKS`
and is measured beside what the index maps say is possible.

*Stage by stage*, because a cell is a choice for each stage and many cells differ in one alone:
regions ``4,3,3,2`` and ``4,3,3,3`` are the same up to the last, and shifts ``2,2,2,2`` are a choice
for regions of 4, yet no shift at all for the region of 2 in the last stage on an even map. All
stages are asked on the same maps, so that they can be compared.
*Two blocks*, one that does not shift and one that does, as every stage of the published networks
begins. *The paper's sum* joins the branches: the gate reads the whole map and would hide reach
(`Task.upper_bound` holds without it). ``fc_layers`` and ``fusion`` change no reach, and cells that
differ in these alone have the same diagnostics.

    diagnostic_runs(cells, seeds)     every training that is needed, each once: ``key``, ``run()``
    diagnosis_of(cell, entries)       what came of them for one cell
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._shared.checks import check_whole
from .._shared.tables import table
from ..analysis.reach import reach_through
from ..models.hire_mlp import HireMLP
from ..rearrange import AXES, Rearrangement
from ..results import Result
from ..synthetic.learning import token_network, train_on_task
from ..synthetic.tasks import CopyFromDistance, MeetAcrossBorder, Task, TextureInRegion
from .ledger import Entry, RunKey
from .source import DIAGNOSTIC, circumstances, code_hash
from .tables import Cell

if TYPE_CHECKING:
    from ..viz.figures import Figure

RECIPE: Mapping[str, Any] = {
    "depth": 2,
    "dim": 48,
    "steps": 200,
    "batch_size": 8,
    "lr": 0.01,
    "images": 512,
}
"""Blocks and channels of the network, its training, and on how many fresh images it is measured.

Long enough: what stays below a bound is the scatter of guesses, which a sample of images has."""

TASKS: Mapping[str, Task] = {
    # 14 tokens, as in stage 2 at 224 pixels; 3, 4 and 5 do not divide them, so padding is seen.
    "copy": CopyFromDistance(14, tuple(d for d in range(-6, 7) if d), symbols=2, region=1),
    # Regions of 2, 3 and 4 all end at token 12.
    "border": MeetAcrossBorder(24, region=12),
    # One texture fills the map. Were there borders between textures inside a network's regions,
    # its layers, which are the same everywhere, could not know of them and would learn less than
    # reach allows.
    "texture": TextureInRegion(12, region=12),
}
"""The tasks by name, with seed 0. Chosen so that a network of any region from 1 to 5 can be asked;
their own regions are fixed, so that all cells answer the same questions."""

ARGUMENTS = ("region", "shift", "padding", "cross_region", "restore", "branches")
"""What of a cell decides its reach."""

# Settings from the plainest on; see `_plain`.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "shift": (0, 1),
    "cross_region": ("shift",),
    "restore": (True,),
    "padding": ("circular",),
}


@dataclass(frozen=True)
class Diagnostic:
    """One small training: the rearrangement of a stage, on a task. `diagnostic` makes it.

    Attributes:
        task: with the seed of its images, which is that of the weights too.
        settings: ((name, value), ...) of every name in `ARGUMENTS`; networks that are equal as
            built have equal settings.
    """

    task: Task
    settings: tuple[tuple[str, Any], ...]

    @property
    def key(self) -> RunKey:
        """What it is called in the ledger."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.settings}  # as in JSON
        arguments = {**plain, "fusion": "sum"}
        data = {"task": repr(self.task)}
        return RunKey("token_network", arguments, dict(RECIPE), data, self.task.seed, 0)

    @property
    def bounds(self) -> dict[str, float]:
        """For each question the best accuracy that the index maps allow, percent."""
        settings, size = dict(self.settings), self.task.size
        reach = {}
        for axis in AXES:
            blocks = _blocks(settings, size) if axis in settings["branches"] else []
            *_, reach[axis] = reach_through(blocks, size)
        return _by_question(self.task, self.task.upper_bound(reach))

    def network(self) -> HireMLP:
        """The network, untrained: block j shifts by j times the stage's shift."""
        key = self.key
        depth, dim = RECIPE["depth"], RECIPE["dim"]
        return token_network(self.task, depth, dim, cycle=depth, seed=key.seed, **key.arguments)

    @property
    def label(self) -> str:
        settings = (f"{k}={_words(v)}" for k, v in self.settings)
        return f"{type(self.task).__name__} {' '.join(settings)}, seed {self.task.seed}"

    @property
    def source(self) -> str:
        return code_hash(DIAGNOSTIC)

    @property
    def cost(self) -> float:
        return float(self.task.size**2)  # the same network and steps for every task

    def run(self, out: Path | None = None, progress: object = None) -> Entry:
        """Train and measure: about 5 s on one core. The same on one kind of machine.

        Args:
            out, progress: of every job of a sweep; this one needs neither.

        Returns:
            An entry with ``top1`` over all positions asked, and in ``measured`` for each question
            {"accuracy": percent, "bound": percent}: "-6" to "+6" for the distances in tokens,
            "border", "texture".

        Raises:
            RuntimeError: when the loss is no longer a number.
        """
        network = self.network()
        how = {name: RECIPE[name] for name in ("steps", "batch_size", "lr", "images")}
        result = train_on_task(self.task, network, **how)
        accuracies = _by_question(self.task, result.positions)
        bounds = _by_question(self.task, result.upper_bound)
        return Entry(
            self.key,
            "done",
            top1=100 * result.accuracy,
            parameters=result.parameters,
            seconds=result.seconds,
            images_per_second=result.steps * result.batch_size / max(result.seconds, 0.01),
            source=self.source,
            about=circumstances(),
            measured={q: {"accuracy": accuracies[q], "bound": bounds[q]} for q in bounds},
        )


def diagnostic(cell: Cell, stage: int, task: Task, seed: int = 0) -> Diagnostic:
    """What one stage of a cell is asked.

    Args:
        stage: counted from 0.
        task: its own seed is replaced by ``seed``.

    Raises:
        HirelabError: for a stage that the cell does not have, or a negative seed.
    """
    settings = _plain(_stage(cell, stage), task.size)
    seeded = dataclasses.replace(task, seed=seed)  # type: ignore[type-var]  # Task itself is none
    return Diagnostic(seeded, tuple(settings.items()))


def diagnostic_runs(cells: Iterable[Cell], seeds: Iterable[int] = range(3)) -> list[Diagnostic]:
    """Every training that the diagnostics of these cells need, each once.

    First all with the first seed, then all with the next: wherever a sweep is cut off, as many
    seeds of one cell are there as of another.
    """
    chosen = list(cells)
    asked = (
        diagnostic(cell, stage, task, seed)
        for seed in seeds
        for cell in chosen
        for task in TASKS.values()
        for stage in range(_stages(cell))
    )
    return list(dict.fromkeys(asked))


@dataclass(frozen=True, eq=False)
class Diagnosis(Result):
    """What the stages of one cell have learnt, beside what they could.

    Attributes:
        cell: its name.
        regions, shifts: of every stage.
        questions: "-6" to "+6" for copying from so many tokens away, "border", "texture".
        seeds: of the trainings.
        accuracy: (seeds, stages, questions) percent, NaN where there is no training yet.
        bound: (stages, questions) percent, the best that the index maps allow.
    """

    cell: str
    regions: tuple[int, ...]
    shifts: tuple[int, ...]
    questions: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: np.ndarray
    bound: np.ndarray

    @property
    def distances(self) -> dict[int, int]:
        """{distance in tokens: its place among the questions}."""
        numbers = enumerate(self.questions)
        return {int(text): place for place, text in numbers if text[0] in "+-"}

    @property
    def shortfall(self) -> float:
        """The most points by which any training stayed below a bound; NaN without any."""
        short = self.bound - self.accuracy
        return float("nan") if np.isnan(short).all() else float(np.nanmax(short))

    def plot(self) -> Figure:
        """A panel a stage: what was learnt of every question beside what is possible."""
        return side_by_side([self])

    def __str__(self) -> str:
        """A line a question, a column a stage: accuracy, the mean over seeds, of the bound."""
        settings = zip(self.regions, self.shifts, strict=True)
        rows = [
            ["stage", *map(str, range(len(self.regions)))],
            ["region, shift", *(f"{region}, {shift}" for region, shift in settings)],
        ]
        for question, learnt, best in zip(
            self.questions, np.moveaxis(self.accuracy, 2, 0), self.bound.T, strict=True
        ):
            name = f"{question} tokens" if question[0] in "+-" else question
            rows.append([name, *map(_of_bound, learnt.T, best)])
        seeds = ", ".join(map(str, self.seeds)) or "none"
        return f"{self.cell}: % right of % possible; seeds: {seeds}\n{table(rows, 'lr')}"


def diagnosis_of(cell: Cell, entries: Iterable[Entry]) -> Diagnosis:
    """What the ledger's entries say of a cell; those of other cells and failed ones are passed by.

    Bounds need no training: without any entry there are bounds alone.
    """
    done = {entry.key.name: entry for entry in entries if entry.status == "done"}
    stages = range(_stages(cell))

    def learnt(seed: int, stage: int) -> Iterator[float]:
        for task in TASKS.values():
            entry = done.get(diagnostic(cell, stage, task, seed).key.name)
            for question in _questions(task):
                yield entry.measured[question]["accuracy"] if entry else float("nan")

    each = [[diagnostic(cell, stage, task).bounds for task in TASKS.values()] for stage in stages]
    bound = np.array([[b for bounds in row for b in bounds.values()] for row in each])
    found = {}
    for seed in sorted({entry.key.seed for entry in done.values()}):
        accuracy = np.array([list(learnt(seed, stage)) for stage in stages])
        if not np.isnan(accuracy).all():
            found[seed] = accuracy
    settings = [_stage(cell, stage) for stage in stages]
    return Diagnosis(
        str(cell),
        tuple(one["region"] for one in settings),
        tuple(one["shift"] for one in settings),
        tuple(question for task in TASKS.values() for question in _questions(task)),
        tuple(found),
        np.array(list(found.values())).reshape(len(found), *bound.shape),
        bound,
    )


def _words(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def side_by_side(diagnoses: Sequence[Diagnosis]) -> Figure:
    """A row of panels for each cell, see `Diagnosis.plot`."""
    from ..viz.ablation import learnt

    def said(one: Diagnosis) -> str:
        return f"{max(0, ceil(one.shortfall))}" if one.seeds else "not trained yet"

    return learnt(
        [one.cell for one in diagnoses],
        [
            [
                f"stage {stage}: region {region}, shift {shift}"
                for stage, (region, shift) in enumerate(zip(one.regions, one.shifts, strict=True))
            ]
            for one in diagnoses
        ],
        diagnoses[0].questions,
        [one.accuracy for one in diagnoses],
        [one.bound for one in diagnoses],
        "below what is possible by at most so many points: "
        + "; ".join(f"{one.cell} {said(one)}" for one in diagnoses),
    )


def _of_bound(accuracies: np.ndarray, bound: float) -> str:
    """The mean over the seeds that are there, of the bound."""
    there = accuracies[~np.isnan(accuracies)]
    return f"{there.mean():.1f} of {bound:.1f}" if len(there) else f"- of {bound:.1f}"


# ------------------------------------------------------------------ settings


def _stages(cell: Cell) -> int:
    return len(dict(cell.arguments)["region"])


def _stage(cell: Cell, stage: int) -> dict[str, Any]:
    """What of a stage decides its reach, as arguments of `token_network`."""
    stage = check_whole("stage", stage, 0, _stages(cell) - 1)
    given = dict(cell.arguments)
    whole = {name: given[name] for name in ARGUMENTS}
    return whole | {name: given[name][stage] for name in ("region", "shift")}


def _plain(settings: dict[str, Any], size: int) -> dict[str, Any]:
    """The plainest settings that build the same network for lines of ``size`` tokens.

    A region of 1 shifts nothing, a line of whole regions is not padded, and a shift by a whole
    region is none: the index maps say so, whatever the reason.
    """
    same = _wiring(settings, size)
    for name, values in _PLAIN.items():
        for value in values:
            plainer = {**settings, name: value}
            if _wiring(plainer, size) == same:
                settings = plainer
                break
    return settings


def _wiring(settings: Mapping[str, Any], size: int) -> list[tuple[list[list[int]], list[int]]]:
    """For each block, for every token of the result: its region's tokens in order, and its slot."""
    return [
        (
            block.slots[block.landing // block.region].tolist(),
            (block.landing % block.region).tolist(),
        )
        for block in _blocks(settings, size)
    ]


def _blocks(settings: Mapping[str, Any], size: int) -> list[Rearrangement]:
    """The index map of each block's branches."""
    names = ("region", "padding", "cross_region", "restore")
    still = Rearrangement(size, **{name: settings[name] for name in names})
    return [
        dataclasses.replace(still, shift=block * settings["shift"])
        for block in range(RECIPE["depth"])
    ]


# ------------------------------------------------------------------ questions


def _questions(task: Task) -> list[str]:
    """What a task asks every token, in the order of its answers."""
    if isinstance(task, CopyFromDistance):
        return [f"{distance:+}" for distance in task.distances]
    return ["border" if isinstance(task, MeetAcrossBorder) else "texture"]


def _by_question(task: Task, positions: np.ndarray) -> dict[str, float]:
    """Mean over the positions asked, percent, of (questions, size, size) shares."""
    means = (float(100 * np.nanmean(share)) for share in positions)
    return dict(zip(_questions(task), means, strict=True))

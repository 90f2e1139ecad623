"""A sweep: what of an ablation is missing in its ledger is run, until nothing is.

    Job          something with a key and a `run`: a `Training`, or a diagnostic
    plan         the trainings of a protocol, seed by seed over all cells
    work_through runs what is missing; any number of processes may do so in one folder
    take         one run of it: its lease, its entry, its folder
    status       what is done, missing, stale, failed, and what the rest will take

Wherever a sweep is stopped the tables are balanced, and the same command goes on: a run that was
cut off resumes from its checkpoint, one that is in the ledger is not done again. A run that fails
keeps its reason and the sweep goes on; what is wrong with the disk or the data stops it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol as Interface

import torch
from torch import nn
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.tables import table
from ..analysis.cost import count_macs
from ..results import hardware
from ..training.evaluation import Evaluation
from ..training.loop import DivergedError, train
from ..training.network import build_network
from ..training.recipes import PRESETS, Recipe
from ..training.runs import EVALUATION
from .ledger import Entry, Ledger, RunKey, pack
from .protocols import Protocol
from .source import TRAINING, circumstances, code_hash, stale
from .tables import Cell

__all__ = [
    "Job",
    "Status",
    "Training",
    "line_of",
    "open_jobs",
    "plan",
    "status",
    "take",
    "warn_of_damage",
    "work_through",
]

POLL_SECONDS = 2.0
"""Between looks at runs that other processes have."""


SAY_SECONDS = 60.0
"""Between lines about a run that goes on, where there is no terminal to show a bar in."""


class Job(Interface):
    """What a sweep runs: it can be pickled, and its key says what it is."""

    @property
    def key(self) -> RunKey: ...

    @property
    def label(self) -> str:
        """What it is called on the screen."""
        ...

    @property
    def source(self) -> str:
        """Hash of the code that decides what comes of it."""
        ...

    @property
    def cost(self) -> float:
        """How much it computes, in multiply-adds; only ratios matter."""
        ...

    def run(self, out: Path, progress: Callable[[str], None]) -> Entry | None:
        """Do it, or go on with it, with ``out`` as its own folder; None if it was asked to stop.

        Args:
            progress: called with a few words now and then.
        """
        ...


@dataclass(frozen=True)
class Training:
    """The training of a cell with a seed, by a protocol whose data was looked at."""

    cell: Cell
    seed: int
    protocol: Protocol

    @property
    def key(self) -> RunKey:
        return self.protocol.key(self.cell, self.seed)

    @property
    def label(self) -> str:
        return f"{self.cell}, seed {self.seed}"

    @property
    def source(self) -> str:
        return code_hash(TRAINING)

    @property
    def cost(self) -> float:
        recipe = self.protocol.recipe
        shares = [
            (recipe.img_size_at(epoch) / recipe.img_size) ** 2
            for epoch in range(recipe.total_epochs)
        ]
        return self.macs * self.protocol.images.get("train", 1) * sum(shares)

    @property
    def macs(self) -> int:
        """Multiply-adds of an image; 0 for a network that cannot be built."""
        try:
            return self._size()[1]
        except HirelabError:  # it fails when its turn comes, with this reason
            return 0

    def _size(self) -> tuple[int, int]:
        chosen = self.protocol
        return _size(self.key.model, self.cell, chosen.recipe.img_size, chosen.classes)

    def command(self, out: str = "runs/again") -> str:
        """The command that trains this network alone."""
        recipe, chosen = self.protocol.recipe, self.protocol
        preset = min(PRESETS, key=lambda name: len(recipe.differences(PRESETS[name])))
        changes = {k: mine for k, (_, mine) in recipe.differences(PRESETS[preset]).items()}
        changes |= {f"model.{name}": value for name, value in self.cell.changes.items()}
        sets = [f"{k}={v}" for k, v in changes.items()]
        words = ["hirelab", "train", "--data", chosen.data, "--model", self.key.model]
        words += ["--preset", preset, "--seed", str(self.seed), "--out", out]
        return shlex.join([*words, *(["--set", *sets] if sets else [])])

    def run(self, out: Path, progress: Callable[[str], None]) -> Entry | None:
        recipe = self.protocol.recipe
        try:
            self._size()
        except HirelabError as error:
            return self.failed(str(error))
        try:
            done = train(
                self.key.model,
                self.protocol.data,
                recipe,
                out,
                model_arguments=dict(self.cell.arguments),
                seed=self.seed,
                command=self.command(),
                on_epoch=lambda row: progress(_epoch(row, recipe)),
            )
        except DivergedError as error:
            return self.failed(str(error))
        except (HirelabError, OSError):
            raise  # the disk or the data: it would fail for every cell
        except Exception as error:  # of this network, on this machine: memory, an operation
            return self.failed(f"{type(error).__name__}: {error}")
        if not done.done:
            return None
        rows = done.history.rows
        seconds = sum(row["seconds"] for row in rows)
        images = sum(row["seconds"] * row["images_per_second"] for row in rows)
        return self.done(Evaluation.load(out / EVALUATION), seconds, images)

    def failed(self, reason: str) -> Entry:
        """The entry of a training that cannot be done, here or anywhere."""
        about = circumstances(self.command())
        return Entry(self.key, "failed", reason, source=self.source, about=about)

    def done(self, found: Evaluation, seconds: float, images: float, **about: str) -> Entry:
        """The entry of a training that came to its end.

        Args:
            found: what the network answers on the validation images.
            seconds: of training, on so many ``images`` in all.
            about: what else a reader may ask about the circumstances.
        """
        parameters, macs = self._size()
        return Entry(
            self.key,
            "done",
            source=self.source,
            top1=found.accuracy(1),
            loss=found.loss,
            correct=pack(found.predicted == found.labels),
            images=len(found.labels),
            parameters=parameters,
            macs=macs,
            seconds=round(seconds, 1),
            images_per_second=round(images / seconds, 1),
            about=circumstances(self.command()) | about,
        )


def _epoch(row: dict[str, float], recipe: Recipe) -> str:
    return (
        f"epoch {row['epoch']:.0f}/{recipe.total_epochs}, {row['images_per_second']:.0f} images/s"
    )


def plan(chosen: Protocol, cells: Sequence[Cell]) -> list[Training]:
    """Every training of the cells, a seed of all of them before the next seed."""
    return [
        Training(cell, seed, chosen)
        for turn in range(chosen.seeds)
        for cell in cells
        for seed in chosen.seeds_of(cell, turn)
    ]


# ------------------------------------------------------------------ running


def work_through(
    jobs: Sequence[Job],
    ledger: Ledger,
    out: Path,
    *,
    retry: bool = False,
    keep: bool = False,
) -> bool:
    """Run the jobs that the ledger lacks, in order; whether all of them have an entry now.

    Runs that other processes have are waited for, and taken over if their process dies.

    Args:
        out: folder for the folders of the runs that are going on.
        retry: run again what failed.
        keep: keep the folder of every run, with its weights.

    Raises:
        HirelabError: the disk or the data refuses; nothing of what is done is lost.
    """
    warn_of_damage(ledger)
    tried: set[str] = set()
    waiting = False
    left = open_jobs(jobs, ledger, retry)
    with tqdm(total=len(jobs), initial=len(jobs) - len(left), unit="run", disable=None) as bar:
        while left:
            for job in left:
                show = partial(_progress, bar)
                taken, entry = take(job, ledger, out, show, retry=retry, keep=keep)
                if not taken:
                    continue
                if entry is None:
                    return False
                tried.add(job.key.name)
                left = open_jobs(jobs, ledger, retry, tried)
                bar.write(line_of(job, entry, jobs, left, seen_rate(jobs, ledger)))
                break
            else:  # all that is left is in other hands
                if not waiting:
                    bar.write(f"waiting for {len(left)} runs that other processes have")
                waiting = True
                time.sleep(POLL_SECONDS)
                left = open_jobs(jobs, ledger, retry, tried)
            bar.n = len(jobs) - len(left)
            bar.refresh()
    return True


def open_jobs(
    jobs: Sequence[Job], ledger: Ledger, retry: bool, tried: Container[str] = ()
) -> list[Job]:
    """The jobs without an entry; to ``retry``, also those that failed and are not ``tried``."""

    def is_open(job: Job) -> bool:
        found = ledger.get(job.key)
        again = retry and found is not None and found.status == "failed"
        return found is None or (again and job.key.name not in tried)

    return [job for job in jobs if is_open(job)]


def take(
    job: Job,
    ledger: Ledger,
    out: Path,
    show: Callable[[Job], Callable[[str], None]],
    *,
    retry: bool = False,
    keep: bool = False,
) -> tuple[bool, Entry | None]:
    """Take a job's lease, run it, write its entry and clear its folder away.

    Args:
        show: called when it begins; gives what its words go to meanwhile.

    Returns:
        whether it was ours to run, which it is not while another process has it or if one has ended
        it since the look at the ledger; and its entry, None if it was asked to stop.
    """
    with ledger.lease(job.key) as ours:
        if not ours or not open_jobs([job], ledger, retry):
            return False, None
        try:
            entry = job.run(out / job.key.name, show(job))
        except OSError as error:
            raise HirelabError(
                f"{job.label} cannot go on in {out} ({error}); make room or choose another --out, "
                "and run the same command again."
            ) from error
        if entry is None:
            return True, None
        ledger.write(entry)
    if not keep:
        shutil.rmtree(out / job.key.name, ignore_errors=True)
    return True, entry


def _progress(bar: tqdm, job: Job) -> Callable[[str], None]:
    """Shows a job's words beside the bar; in a log, which has none, as a line now and then."""
    bar.set_description(job.label)
    if not bar.disable:
        return bar.set_postfix_str
    said = time.monotonic()

    def line(text: str) -> None:
        nonlocal said
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            bar.write(f"{job.label}: {text}")

    return line


def line_of(job: Job, entry: Entry, jobs: Sequence[Job], left: Sequence[Job], rate: float) -> str:
    """What is said of a run that came to its end, with what the rest will take at ``rate``, a cost
    a second; 0 where it is not known."""
    what = (
        f"top-1 {entry.top1:.2f} %, {entry.images_per_second:.0f} images/s"
        if entry.status == "done"
        else f"failed: {entry.reason}"
    )
    rest = f"; about {_duration(sum(j.cost for j in left) / rate)} left" if rate and left else ""
    return f"{len(jobs) - len(left)}/{len(jobs)} {job.label}: {what}{rest}"


def warn_of_damage(ledger: Ledger) -> None:
    """Say which files of a ledger do not count."""
    for path, why in ledger.read()[1].items():
        run = re.fullmatch("[0-9a-f]{16}", path.stem)
        then = "its run is done again, and it is kept" if run else "it is left alone"
        tqdm.write(f"warning: {path} does not count: {why}; {then}")


def seen_rate(jobs: Sequence[Job], ledger: Ledger) -> float:
    """Cost a second of the jobs that this machine has done; 0 where it has done none."""
    costs = {job.key.name: job.cost for job in jobs}
    here = hardware()
    done = [
        (costs[entry.key.name], entry.seconds)
        for entry in ledger.read()[0]
        if entry.status == "done"
        and entry.key.name in costs
        and entry.about.get("hardware") == here
    ]
    seconds = sum(s for _, s in done)
    return sum(c for c, _ in done) / seconds if seconds else 0.0


def timed_rate(jobs: Sequence[Job], batch_size: int = 8) -> float:
    """Cost a second of this machine in training, judged by a few steps on noise with the first
    network that can be built; 0 where there is none. Loading images is not in it."""
    for job in jobs:
        if not isinstance(job, Training) or not job.cost:
            continue
        side, classes = job.protocol.recipe.img_size, job.protocol.classes
        network = build_network(job.key.model, classes, 0.0, dict(job.cell.arguments))
        x = torch.randn(batch_size, 3, side, side)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            network(x).square().mean().backward()
            times.append(time.perf_counter() - began)
        return job.macs * batch_size / min(times)
    return 0.0


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min" if minutes else "1 min"


# ------------------------------------------------------------------ where it stands


@dataclass(frozen=True)
class Status:
    """Where a sweep stands.

    Attributes:
        rows: for each group of jobs (cell, done, wanted, failed, stale, running).
        reasons: {job: why it failed}.
        damaged: {file: why it does not count}.
        seconds_left: what the rest will take in one process on this machine, by the runs that it
            has done, else by a step of training; NaN where neither tells.
    """

    rows: tuple[tuple[str, int, int, int, int, int], ...]
    reasons: dict[str, str]
    damaged: dict[str, str]
    seconds_left: float

    @property
    def missing(self) -> int:
        """Runs without an entry."""
        return sum(wanted - done - failed for _, done, wanted, failed, _, _ in self.rows)

    def __str__(self) -> str:
        head = ("cell", "done", "of", "failed", "stale", "running")
        shown = [(row[0], *(count or "" for count in row[1:])) for row in self.rows]
        lines = [table([head, *shown], "lr")]
        lines += [f"failed: {job}: {why}" for job, why in self.reasons.items()]
        lines += [f"does not count: {path}: {why}" for path, why in self.damaged.items()]
        return "\n".join([*lines, self.rest])

    @property
    def rest(self) -> str:
        """What is left to do, in a line."""
        failed = f"{len(self.reasons)} failed, which --retry runs again" if self.reasons else ""
        if not self.missing:
            return f"no run is missing; {failed}" if failed else "all runs are done"
        if self.seconds_left == self.seconds_left:
            time_left = f"about {_duration(self.seconds_left)} of one process here"
        else:
            time_left = "their time is known after the first"
        lacks = f"{self.missing} runs are missing: {time_left}"
        return f"{lacks}; {failed}" if failed else lacks


def status(jobs: Sequence[Job], ledger: Ledger) -> Status:
    """Where the jobs stand in a ledger; nothing is run or written."""
    running = ledger.leased()
    entries = {job.key.name: ledger.get(job.key) for job in jobs}
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.label.rpartition(", seed")[0], []).append(job)

    def count(group: Sequence[Job], holds: Callable[[Entry, Job], bool]) -> int:
        found = ((entries[job.key.name], job) for job in group)
        return sum(entry is not None and holds(entry, job) for entry, job in found)

    rows = tuple(
        (
            name,
            count(group, lambda e, _: e.status == "done"),
            len(group),
            count(group, lambda e, _: e.status == "failed"),
            count(group, lambda e, job: stale(e, job.source)),
            sum(job.key.name in running for job in group),
        )
        for name, group in groups.items()
    )
    failures = {
        job.label: entry.reason
        for job in jobs
        if (entry := entries[job.key.name]) is not None and entry.status == "failed"
    }
    rest = sum(job.cost for job in jobs if entries[job.key.name] is None)
    rate = seen_rate(jobs, ledger) or (timed_rate(jobs) if rest else 0.0)
    damaged = {path.name: why for path, why in ledger.read()[1].items()}
    return Status(rows, failures, damaged, rest / rate if rate else float("nan"))


# ------------------------------------------------------------------ what a run is made of


@lru_cache(maxsize=256)
def _size(model: str, cell: Cell, img_size: int, classes: int) -> tuple[int, int]:
    """(parameters, multiply-adds of an image) of a cell's network, counted on it.

    Raises:
        HirelabError: it cannot be built.
    """
    network: nn.Module = build_network(model, classes, 0.0, dict(cell.arguments)).eval()
    with torch.no_grad():
        macs = count_macs(network, torch.zeros(1, 3, img_size, img_size))
    return sum(p.numel() for p in network.parameters()), macs

"""A sweep on one GPU: many small networks side by side, each step of each a single graph.

A small network leaves a GPU idle: a step is a thousand kernels of microseconds, and Python takes
longer to ask for them than the GPU to run them. So the step of a network, from its batch to its
averaged weights, is captured once as a CUDA graph, and the graphs of a whole group of trainings are
replayed on streams of their own, batch after batch. Trainings with the same seed see the same
images in the same order, as they would one after another, so that a batch is augmented once.

    work_in_lockstep   run what a ledger lacks, a group of trainings at a time
    Feed               the batches of some seeds, an epoch ahead of the networks
    Lane               a network, its optimiser and its averaged weights; one step, captured

What is random happens in `Feed`, by `Trainer.prepare`, and nothing in a graph is: a step is that of
`training.loop` (a test holds it to that), but for the order in which a GPU adds floats. A group is
minutes and has no checkpoints: a stopped group is done again. Networks are not compiled, whatever
the recipe says: a graph already asks for no Python, and 29 networks would compile for an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from .._shared.errors import HirelabError
from ..datasets.cache import DecodedImages, decode
from ..datasets.subsets import open_images
from ..training.data import AugmentedDataset, EpochSampler, Key, collate, position_seed, set_seed
from ..training.evaluation import Evaluation, evaluate
from ..training.network import build_network
from ..training.recipes import Recipe
from ..training.stopping import stop_requests
from ..training.trainer import Trainer
from .ledger import Entry, Ledger
from .sweep import (
    POLL_SECONDS,
    Job,
    Training,
    line_of,
    open_jobs,
    seen_rate,
    warn_of_damage,
)

__all__ = ["LANES", "LOCKSTEP", "Feed", "Lane", "check_lockstep", "work_in_lockstep"]

LOCKSTEP = "lockstep"
"""What `--on` calls it."""

LANES = 32
"""Trainings side by side where nobody says how many."""

WARM_UP = 3
"""Steps before a capture, in which libraries choose their kernels and take their memory."""

WORKERS = 3
"""Processes that augment the images of a seed."""

EVALUATED = 512
"""Images at once in evaluation."""


def check_lockstep(recipe: Recipe) -> None:
    """Make sure that nothing in a step of the recipe is random or changes its shape.

    Raises:
        HirelabError: it grows its images, drops paths, averages no weights or uses half precision.
    """
    wrong = [
        f"{name} is {value!r} and must be {good!r}"
        for name, value, good in (
            ("start_img_size", recipe.start_img_size or recipe.img_size, recipe.img_size),
            ("drop_path", recipe.drop_path, 0.0),
            ("precision", recipe.precision, "no"),
        )
        if value != good
    ]
    if not recipe.ema_decay:
        wrong.append("ema_decay is 0 and must be above it")
    if wrong:
        raise HirelabError(
            f"In lockstep {'; '.join(wrong)}: change the recipe, or leave --on lockstep out."
        )


class Feed:
    """The batches of some seeds on the device, those of an epoch while the one before is learned.

    Args:
        trainer: says the recipe and prepares a batch; its seed is set to that of each slot.
        images: decoded training images.
        slots: how many seeds at once.
        workers: processes that augment, for each seed; 0 for this one.

    Attributes:
        x: (2 * slots * steps, N, 3, H, W), batches of the even and of the odd epochs.
        y: (2 * slots * steps, N, classes), the answers that are wanted.
        steps: batches in an epoch.
    """

    def __init__(
        self, trainer: Trainer, images: DecodedImages, slots: int, classes: int, workers: int = 0
    ) -> None:
        recipe, device = trainer.recipe, trainer.accelerator.device
        self.trainer, self.images, self.slots, self.workers = trainer, images, slots, workers
        self.steps = len(images) // recipe.batch_size
        side, places = recipe.img_size, 2 * slots * self.steps
        self.x = torch.zeros(places, recipe.batch_size, 3, side, side, device=device)
        self.y = torch.zeros(places, recipe.batch_size, classes, device=device)
        self._batches: list[Iterator[tuple[Tensor, Tensor]]] = []
        self._seeds: list[int] = []

    def begin(self, seeds: Sequence[int]) -> None:
        """From the first batch of the first epoch, with a seed for each slot."""
        recipe = self.trainer.recipe
        self._seeds = list(seeds)
        self._batches = [
            iter(
                DataLoader(
                    AugmentedDataset(self.images, recipe, seed),
                    batch_sampler=_AllEpochs(len(self.images), recipe, seed),
                    num_workers=self.workers,
                    collate_fn=collate,
                    pin_memory=self.x.is_cuda,
                    prefetch_factor=8 if self.workers else None,
                )
            )
            for seed in seeds
        ]

    def place(self, seed: int, epoch: int) -> int:
        """Where in `x` and `y` the first batch of an epoch of a seed stands."""
        return (epoch % 2 * self.slots + self._seeds.index(seed)) * self.steps

    def fill(self, epoch: int, step: int) -> None:
        """Put the next batch of every seed, which is that of this step, in its place."""
        for seed, batches in zip(self._seeds, self._batches, strict=True):
            self.trainer.seed = seed
            x, y = self.trainer.prepare(*next(batches), epoch * self.steps + step)
            place = self.place(seed, epoch) + step
            self.x[place].copy_(x)
            self.y[place].copy_(y)


class _AllEpochs(EpochSampler):
    """The batches of all epochs, so that worker processes start once a training."""

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch in range(self.recipe.total_epochs):
            self.epoch = epoch
            yield from super().__iter__()


class Lane:
    """A training of a group: its network and what a step changes, in tensors that stay in place.

    Args:
        trainer: of the network.
        feed: where batches come from.
    """

    def __init__(self, trainer: Trainer, feed: Feed) -> None:
        assert trainer.average is not None  # see check_lockstep
        self.trainer, self.feed = trainer, feed
        self.network, self.average = trainer.network, trainer.average.module
        self.optimizer = trainer.optimizer
        device, recipe = trainer.accelerator.device, trainer.recipe
        total = feed.steps * recipe.total_epochs
        rates = []
        for step in range(total):
            trainer.schedule.step_update(step)
            rates.append(self.optimizer.param_groups[0]["lr"])
        # every step's learning rate and weight of the new values in the average, by arithmetic
        self.rates = torch.tensor(rates, device=device)
        self.weights = torch.tensor(
            [1 - trainer.average.get_decay(step + 1) for step in range(total)], device=device
        )
        self.losses = torch.zeros(total, device=device)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self.rate = torch.zeros((), device=device)
        for group in self.optimizer.param_groups:  # what a graph needs, and one kernel for all
            group |= {"lr": self.rate, "fused": True, "foreach": False}
            group["capturable"] = device.type == "cuda"
        own, averaged = (one.state_dict().values() for one in (self.network, self.average))
        pairs = list(zip(own, averaged, strict=True))
        self._floats = [(a, b) for a, b in pairs if a.is_floating_point()]
        self._others = [(a, b) for a, b in pairs if not a.is_floating_point()]
        self.stream: Any = None
        self.graph: Any = None

    def begin(self, job: Training) -> None:
        """New weights, as the job's seed makes them, and no memory of a training before."""
        set_seed(position_seed(job.seed))
        fresh = _network(job).state_dict()
        self.network.load_state_dict(fresh)
        self.average.load_state_dict(fresh)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        for value in (self.step, self.losses):
            value.zero_()

    def one_step(self) -> None:
        """A step on the batch in place, and one place on; nothing that a graph cannot repeat."""
        x = self.feed.x.index_select(0, self.place)[0]
        y = self.feed.y.index_select(0, self.place)[0]
        self.rate.copy_(self.rates.index_select(0, self.step)[0])
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.trainer.gradients(x, y)
        self.optimizer.step()
        with torch.no_grad():
            weight = self.weights.index_select(0, self.step)[0]
            own, averaged = ([pair[i] for pair in self._floats] for i in (0, 1))
            change = torch._foreach_sub(own, averaged)
            torch._foreach_mul_(change, weight)
            torch._foreach_add_(averaged, change)
            for value, kept in self._others:
                kept.copy_(value)
            self.losses.index_copy_(0, self.step, loss[None])
            self.step += 1
            self.place += 1

    def capture(self) -> None:
        """Make the step a graph, where there is a GPU; afterwards `begin` has to come."""
        if not self.losses.is_cuda:
            return
        self.stream = torch.cuda.Stream()
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.place.zero_()
            self.step.zero_()
            for _ in range(WARM_UP):
                self.one_step()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.one_step()

    def go_to(self, place: int) -> None:
        """Read batches from this place on."""
        self.place.fill_(place)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream())

    def go(self) -> None:
        """The next step: the graph, on the lane's stream; without a GPU at once."""
        if self.graph is None:
            self.one_step()
            return
        with torch.cuda.stream(self.stream):
            self.graph.replay()


def _network(job: Training) -> nn.Module:
    return build_network(
        job.key.model,
        job.protocol.classes,
        job.protocol.recipe.drop_path,
        dict(job.cell.arguments),
    )


def work_in_lockstep(
    jobs: Sequence[Job],
    ledger: Ledger,
    on: str = "lockstep",
    *,
    retry: bool = False,
    weights: Path | None = None,
    deadline: float = float("inf"),
) -> bool:
    """`sweep.work_through` with groups of trainings side by side on this machine's GPU.

    Args:
        jobs, ledger, retry: see `work_through`; trainings of one protocol.
        on: "lockstep", or "lockstep:N" for N trainings at once.
        weights: folder for the averaged weights of every network, as KEY.safetensors; None to keep
            none.
        deadline: of `time.monotonic`, after which no group is begun that would take longer, judged
            by the one before.

    Raises:
        HirelabError: the recipe cannot be run so, ``on`` is another word; the disk or the data
            refuses. Nothing of what is done is lost.
    """
    trainings = [job for job in jobs if isinstance(job, Training)]
    if len(trainings) < len(jobs):
        raise HirelabError("Only trainings run in lockstep; leave --on out for diagnostics.")
    size = _lanes(on)
    warn_of_damage(ledger)
    tried: set[str] = set()

    def left() -> list[Training]:
        still = open_jobs(trainings, ledger, retry, tried)
        return [job for job in still if isinstance(job, Training)]

    if not left():
        return True
    check_lockstep(trainings[0].protocol.recipe)
    pen: _Pen | None = None
    seconds = 0.0
    with _exact(), stop_requests() as stopped:
        while still := left():
            began = time.monotonic()
            if stopped() or began + seconds > deadline:
                return False
            pen = pen or _Pen(still[0], _most_seeds(still, size))
            with ExitStack() as stack:
                group = _leased(still, left, ledger, size, pen.feed.slots, stack)
                if not group:  # all that is left is in other hands
                    time.sleep(POLL_SECONDS)
                    continue
                made = pen.train(group, stopped)
                if made is None:
                    return False
                for job, (entry, state) in zip(group, made, strict=True):
                    ledger.write(entry)
                    tried.add(job.key.name)
                    if weights:
                        weights.mkdir(parents=True, exist_ok=True)
                        save_file(state, weights / f"{job.key.name}.safetensors")
                    rate = seen_rate(trainings, ledger)
                    tqdm.write(line_of(job, entry, trainings, left(), rate))
            seconds = time.monotonic() - began
    return True


def _lanes(on: str) -> int:
    name, colon, number = on.partition(":")
    if name != LOCKSTEP or (colon and not (number.isdecimal() and int(number))):
        raise HirelabError(
            f"--on is {on!r}; give lockstep or lockstep:N, N trainings at once ({LANES})."
        )
    return int(number or LANES)


def _most_seeds(jobs: Sequence[Training], size: int) -> int:
    """The most seeds in any of the groups that the jobs make."""
    starts = range(0, len(jobs), size)
    return max(len({job.seed for job in jobs[first : first + size]}) for first in starts)


def _leased(
    still: Sequence[Training],
    left: Callable[[], list[Training]],
    ledger: Ledger,
    size: int,
    slots: int,
    stack: ExitStack,
) -> list[Training]:
    """The next group: the first jobs whose lease is free, with at most so many seeds."""
    group: list[Training] = []
    for job in still:
        seeds = {job.seed, *(other.seed for other in group)}
        if len(group) < size and len(seeds) <= slots and stack.enter_context(ledger.lease(job.key)):
            group.append(job)
    open_now = left()  # one may have come to its end between the look and the lease
    return [job for job in group if job in open_now]


@contextmanager
def _exact() -> Iterator[None]:
    """Float32 as it is written, not TF32's ten bits, and convolutions that repeat to the bit."""
    cudnn: Any = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic = before


class _Pen:
    """The lanes of a sweep, kept from group to group by what they train, and their feed."""

    def __init__(self, job: Training, slots: int) -> None:
        chosen = job.protocol
        train = open_images(chosen.data, "train")
        stored = chosen.recipe.stored_size
        self.classes = len(train.classes)
        self.train_set = decode(train, stored)
        self.val_set = decode(open_images(chosen.data, "val", train.classes), stored)
        self.accelerator = Accelerator(mixed_precision="no")
        self.cuda = self.accelerator.device.type == "cuda"
        trainer = self._trainer(job)
        self.feed = Feed(trainer, self.train_set, slots, self.classes, WORKERS * self.cuda)
        self.lanes: dict[tuple[Any, str], list[Lane]] = {}

    def _trainer(self, job: Training) -> Trainer:
        recipe = job.protocol.recipe
        steps = len(self.train_set) // recipe.batch_size
        return Trainer(self.accelerator, _network(job), recipe, self.classes, steps, job.seed)

    def lane(self, job: Training, busy: Sequence[Lane]) -> Lane:
        """A lane that is free and trains what the job trains, else a new one."""
        known = self.lanes.setdefault((job.cell, job.key.model), [])
        for lane in known:
            if lane not in busy:
                return lane
        lane = Lane(self._trainer(job), self.feed)
        lane.capture()
        known.append(lane)
        return lane

    def train(
        self, group: Sequence[Training], stopped: Callable[[], bool]
    ) -> list[tuple[Entry, dict[str, Tensor]]] | None:
        """Train a group to its end: an entry and averaged weights for each; None if stopped."""
        feed, epochs = self.feed, group[0].protocol.recipe.total_epochs
        lanes: list[Lane] = []
        for job in tqdm(group, "capturing", leave=False, disable=None):
            lanes.append(self.lane(job, lanes))
            lanes[-1].begin(job)
        began = time.monotonic()
        feed.begin(list(dict.fromkeys(job.seed for job in group)))
        for step in range(feed.steps):
            feed.fill(0, step)
        for epoch in tqdm(range(epochs), "epochs", leave=False, disable=None):
            if stopped():
                return None
            self._wait()  # the batches of this epoch are there, those of the last one read
            for lane, job in zip(lanes, group, strict=True):
                lane.go_to(feed.place(job.seed, epoch))
            for step in range(feed.steps):
                for lane in lanes:
                    lane.go()
                if epoch + 1 < epochs:
                    feed.fill(epoch + 1, step)
        self._wait()
        seconds = (time.monotonic() - began) / len(group)
        return [self._entry(*one, seconds, len(group)) for one in zip(lanes, group, strict=True)]

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _entry(
        self, lane: Lane, job: Training, seconds: float, beside: int
    ) -> tuple[Entry, dict[str, Tensor]]:
        losses = lane.losses.cpu()
        state = {k: v.cpu().clone() for k, v in lane.average.state_dict().items()}
        if not losses.isfinite().all():
            step = int((~losses.isfinite()).nonzero()[0]) + 1
            return job.failed(f"the loss became {losses[step - 1]} at step {step:,}"), state
        found: Evaluation = evaluate(
            lane.average, self.val_set, job.protocol.recipe.img_size, EVALUATED, progress=False
        )
        images = len(losses) * job.protocol.recipe.batch_size
        beside_it = f"{beside} network{'s' * (beside > 1)}"
        return job.done(found, seconds, images, lockstep=beside_it), state

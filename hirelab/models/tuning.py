"""Which of several equal ways is the fastest here: measured once, part by part.

A part of a deployed network that can compute its result in more than one way is a `Tunable`.
`tune_parts` runs every way of every part on inputs of the shapes that the network gives it, in
turn, and keeps the fastest. The untuned way is always among them, and another one replaces it only
where it is faster beyond noise (`fastest`); the whole network is compared at the end in that way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._shared.tables import Records, table
from .._shared.timing import Rounds, in_turn

MARGIN = 0.03  # by which a part's other way must be faster, where repeats differ by less
ROUNDS = 16
Measure = Callable[[Mapping[str, Callable[[], object]]], Rounds]


class Tunable(nn.Module):
    """A part that computes one function in several ways, and now in the way ``way``."""

    way: str

    def ways(self, x: Tensor) -> tuple[str, ...]:
        """The ways that serve for an input like ``x``; the first is the untuned one."""
        raise NotImplementedError

    def use(self, way: str) -> None:
        """Compute in this way from now on; the weights' order in memory may change."""
        self.way = way

    def alike(self) -> tuple[Any, ...]:
        """What two parts have in common that take the same time on inputs of one shape."""
        raise NotImplementedError


@dataclass(frozen=True)
class Choice:
    """What was chosen for the parts of one shape.

    Attributes:
        parts: the dotted names of the parts.
        shape: of their input, batch first.
        untuned, way: the way without tuning, and the one that was chosen.
        untuned_ms, way_ms: milliseconds of both, the least of all rounds.
    """

    parts: tuple[str, ...]
    shape: tuple[int, ...]
    untuned: str
    way: str
    untuned_ms: float
    way_ms: float


@dataclass(frozen=True, repr=False)
class Tuning(Records):
    """What `hl.deploy` with ``tune=True`` chose. It prints as a table.

    Attributes:
        img_size, batch_size: that the ways were measured for; results are equal at any other.
        machine: where they were measured, with the number of threads.
        choices: one for every shape of part.
        times_as_fast: the network tuned against untuned, in their best rounds; 1 where it is
            left untuned.
    """

    img_size: tuple[int, int]
    batch_size: int
    machine: str
    choices: tuple[Choice, ...]
    times_as_fast: float

    def records(self) -> list[dict[str, Any]]:
        """A row for each shape of part: its first part, how many there are, shape, ways, times."""
        return [
            {
                "part": choice.parts[0],
                "alike": len(choice.parts),
                "shape": " x ".join(map(str, choice.shape)),
                "way": choice.way,
                "ms": choice.way_ms,
                "untuned": choice.untuned,
                "untuned ms": choice.untuned_ms,
            }
            for choice in self.choices
        ]

    def __str__(self) -> str:
        rows = [
            [f"{cell:.2f}" if isinstance(cell, float) else cell for cell in record.values()]
            for record in self.records()
        ]
        high, wide = self.img_size
        end = (
            f"{self.times_as_fast:.2f} times as fast as untuned, for {self.batch_size} x {high} x "
            f"{wide} pixels on {self.machine}."
        )
        heads = list(self.records()[0])
        return f"{table([heads, *rows], 'lrllrlr')}\n\n{end}"

    __repr__ = __str__


def measure(candidates: Mapping[str, Callable[[], object]]) -> Rounds:
    """Time candidates in turn; with one thread by its own clock, which leaves out waiting."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return in_turn(candidates, ROUNDS, clock=time.process_time if alone else time.perf_counter)


def fastest(rounds: Rounds, untuned: str, margin: float = MARGIN) -> str:
    """The candidate of the best round, but the untuned one where that is not slower beyond noise.

    What else runs on a machine only adds time, so best rounds are compared. Noise is what the
    untuned candidate's best rounds of the first and of the second half differ by, and at least
    ``margin``.
    """
    times = rounds.seconds[untuned]
    halves = [float(half.min()) for half in np.array_split(times, 2) if len(half)]
    noise = max(margin, max(halves) / min(halves) - 1)
    best = min(rounds.seconds, key=rounds.best)
    return best if rounds.best(best) * (1 + noise) < rounds.best(untuned) else untuned


def tune_parts(
    network: nn.Module, x: Tensor, measure: Measure = measure
) -> tuple[tuple[Choice, ...], float]:
    """Choose the fastest way of every `Tunable` in ``network`` for inputs like ``x``.

    Parts inside other parts come first, so that a part is measured with what it holds tuned. Parts
    that are `Tunable.alike` and see inputs of one shape are measured once.

    Returns:
        The choices, and how many times as fast the network is as before. Where it is not faster
        beyond noise, every part is put back and that number is 1.
    """
    with torch.no_grad():
        before = deepcopy(network)
        choices = tuple(
            _choose(parts, given, measure) for parts, given in _groups(network, x).values()
        )
        if all(choice.way == choice.untuned for choice in choices):
            return choices, 1.0
        rounds = measure({"untuned": _run(before, x), "tuned": _run(network, x)})
    if fastest(rounds, "untuned", margin=0) == "tuned":
        return choices, rounds.best("untuned") / rounds.best("tuned")
    parts = dict(network.named_modules())
    for choice in choices:
        for name in choice.parts:
            part = parts[name]
            assert isinstance(part, Tunable)
            part.use(choice.untuned)
    return (
        tuple(
            Choice(c.parts, c.shape, c.untuned, c.untuned, c.untuned_ms, c.untuned_ms)
            for c in choices
        ),
        1.0,
    )


def _groups(network: nn.Module, x: Tensor) -> dict[Any, tuple[dict[str, Tunable], Tensor]]:
    """The parts that are alike, by name, with an input; what lies deepest comes first."""
    parts = {name: m for name, m in network.named_modules() if isinstance(m, Tunable)}
    given: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple[Tensor]) -> None:
        given[name] = args[0]

    hooks = [m.register_forward_pre_hook(partial(keep, name)) for name, m in parts.items()]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    groups: dict[Any, tuple[dict[str, Tunable], Tensor]] = {}
    for name in sorted(given, key=lambda name: -name.count(".")):
        part, seen = parts[name], given[name]
        key = (type(part), part.alike(), seen.shape, seen.stride())
        groups.setdefault(key, ({}, seen))[0][name] = part
    return groups


def _choose(parts: dict[str, Tunable], x: Tensor, measure: Measure) -> Choice:
    """Measure the ways of parts that are alike, and let all of them use the fastest."""
    first = next(iter(parts.values()))
    ways = first.ways(x)
    candidates = {}
    for way in ways:
        twin = deepcopy(first)
        twin.use(way)
        candidates[way] = _run(twin, x)
    rounds = measure(candidates)
    way = fastest(rounds, ways[0])
    for part in parts.values():
        part.use(way)
    times = [rounds.best(name) * 1e3 for name in (ways[0], way)]
    return Choice(tuple(parts), tuple(x.shape), ways[0], way, *times)


def _run(module: nn.Module, x: Tensor) -> Callable[[], object]:
    """The pass as something to time: on an accelerator, until it is through."""

    def run() -> None:
        module(x)
        if x.is_cuda:
            torch.cuda.synchronize()

    return run

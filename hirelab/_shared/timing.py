"""How things are timed here: candidates in turn, again and again, compared as ratios of each round.

A machine's speed drifts; two candidates that run one after the other in the same round feel the
same drift, so the ratio inside a round is what is reported, as a median with its middle half.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rounds:
    """Seconds of every candidate in every round, (rounds,) each."""

    seconds: Mapping[str, np.ndarray]

    def median(self, name: str) -> float:
        """Median seconds of a candidate."""
        return float(np.median(self.seconds[name]))

    def best(self, name: str) -> float:
        """The least seconds of a candidate: what else runs on a machine only adds time."""
        return float(np.min(self.seconds[name]))

    def faster(self, name: str, reference: str) -> tuple[float, float, float]:
        """How many times as fast as the reference: median and quartiles of the rounds' ratios."""
        low, middle, high = np.percentile(
            self.seconds[reference] / self.seconds[name], (25, 50, 75)
        )
        return float(middle), float(low), float(high)


def in_turn(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Rounds:
    """Run every candidate once a round, the order turning by one each round.

    With ``time.process_time`` as the clock, waiting for a processor that others use is not counted;
    it serves where everything runs in one thread.
    """
    names = list(candidates)
    for _ in range(warm_up):
        for name in names:
            candidates[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            begin = clock()
            candidates[name]()
            seconds[name].append(clock() - begin)
    return Rounds({name: np.array(values) for name, values in seconds.items()})

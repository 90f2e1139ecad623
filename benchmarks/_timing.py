"""What benchmarks weigh by: candidates in turn (of `hirelab._shared.timing`), the limit of the
machine's arithmetic, and peak memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import profile

from hirelab._shared.timing import Rounds, in_turn

__all__ = ["Limit", "Rounds", "in_turn", "peak_bytes"]


class Limit:
    """What the machine's arithmetic allows: the best product of two square matrices.

    Its candidates, MKL's product and oneDNN's, run in turn with those that are measured, so that
    the limit is of the same rounds. With a few hundred rows and columns a product is bound by
    arithmetic, not by memory.
    """

    side = 1024

    def __init__(self) -> None:
        a, b = torch.randn(2, self.side, self.side)
        self.candidates: dict[str, Callable[[], object]] = {"MKL's product": lambda: torch.mm(a, b)}
        if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            product = torch.ops.mkldnn._linear_pointwise
            self.candidates["oneDNN's product"] = lambda: product(a, b, None, "none", [], "none")

    def rate(self, rounds: Rounds) -> float:
        """Multiply-adds a second of the better one, by its median."""
        return self.side**3 / min(rounds.median(name) for name in self.candidates)


def peak_bytes(action: Callable[[], object]) -> int:
    """The most bytes that an action holds at once, from PyTorch's record of its allocator."""
    with profile(profile_memory=True) as record:
        action()
    held = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak

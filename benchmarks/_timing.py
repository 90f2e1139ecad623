"""What benchmarks weigh by: candidates in turn (of `hirelab._shared.timing`), the limit of the
machine's arithmetic, and peak memory.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import profile

from hirelab._shared.timing import Rounds, in_turn

__all__ = ["Limit", "Rounds", "in_turn", "peak_bytes", "shares"]


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


# What an operator of PyTorch does for a network, by the beginning of its name; the rest is "other".
_KINDS = {
    "matrix products": ("mkldnn::_linear", "aten::addmm", "aten::mm", "aten::bmm", "mkl::"),
    "convolutions": ("aten::mkldnn_convolution", "mkldnn::_convolution"),
    "gathers and copies": (
        "aten::index",
        "aten::copy_",
        "aten::cat",
        "aten::roll",
        "aten::constant",
    ),
    "GELU apart": ("aten::gelu",),
    "sums and products": ("aten::add", "aten::mul", "aten::clamp", "aten::relu"),
    "averages": ("aten::sum", "aten::mean", "aten::div"),
    "softmax": ("aten::_softmax",),
}


def shares(action: Callable[[], object], times: int = 5) -> dict[str, float]:
    """What part of an action's time on the processor each kind of operator takes; sums to 1.

    An activation inside a product counts as the product.
    """
    with profile() as record:
        for _ in range(times):
            action()
    found = dict.fromkeys([*_KINDS, "other"], 0.0)
    for event in record.key_averages():
        # "aten::addcmul" begins like "aten::add" and is one; "aten::addmm" is found before it
        kinds = (kind for kind, starts in _KINDS.items() if event.key.startswith(starts))
        found[next(kinds, "other")] += event.self_cpu_time_total
    total = sum(found.values())
    return {kind: spent / total for kind, spent in found.items()}


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

"""Probes nobody listens at: the forward pass with them against the same graph without them.

Both are one traced graph of hire_mlp_tiny at 224 px, batch 1, on one thread; from the second copy
every probe is erased. They run in turn in one process, so that a slow moment of the machine hits
both, and what is printed is the ratio of each pair, in processor time of the thread, which other
work on the machine disturbs less than time on the clock. A second pair, two equal copies, shows how
much of it is noise. For scale: the same ratio when every point is read.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import fx, nn

import hirelab as hl
from hirelab.hooks.points import Probe

ROUNDS = 60
WARM_UP = 3


def trace(model: nn.Module, keep_probes: bool) -> fx.GraphModule:
    """The network as a graph, with a node for each probe or with none."""

    class Tracer(fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, Probe) or super().is_leaf_module(module, name)

    graph = Tracer().trace(model)
    if not keep_probes:
        for node in list(graph.nodes):
            if node.op == "call_module" and isinstance(model.get_submodule(node.target), Probe):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
    return fx.GraphModule(model, graph).eval()


def ratios(one, other, rounds: int = ROUNDS) -> list[float]:
    """Time of ``one`` over time of ``other``, a pair a round; who goes first takes turns."""

    def clock(function) -> float:
        start = time.thread_time()
        function()
        return time.thread_time() - start

    for _ in range(WARM_UP):
        one(), other()
    found = []
    for i in range(rounds):
        if i % 2:
            slow = clock(other)
            found.append(clock(one) / slow)
        else:
            found.append(clock(one) / clock(other))
    return found


def line(what: str, values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{what:<44} {middle:6.3f}   middle half {low:.3f} to {high:.3f}"


@torch.inference_mode()
def main() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = hl.create("hire_mlp_tiny", seed=0)
        x = torch.randn(1, 3, 224, 224)
        probed, bare, again = trace(model, True), trace(model, False), trace(model, False)
        points = len(model.points())
        erased = len(probed.graph.nodes) - len(bare.graph.nodes)
        assert erased == points, f"{erased} probes erased of {points}"
        assert torch.equal(probed(x), bare(x))

        print(f"hire_mlp_tiny, 224 px, batch 1, 1 thread, {ROUNDS} pairs; {points} probes; ratios")
        print(
            line("probes, nobody listens / no probes", ratios(lambda: probed(x), lambda: bare(x)))
        )
        print(line("no probes / no probes (the noise)", ratios(lambda: again(x), lambda: bare(x))))
        read = ratios(lambda: model.run_with_cache(x), lambda: model(x), ROUNDS // 3)
        print(line("every point read / nobody listens", read))
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    main()

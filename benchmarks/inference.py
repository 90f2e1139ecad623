"""Inference: the network, deployed, tuned, and compiled, against the authors' formulation.

CPU, 2 threads, float32, 224 x 224 pixels, in turn in one run; ratios are medians with their middle
half. The limit is what the machine's arithmetic allows, the best product of two large square
matrices in the same rounds (`_timing.Limit`). "Products alone" are the matrix products of the
network's own shapes by the better of the two libraries, with nothing between them. At the end: what
a tuned pass spends its time on, by PyTorch's profiler.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial

# Read when torch's compiler is first used: it may pack weights, which no longer change here.
os.environ["TORCHINDUCTOR_FREEZING"] = "1"

import torch
from _authors import AuthorsHireMLP
from _report import report, table
from _timing import Limit, in_turn, shares
from torch import nn

import hirelab as hl
from hirelab.analysis.cost import count_macs
from hirelab.models.checkpoints import to_authors

SIZES = {"hire_mlp_tiny": (2, 2, 4, 2), "hire_mlp_small": (3, 4, 10, 3)}
GOALS = {"network": 0.0, "deployed": 0.0, "deployed, tuned": 0.65, "deployed, compiled": 0.80}
PROFILED = ("deployed, tuned", "deployed, compiled")
GOALS_OF = ("hire_mlp_tiny", 8)  # what the goals, as shares of the limit, are set for


def product_shapes(model: nn.Module, x: torch.Tensor) -> Counter:
    """(tokens, in, out) of every 1x1 convolution as a matrix product, with how often it runs."""
    shapes: Counter = Counter()

    def look(module: nn.Conv2d, args, out: torch.Tensor) -> None:
        if module.kernel_size == (1, 1):
            tokens = out.numel() // out.shape[1]
            shapes[tokens, module.in_channels, module.out_channels] += 1

    handles = [m.register_forward_hook(look) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model(x)
    for handle in handles:
        handle.remove()
    return shapes


def products(shapes: Counter) -> tuple[dict[str, Callable[[], object]], int]:
    """Functions that run every product as often as the network does, and their multiply-adds."""
    work = []
    for (tokens, before, after), count in shapes.items():
        work += [(torch.randn(tokens, before), torch.randn(before, after))] * count
    macs = sum(t * b * a * n for (t, b, a), n in shapes.items())
    found: dict[str, Callable[[], object]] = {"MKL": lambda: [torch.mm(a, b) for a, b in work]}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        one = partial(torch.ops.mkldnn._linear_pointwise, attr="none", scalars=[], algorithm="none")
        found["oneDNN"] = lambda: [one(a, b.T, None) for a, b in work]
    return found, macs


def main() -> None:
    """Measure, print and keep the tables."""
    torch.set_num_threads(2)
    speed, rates, limit = [], [], Limit()
    with torch.no_grad():  # inference_mode keeps the compiler from freezing
        for name, depths in SIZES.items():
            model = hl.create(name, seed=0)
            authors = AuthorsHireMLP(depths, (64, 128, 320, 512)).eval()
            authors.load_state_dict(to_authors(model.state_dict()))
            meta = torch.empty(1, 3, 224, 224, device="meta")
            macs = count_macs(hl.create(name, device="meta"), meta)
            for batch in (1, 8):
                x = torch.randn(batch, 3, 224, 224)
                torch._dynamo.reset()
                networks: dict[str, Callable] = {
                    "authors": authors,
                    "network": model,
                    "deployed": hl.deploy(model),
                    "deployed, tuned": hl.deploy(model, tune=True, img_size=224, batch_size=batch),
                    "deployed, compiled": torch.compile(hl.deploy(model), fullgraph=True),
                }
                for other in networks.values():
                    torch.testing.assert_close(other(x), authors(x), rtol=1e-4, atol=1e-5)
                alone, product_macs = products(product_shapes(model, x))
                passes = {key: partial(network, x) for key, network in networks.items()}
                rounds = in_turn(
                    {**passes, **alone, **limit.candidates}, 30 if batch == 1 else 15, warm_up=2
                )
                most = limit.rate(rounds)
                done = {key: macs * batch / rounds.median(key) for key in networks}
                products_alone = product_macs / min(rounds.median(key) for key in alone)
                first = f"{rounds.median('authors') * 1e3:.0f} ({done['authors'] / most:.0%})"
                row = [name, str(batch), first]
                for other, goal in GOALS.items():
                    middle, low, high = rounds.faster(other, "authors")
                    share = done[other] / most
                    missed = (name, batch) == GOALS_OF and share < goal
                    mark = f"; goal {goal:.0%}" if missed else ""
                    row.append(f"{middle:.2f} [{low:.2f}, {high:.2f}] ({share:.0%}{mark})")
                speed.append(row)
                rates.append(
                    [name, str(batch), f"{most / 1e9:.0f}"]
                    + [f"{products_alone / 1e9:.0f} ({products_alone / most:.0%})"]
                    + [f"{rate / 1e9:.0f}" for rate in done.values()]
                )
                if (name, batch) == GOALS_OF:
                    spent = {key: shares(passes[key]) for key in PROFILED}
    times = table(["network", "batch", "authors, ms", *GOALS], speed)
    gmacs = table(["network", "batch", "limit", "products alone", "authors", *GOALS], rates)
    kinds = spent[PROFILED[0]]
    profiled = table(
        ["operators", *PROFILED],
        [[kind, *(f"{spent[key][kind]:.0%}" for key in PROFILED)] for kind in kinds],
    )
    goals = "tuned 65 % of the limit, compiled 80 %"
    report(
        "inference",
        f"{times}\n\nTimes as fast as the authors' formulation, and in parentheses the share of "
        f"the machine's limit. Goals at {GOALS_OF[0]} with a batch of {GOALS_OF[1]}: {goals}. In "
        f"GMAC/s, with the share of the limit that the products alone reach:\n\n{gmacs}\n\n"
        f"What a pass of {GOALS_OF[0]}, batch {GOALS_OF[1]}, spends its time on; an activation "
        "inside a product counts as the product, and what the compiler merged (gathers, gates, "
        f"sums, averages) as other:\n\n{profiled}",
    )


if __name__ == "__main__":
    main()

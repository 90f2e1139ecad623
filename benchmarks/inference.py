"""Inference: the network, deployed, and compiled, against the authors' formulation.

CPU, 2 threads, float32, 224 x 224 pixels, in turn in one run; ratios are medians with their middle
half. The share of the matrix-multiplication limit is the network's multiply-adds a second over what
torch.mm reaches, in the same run, on the shapes of the network's own layers, weighed by their work.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

# Read when torch's compiler is first used: it may pack weights, which no longer change here.
os.environ["TORCHINDUCTOR_FREEZING"] = "1"

import torch
from _authors import AuthorsHireMLP
from _report import report, table
from _timing import in_turn
from torch import nn

import hirelab as hl
from hirelab.analysis.cost import count_macs
from hirelab.models.checkpoints import to_authors

SIZES = {"hire_mlp_tiny": (2, 2, 4, 2), "hire_mlp_small": (3, 4, 10, 3)}
GOALS = {"network": 1.2, "deployed": 1.8, "deployed, compiled": 2.2}


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


def products(shapes: Counter):
    """A function that runs every product as often as the network does, and its multiply-adds."""
    work = []
    for (tokens, before, after), count in shapes.items():
        work += [(torch.randn(tokens, before), torch.randn(before, after))] * count
    macs = sum(t * b * a * n for (t, b, a), n in shapes.items())
    return (lambda: [torch.mm(a, b) for a, b in work]), macs


def main() -> None:
    """Measure, print and keep the tables."""
    torch.set_num_threads(2)
    speed, share = [], []
    with torch.no_grad():  # inference_mode keeps the compiler from freezing
        for name, depths in SIZES.items():
            model = hl.create(name, seed=0)
            authors = AuthorsHireMLP(depths, (64, 128, 320, 512)).eval()
            authors.load_state_dict(to_authors(model.state_dict()))
            meta = torch.empty(1, 3, 224, 224, device="meta")
            macs = count_macs(hl.create(name, device="meta"), meta)
            for batch in (1, 8):
                x = torch.randn(batch, 3, 224, 224)
                deployed = hl.deploy(model)
                torch._dynamo.reset()
                compiled = torch.compile(hl.deploy(model), fullgraph=True)
                reference = authors(x)
                for other in (model, deployed, compiled):
                    torch.testing.assert_close(other(x), reference, rtol=1e-4, atol=1e-5)
                run_products, product_macs = products(product_shapes(model, x))
                candidates = {
                    "authors": partial(authors, x),
                    "network": partial(model, x),
                    "deployed": partial(deployed, x),
                    "deployed, compiled": partial(compiled, x),
                    "torch.mm": run_products,
                }
                rounds = in_turn(candidates, 30 if batch == 1 else 15, warm_up=2)
                row = [name, str(batch), f"{rounds.median('authors') * 1e3:.0f}"]
                for other, goal in GOALS.items():
                    middle, low, high = rounds.faster(other, "authors")
                    mark = "" if middle >= goal else f" (goal {goal})"
                    row.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]{mark}")
                speed.append(row)
                limit = product_macs / rounds.median("torch.mm")
                rates = [macs * batch / rounds.median(k) for k in ("authors", *GOALS)]
                share.append(
                    [name, str(batch), f"{limit / 1e9:.0f}"]
                    + [f"{rate / 1e9:.0f} ({rate / limit:.0%})" for rate in rates]
                )
    times = table(
        [
            "network",
            "batch",
            "authors, ms",
            "network, times as fast",
            "deployed",
            "deployed, compiled",
        ],
        speed,
    )
    shares = table(
        [
            "network",
            "batch",
            "torch.mm, GMAC/s",
            "authors",
            "network",
            "deployed",
            "deployed, compiled",
        ],
        share,
    )
    report("inference", f"{times}\n\nGMAC/s, and as a share of what torch.mm reaches:\n\n{shares}")


if __name__ == "__main__":
    main()

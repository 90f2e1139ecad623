"""A training step: images a second and peak memory, beside the authors' formulation and peers.

CPU, 2 threads, float32, 224 x 224 pixels, batch 8: forward and backward in training mode of
Hire-MLP-Tiny, the authors' formulation of it, and timm networks of about its cost, in turn in one
run; the ratio is a median with its middle half. The share of the limit counts a step as three times
the multiply-adds of a forward pass (`_timing.Limit`), also where checkpointing computes more.
"""

from __future__ import annotations

from functools import partial

import timm
import torch
from _authors import AuthorsHireMLP
from _report import report, table
from _timing import Limit, in_turn, peak_bytes
from torch import nn

import hirelab as hl
from hirelab.analysis.cost import count_macs
from hirelab.models.checkpoints import to_authors

BATCH = 8
PEERS = ("regnety_016", "poolformer_s12", "pvt_v2_b1", "resnet26")  # 1.6 to 2.3 GMACs, Tiny 2.1


def step(model: nn.Module, x: torch.Tensor) -> None:
    """Forward and backward of a mean; gradients are dropped again."""
    model.zero_grad(set_to_none=True)
    model(x).square().mean().backward()


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(2)
    ours = hl.create("hire_mlp_tiny", seed=0)
    authors = AuthorsHireMLP((2, 2, 4, 2), (64, 128, 320, 512))
    authors.load_state_dict(to_authors(ours.state_dict()))
    checkpointed = hl.create("hire_mlp_tiny", seed=0)
    checkpointed.set_grad_checkpointing()
    models = {"authors": authors, "network": ours, "network, checkpointed": checkpointed}
    models |= {name: timm.create_model(name) for name in PEERS}
    x = torch.randn(BATCH, 3, 224, 224)
    for model in models.values():
        model.train()
    limit = Limit()
    steps = {n: lambda m=m: step(m, x) for n, m in models.items()}
    rounds = in_turn({**steps, **limit.candidates}, 9)
    most = limit.rate(rounds)
    with torch.no_grad():
        macs = {name: count_macs(model.eval(), x[:1]) for name, model in models.items()}
    for model in models.values():
        model.train()
    peaks = {name: peak_bytes(partial(step, model, x)) for name, model in models.items()}
    rows = []
    for name in models:
        speed = BATCH / rounds.median(name)
        middle, low, high = rounds.faster(name, "authors")
        rows.append(
            [
                name,
                f"{speed:.1f}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{3 * macs[name] * speed / most:.0%}",
                f"{peaks[name] / 2**20:.0f}",
                f"{peaks[name] / peaks['authors']:.2f}",
            ]
        )
    head = ["training step", "images/s", "times as fast", "of the limit", "peak MiB"]
    head.append("of the authors' memory")
    goals = "Goals against the authors' formulation: 1.3 times as fast, 0.8 of the memory."
    report("training", f"{table(head, rows)}\n\n{goals}")


if __name__ == "__main__":
    main()

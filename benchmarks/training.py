"""A training step: images a second and peak memory, beside the authors' formulation and peers.

CPU, 2 threads, float32, 224 x 224 pixels, batch 8: forward and backward in training mode of
Hire-MLP-Tiny, the authors' formulation of it, and timm networks of about its cost, in turn in one
run; the ratio is a median with its middle half.
"""

from __future__ import annotations

from functools import partial

import timm
import torch
from _authors import AuthorsHireMLP
from _report import report, table
from _timing import in_turn, peak_bytes
from torch import nn

import hirelab as hl
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
    rounds = in_turn({n: lambda m=m: step(m, x) for n, m in models.items()}, 9)
    peaks = {name: peak_bytes(partial(step, model, x)) for name, model in models.items()}
    rows = []
    for name in models:
        middle, low, high = rounds.faster(name, "authors")
        rows.append(
            [
                name,
                f"{BATCH / rounds.median(name):.1f}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{peaks[name] / 2**20:.0f}",
                f"{peaks[name] / peaks['authors']:.2f}",
            ]
        )
    head = ["training step", "images/s", "times as fast", "peak MiB", "of the authors' memory"]
    goals = "Goals against the authors' formulation: 1.3 times as fast, 0.8 of the memory."
    report("training", f"{table(head, rows)}\n\n{goals}")


if __name__ == "__main__":
    main()

"""Training the small networks that an ablation can afford, and their peers: images a second.

CPU, 1 thread (a sweep runs a process a core), float32, batch 64: forward and backward in training
mode of the networks and image sizes that could serve, and of the timm networks of like cost that
the ablations train beside them (`hirelab.ablation.tables.PEERS`); ratios to the Hire-MLP of the
same size in the same round. The last column is the network's share of the multiply-adds a second
that torch.mm reaches here, a training step counted as three times the forward pass.
"""

from __future__ import annotations

from functools import partial

import timm
import torch
from _report import report, table
from _timing import in_turn
from torch import nn
from training import step

from hirelab.ablation.tables import PEERS
from hirelab.analysis.cost import count_macs
from hirelab.training.network import build_network

BATCH = 64
SERVE = (("hire_mlp_atto", 64), ("hire_mlp_atto", 96), ("hire_mlp_atto", 128),
         ("hire_mlp_pico", 96), ("hire_mlp_pico", 128))  # fmt: skip
BESIDE = {"hire_mlp_atto": 96, "hire_mlp_pico": 128}  # the sizes that the peers were chosen at
SIDE = 1024


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(1)
    networks: dict[str, tuple[nn.Module, torch.Tensor, str]] = {}
    for name, size in SERVE:
        x = torch.randn(BATCH, 3, size, size)
        own = f"{name}, {size} px"
        networks[own] = build_network(name, 10, 0.0, {}), x, own
        for row, peer, arguments in PEERS[name] if BESIDE[name] == size else ():
            network = timm.create_model(peer, num_classes=10, **arguments)
            networks[f"{row}, {size} px"] = network, x, own
    limit = torch.randn(SIDE, SIDE)
    candidates = {name: partial(step, model, x) for name, (model, x, _) in networks.items()}
    for model, _, _ in networks.values():
        model.train()
    rounds = in_turn({**candidates, "mm": lambda: limit @ limit}, 7)
    most = SIDE**3 / rounds.median("mm")
    rows = []
    for name, (model, x, own) in networks.items():
        middle, low, high = rounds.faster(name, own)
        with torch.no_grad():
            macs = count_macs(model.eval(), x[:1])
        speed = BATCH / rounds.median(name)
        parameters = sum(p.numel() for p in model.parameters())
        rows.append(
            [
                name,
                f"{parameters / 1e6:.2f}",
                f"{macs / 1e6:.1f}",
                f"{speed:.0f}",
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                f"{100 * 3 * macs * speed / most:.0f} %",
            ]
        )
    head = ["network", "parameters, M", "MMACs", "images/s", "times as fast", "of torch.mm"]
    report("sweep", table(head, rows))


if __name__ == "__main__":
    main()

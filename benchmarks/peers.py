"""Inference beside timm's networks of like cost: size, cost, published accuracy, speed, memory.

CPU, 2 threads, float32, 224 x 224 pixels, batch 8, all networks in turn in one run, random weights
(speed does not depend on them). Accuracies are published ones: Hire-MLP's from the authors' README,
the others' from timm's results of 2025-10 (data/peers.csv). Peak memory is what a forward pass
holds at once beyond weights and input.
"""

from __future__ import annotations

import csv
from functools import partial

import timm
import torch
from _report import report, table
from _timing import Limit, in_turn, peak_bytes

import hirelab as hl
from hirelab._shared.files import data_folder
from hirelab.analysis.cost import count_macs
from hirelab.paper import headline

BATCH, ROUNDS = 8, 7


def accuracies() -> dict[str, float]:
    """Published top-1 by network, ours under their names here."""
    with open(data_folder("") / "peers.csv", newline="", encoding="utf-8") as file:
        found = {row["network"]: float(row["top1"]) for row in csv.DictReader(file)}
    for network, _, _, top1 in headline("v2").rows:
        found["hire_mlp_" + network.rsplit("-", 1)[1].lower()] = float(top1)
    del found["hire_mlp_large"]  # of no peer's cost here
    return found


def main() -> None:
    """Measure, print and keep the table, and say which peers are both faster and more accurate."""
    torch.set_num_threads(2)
    x = torch.randn(BATCH, 3, 224, 224)
    models, macs_of, rows = {}, {}, []
    top1 = accuracies()
    with torch.inference_mode():
        for name in top1:
            model = timm.create_model(name).eval()
            macs = macs_of[name] = count_macs(model, x[:1])
            params = sum(p.numel() for p in model.parameters())
            models[name] = hl.deploy(model) if name.startswith("hire_mlp") else model
            rows.append([name, f"{params / 1e6:.1f}", f"{macs / 1e9:.2f}", f"{top1[name]:.1f}"])
        limit = Limit()
        passes = {n: lambda m=m: m(x) for n, m in models.items()}
        rounds = in_turn({**passes, **limit.candidates}, ROUNDS)
        speed = {name: BATCH / rounds.median(name) for name in models}
        for row in rows:
            peak = peak_bytes(partial(models[row[0]], x))
            share = macs_of[row[0]] * speed[row[0]] / limit.rate(rounds)
            row += [f"{speed[row[0]]:.1f}", f"{share:.0%}", f"{peak / 2**20:.0f}"]
    rows.sort(key=lambda row: -speed[row[0]])
    front = []
    for ours in (name for name in models if name.startswith("hire_mlp")):
        rivals = {n: rounds.faster(n, ours) for n in models if top1[n] > top1[ours]}
        ahead = [n for n, (_, low, _) in rivals.items() if low > 1]
        level = [n for n, (_, low, high) in rivals.items() if low <= 1 <= high]
        front.append(
            f"- more accurate than deployed {ours} and faster: {', '.join(ahead) or 'none'}; "
            f"more accurate and not told apart in speed: {', '.join(level) or 'none'}"
        )
    head = ["network", "M params", "GMACs", "top-1, %", "images/s", "of the limit", "peak MiB"]
    note = "hire_mlp networks deployed (eager), the others as timm builds them."
    report("peers", "\n".join([table(head, rows), "", note, "", *front]))


if __name__ == "__main__":
    main()

"""Accuracy against speed, drawn to docs/front.png: deployed networks and peers.

Right: networks of like cost that were trained alike on Imagenette (the ablations' table of peers,
means over their seeds), and their images a second here, with 1 thread, batch 16, by the processor's
own time, in turn. Left: published ImageNet accuracies and the images a second that
`hirelab bench peers` kept last.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import timm
import torch
from _report import report, table
from _timing import Limit, in_turn

import hirelab as hl
from hirelab._shared.files import project_folder
from hirelab.ablation.tables import PEERS
from hirelab.analysis.cost import count_macs
from hirelab.training.network import build_network
from hirelab.viz.front import Panel, front_of, speed_fronts

NETWORK, SIDE, BATCH, ROUNDS = "hire_mlp_atto", 96, 16, 15
OURS = "Hire-MLP"


def trained_alike() -> tuple[Panel, list[list[str]]]:
    """The networks of the ablations' table of peers, timed here, and the rows of a table."""
    trained = hl.ablation_table("peers")
    x, limit = torch.randn(BATCH, 3, SIDE, SIDE), Limit()
    networks = {OURS: hl.deploy(build_network(NETWORK, 10, 0.0, {}))}
    macs = {OURS: count_macs(build_network(NETWORK, 10, 0.0, {}).eval(), x[:1])}
    for name, model, arguments in PEERS[NETWORK]:
        networks[name] = timm.create_model(model, num_classes=10, **arguments).eval()
        macs[name] = count_macs(networks[name], x[:1])
    with torch.inference_mode():
        passes = {name: lambda m=m: m(x) for name, m in networks.items()}
        rounds = in_turn({**passes, **limit.candidates}, ROUNDS, 2, time.process_time)
    speed = {name: BATCH / rounds.median(name) for name in networks}
    accuracy = dict(zip(trained.rows, map(float, trained.mean), strict=True))
    seeds = dict(zip(trained.rows, trained.values, strict=True))
    rows = []
    for name in sorted(networks, key=lambda name: -speed[name]):
        share = macs[name] * speed[name] / limit.rate(rounds)
        middle, low, high = rounds.faster(name, OURS)
        rows.append([name, f"{accuracy[name]:.1f}", str(len(seeds[name])), f"{speed[name]:.0f}"])
        rows[-1] += [f"{middle:.2f} [{low:.2f}, {high:.2f}]", f"{share:.0%}"]
    panel = Panel(
        "trained alike here: Imagenette",
        "images a second, 1 thread, 96 px",
        "top-1, %",
        speed,
        {name: accuracy[name] for name in networks},
        {name: [name] for name in networks},
        [OURS],
        {name: (min(seeds[name]), max(seeds[name])) for name in networks},
    )
    return panel, rows


def published(kept: Path) -> Panel:
    """Published accuracies, and the speeds of the kept table of `hirelab bench peers`."""
    lines = [line.strip("| ").split("|") for line in kept.read_text("utf-8").splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines if len(line) > 4]
    head, _, *rows = cells
    top1, rate = head.index("top-1, %"), head.index("images/s")
    speed = {row[0]: float(row[rate]) for row in rows}
    accuracy = {row[0]: float(row[top1]) for row in rows}
    families: dict[str, list[str]] = {}
    for name in sorted(speed, key=lambda name: -speed[name]):
        families.setdefault(_family(name), []).append(name)
    return Panel(
        "published: ImageNet",
        "images a second, 2 threads, 224 px",
        "top-1, %",
        speed,
        accuracy,
        families,
        [OURS],
    )


def _family(name: str) -> str:
    """The label of a timm network's family: letters up to the first size."""
    if name.startswith("hire_mlp"):
        return OURS
    known = {"deit": "DeiT", "pvt_v2": "PVT v2", "regnety": "RegNetY", "convnext": "ConvNeXt",
             "resnet": "ResNet", "resmlp": "ResMLP", "gmlp": "gMLP", "mixer": "Mixer",
             "swin": "Swin", "poolformer": "PoolFormer"}  # fmt: skip
    return next((label for start, label in known.items() if name.startswith(start)),
                re.split(r"_|\d", name)[0])  # fmt: skip


def main() -> None:
    """Measure, draw, print and keep."""
    torch.set_num_threads(1)
    alike, rows = trained_alike()
    docs = project_folder("docs")
    left = published(project_folder("data") / "results" / "peers.md")
    best = [", ".join(front_of(panel.speed, panel.accuracy)) for panel in (left, alike)]
    text = f"accuracy against speed; not beaten in both: {best[0]}; trained alike: {best[1]}"
    speed_fronts([left, alike], text).save(docs / "front.png")
    head = ["network", "top-1, %", "trainings", "images/s", "times as fast", "of the limit"]
    report(
        "front",
        f"{table(head, rows)}\n\nImagenette at {SIDE} px, trained alike (means over trainings); "
        f"Hire-MLP deployed. Not beaten in both accuracy and speed: {best[1]}. Of the published "
        f"ones: {best[0]}.",
    )


if __name__ == "__main__":
    main()

"""Numbers that notebooks 01, 02 and 03 say in prose are those of the library and the paper."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nbformat

from hirelab.analysis.cost import block_parts, branch_cost
from hirelab.analysis.reach import reach_growth
from hirelab.datasets.samples import samples
from hirelab.models import create

ROOT = Path(__file__).parents[2]
STAGES = ((56, 4, 2, 2), (28, 3, 2, 2), (14, 3, 1, 3), (7, 2, 1, 2))


def prose(name: str) -> str:
    notebook = nbformat.read(next((ROOT / "notebooks").glob(f"{name}*.ipynb")), as_version=4)
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def ablations() -> list[dict[str, str]]:
    with open(ROOT / "data" / "paper" / "ablations.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_accuracies_in_prose_stand_in_the_paper_s_tables():
    known = {row["top1"] for row in ablations()}
    said = {n for path in ("01", "02") for n in re.findall(r"\b\d\d\.\d\d\b", prose(path))}
    assert said
    assert said <= known


def test_what_the_shuffle_loses_and_what_one_configuration_differs_by():
    top1 = {(row["table"], row["setting"]): float(row["top1"]) for row in ablations()}
    lost = top1["cross_region", "shift"] - top1["cross_region", "shuffle"]
    noise = top1["region", "4,3,3,2"] - top1["shift", "1,1,1,1"]
    assert f"loses {lost:.2f} to the shift" in prose("02")
    assert round(lost / noise) == 6  # "six times"


def test_blocks_until_global():
    maps = [
        reach_growth(*s, blocks=30, axes=2, modes=["shift and restore"]).blocks_until_global()
        for s in STAGES
    ]
    a, b, c, d = (found["shift and restore"] for found in maps)
    assert f"{a}, {b}, {c} and {d} blocks" in prose("02")
    depths = [len(stage.blocks) for stage in create("hire_mlp_tiny", device="meta").stages]
    assert f"Tiny have {depths[0]}, {depths[1]}, {depths[2]} and {depths[3]}" in prose("02")
    for name, depth in (("small", 10), ("base", 24), ("large", 24)):
        assert len(create(f"hire_mlp_{name}", device="meta").stages[2].blocks) == depth >= c
    line = reach_growth(28, 3, 2, 2).blocks_until_global()["shift and restore"]
    assert f"{line} blocks along a line" in prose("02")


def test_shares_of_padding_and_of_the_channel_mlp():
    assert round(1 / branch_cost(128, 3, 28).padding_share) == 14  # "a fourteenth more"
    assert round(1 / branch_cost(512, 2, 7).padding_share) == 7  # "a seventh"
    rows = block_parts(create("hire_mlp_tiny", device="meta")).rows
    share = {name: macs for name, _, macs in rows}["channel MLP"] / sum(r[2] for r in rows)
    assert round(3 * share) == 2  # "two thirds of the multiply-adds"


def test_gate_of_a_trained_block_on_the_cat():
    point = "stages.2.blocks.2.hire.gate.out"
    x, _ = samples(1, 128, "cat")
    _, cache = create("hire_mlp_pico", pretrained=True).run_with_cache(x, point)
    means = cache[point].mean((0, 1)).tolist()
    named = zip(means, cache.point(point).branches, strict=True)
    height, width, channel = (f"{mean:.2f} for {branch}" for mean, branch in named)
    assert f"the mean weights are {height}, {width} and {channel}" in prose("03")
    first = cache[point][0].argmax(1).bincount().tolist()
    most = (
        f"Of the {sum(first)} channels, {first[0]} take most from height and {first[1]} from width"
    )
    assert most in prose("03")

"""Numbers that notebooks 01, 02 and 03 say in prose are those of the library and the paper."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from hirelab.analysis.cost import block_parts, branch_cost
from hirelab.analysis.patching import patching, patching_by_place
from hirelab.analysis.reach import reach_growth
from hirelab.datasets.samples import samples
from hirelab.models import create
from hirelab.widgets import NetworkExplorer

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
    rows = block_parts(create("hire_mlp_tiny", device="meta"), stage=1, block=1).rows
    weights, macs = (sum(row[i] for row in rows) for i in (1, 2))
    share = {name: (own / weights, cost / macs) for name, own, cost in rows}
    assert round(3 * share["channel MLP"][1]) == 2  # "two thirds of the multiply-adds"
    both = [share["height branch"][i] + share["width branch"][i] for i in (0, 1)]
    said = f"Here {both[1]:.1%}, with {both[0]:.0%} of the weights".replace("%", " %")
    assert said in prose("03")


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


def test_gates_of_the_whole_network_on_the_coffee():
    stages, _ = NetworkExplorer(image="coffee").overview("the given one")
    channel = [f"{shares[2]:.2f}" for shares in stages[2].shares]
    text = prose("03")
    assert (
        f"a share of {channel[2]} in one block of stage 2 and of {channel[3]} in the next" in text
    )
    assert f"the last block gives {stages[3].shares[-1][1]:.2f} to width" in text


def test_what_blocks_add_to_the_answer():
    model = create("hire_mlp_pico.tinyimagenet", pretrained=True)
    x, _ = samples(4, model=model)
    one, other = map(list, zip(*itertools.permutations(range(4), 2), strict=True))
    found = patching(model, x[one], x[other])
    rows = {row["point"]: row for row in found.records()}
    most = rows["stages.2.blocks.0.mlp.out"]
    said = f"by {most['effect']:.2f} [{most['low']:.2f}, {most['high']:.2f}] of the way"
    hire = [row["effect"] for name, row in rows.items() if "hire" in name]
    assert f"{said}, and no hire module anywhere by more than {max(hire):.2f}" in prose("03")
    first = {f"stages.{i}.blocks.0.mlp.out" for i in range(4)}
    assert first == set(sorted(rows, key=lambda name: -rows[name]["effect"])[:4])
    places = patching_by_place(model, x[[1, 1]], x[[3, 0]], "stages.2.out").effects
    assert places.max() < 0.1  # "no single token moves it by a tenth of the way"
    rocket, cat = places
    opening, cats = (one_map[1:3, 2:5] for one_map in places)
    said = f"these six places add up to {opening.sum():.2f} of the rocket's {rocket.sum():.2f}, and"
    said = f"{said} to {cats.sum():.2f} of the cat's {cat.sum():.2f}"
    assert f"{said}: a third and a half of the map" in prose("03")
    assert opening.sum() / rocket.sum() == pytest.approx(1 / 3, abs=0.02)
    assert cats.sum() / cat.sum() == pytest.approx(1 / 2, abs=0.03)
    for one_map in places:  # "lie in the cup's opening, in rows 1 and 2"
        row, column = np.unravel_index(one_map.argmax(), one_map.shape)
        assert row in (1, 2)
        assert column in (2, 3)
    assert (opening > rocket[5, 0]).sum() == 1  # the corner, "more than any of them but one"
    away = np.abs(cat).argmax()
    assert divmod(int(away), 6) == (3, 3)
    assert cat.ravel()[away] < 0  # "one, in row 3, moves it away, and more than any other moves it"

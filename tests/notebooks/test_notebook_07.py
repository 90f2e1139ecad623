"""What notebook 07 says in prose is what the library computes; what a ledger decides stands in its
outputs alone."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest

import hirelab as hl
from hirelab import paper
from hirelab.ablation.diagnostics import TASKS, diagnosis_of
from hirelab.ablation.protocols import PROFILES, read_protocol
from hirelab.ablation.report import WORDS, read_runs, table_diagnoses
from hirelab.ablation.statistics import differences as differences_of
from hirelab.ablation.tables import DEFAULT, MARGIN, cell, find_tables, tables
from hirelab.ablation.tables import cells as cells_of
from hirelab.analysis.pyramid import pyramid

ELSEWHERE = "tinyimagenet-cpu"
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "07_ablations.ipynb"


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOK, as_version=4).cells


@pytest.fixture(scope="module")
def prose(cells) -> str:
    return " ".join(c.source for c in cells if c.cell_type == "markdown").replace("*", "")


@pytest.fixture(scope="module")
def bounds(tmp_path_factory):
    """{row of components: {question: the bounds of its stages}}."""
    rows = [row.name for row in tables()["components"].rows]
    found = table_diagnoses("components", ledger=tmp_path_factory.mktemp("none"))
    return {
        name: dict(zip(one.questions, one.bound.T, strict=True))
        for name, one in zip(rows, found, strict=True)
    }


def test_what_the_paper_prints(prose):
    top1 = {name: float(value) for name, value in paper.ablation("components").rows}
    inside = top1["full"] - top1["without inner-region rearrangement"]
    between = top1["full"] - top1["without cross-region rearrangement"]
    assert (
        f"inside regions is worth {inside:.2f} points, exchange between them {between:.2f}" in prose
    )
    lost = []
    for table in find_tables():
        best = table.row(table.reference).top1
        lost += [best - row.top1 for row in table.rows if row.top1 and row.name != table.reference]
    assert np.mean(np.array(lost) < between - 1e-9) > 0.5  # "most are smaller"
    same = cell(shift=(1, 1, 1, 1))
    figures = [row.top1 for t in find_tables() for row in t.rows if row.cell == same and row.top1]
    assert "as {:.2f} and as {:.2f}".format(*figures) in prose


def test_how_ours_differ(prose):
    ours, theirs = (PROFILES[name] for name in ("cpu", "imagenet"))
    assert (theirs.model, theirs.recipe.epochs) == ("hire_mlp_small", 300)
    assert f"for {theirs.recipe.epochs} epochs" in prose
    first = [pyramid(p.model, p.recipe.img_size).grids[0, 0] / 4 for p in (ours, theirs)]
    words = {6: "sixth", 14: "fourteenth"}
    one, other = (words[n] for n in first)
    assert f"a region of 4 covers a {one} of our first map and a {other} of the paper's" in prose
    padded = pyramid(ours.model, ours.recipe.img_size).padded
    assert padded[-1].any()
    assert not padded[:-1].any()  # "only our last stage pads"


def test_the_sweep_is_what_the_protocol_said(prose):
    cpu = PROFILES["cpu"]
    words = {4: "four", 12: "twelve"}
    own, default = words[cpu.seeds], words[cpu.seeds * cpu.default_factor]
    networks = cells_of(find_tables(("all",), cpu.model))
    assert (
        f"{len(networks)} networks, {own} trainings of each and {default} of the full one" in prose
    )
    runs = read_runs("imagenette-cpu").entries
    assert set(runs) == set(networks)
    for one, entries in runs.items():
        assert len(entries) == cpu.seeds * (cpu.default_factor if one == DEFAULT else 1)


def test_what_we_would_have_seen_is_what_we_exclude():
    """ "Times for the paper's" below one, and diamonds outside of their bars: the same claims."""
    summary = hl.ablation_summary()
    would = {
        one["claim"]
        for one in summary.verdicts
        if one["word"] == "not resolved" and one["paper"] + one["margin"] > one["resolvable"]
    }
    assert would == set(summary.apart)


def test_what_the_other_images_tell(prose):
    """Of Tiny-ImageNet's ledger: the full network's three, and bars that say next to nothing."""
    tables_of = {
        name: hl.ablation_table(name, ELSEWHERE) for name in ("components", "cross_region")
    }
    found, at_home = tables_of["components"], hl.ablation_table("components")
    assert found.seeds == [3, 1, 1, 1, 1]
    one, two, three = sorted(found.values[0])
    assert f"get {one:.1f}, {two:.1f} and {three:.1f} % right" in prose
    recipes = [read_protocol(read_runs(name).folder) for name in (ELSEWHERE, "imagenette-cpu")]
    steps = [r["images"]["train"] * r["recipe"]["epochs"] / r["recipe"]["batch_size"]
             for r in recipes]  # fmt: skip
    assert steps[0] == pytest.approx(steps[1], rel=0.1)  # "about as many steps"
    images = recipes[0]["images"]
    assert f"{images['train']:,} images to train with and {images['val']:,} to validate" in prose
    assert (
        "without mixing inside regions most is lost, as in the paper and as on Imagenette" in prose
    )
    for differences in (found.difference, at_home.difference, found.paper_difference):
        assert found.rows[int(np.nanargmin(differences))] == "without inner-region rearrangement"
    assert found.deviation > 1  # "more than a point"
    for table in tables_of.values():
        assert {one["word"] for one in table.verdicts} == {"not resolved"}
        others = np.isfinite(table.low)
        assert (np.abs(table.difference[others]) < (table.high - table.low)[others] / 2).all()
    assert min(one["resolvable"] for one in found.verdicts) == pytest.approx(5, abs=0.5)
    # "Two turns would narrow the bars to about a third": twice as many of each, of this spread
    samples = read_runs(ELSEWHERE).samples("top1")
    offset = np.sqrt(1 - 1 / 2) * found.deviation  # two values with that standard deviation
    twice = {
        name: np.mean(values) + found.deviation * np.sqrt(5 / 6) * np.array([1, -1] * 3)
        if len(values) == 3
        else values[0] + offset * np.array([1, -1])
        for name, values in samples.items()
    }
    (wide,), (narrow,) = (
        {round(d.high - d.low, 2) for d in differences_of(some, "default")}
        for some in (samples, twice)
    )
    assert narrow / wide == pytest.approx(1 / 3, abs=0.06)


def test_what_reaches_a_token_that_no_block_mixes(prose):
    """The stem and the steps between stages alone, counted on the index maps."""
    alone = hl.create("hire_mlp_atto", region=(1, 1, 1, 1), seed=0)
    found = hl.provenance(alone, (3, 3), "stages.3.out", "spatial", 224)
    side = int(found.pixels.any(0).sum())
    assert f"they alone reach {side} pixels" in prose
    assert side / 96 == pytest.approx(2 / 3, abs=0.02)  # "two thirds of this image"
    assert side / 224 == pytest.approx(1 / 4, abs=0.04)  # "little more than a quarter"


def test_what_the_network_without_mixing_does_instead(prose):
    """It sees nearly as far, and its gate matters more."""
    kept = (NOTEBOOK.parents[1] / "data" / "results" / "compensation.md").read_text()
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in kept.splitlines() if "|" in line]
    head = rows[0]
    full, alone = (
        dict(zip(head, next(r for r in rows if r[0] == f"hire_mlp_atto.{tag}"), strict=True))
        for tag in ("imagenette", "imagenette_regions_of_1")
    )
    pair = [
        dict(zip(head, next(r for r in rows if r[0] == f"hire_mlp_pico.{tag}"), strict=True))
        for tag in ("imagenette", "imagenette_isolated")
    ]
    small, large = (
        [-float(one["gate at its mean"]) for one in two] for two in ((alone, full), pair[::-1])
    )
    assert "without mixing {} points and the full one {}".format(*small) in prose
    assert "loses less, {} against {}".format(*large) in prose
    cut = -float(full["shift 0"])
    shift = hl.ablation_table("components")
    trained = -shift.difference[shift.rows.index("without cross-region rearrangement")]
    assert f"trained full network, and {cut} points are gone" in prose
    assert cut > 10 * trained  # "more than ten times what training without them costs"
    half, other = (float(one["not through the gate"]) for one in (full, alone))
    assert other > 0.8 * half  # "nearly as far"


def test_what_the_index_maps_allow(prose, bounds):
    full, none, alone, stays = (
        bounds[name]
        for name in (
            "full", "without cross-region rearrangement", "without inner-region rearrangement",
            "without restore",
        )
    )  # fmt: skip
    assert (none["border"] == 50).all()  # "all that is left for B is a guess"
    assert (full["border"] == 100).all()
    assert f"possible in {none['+1'][0]:.1f} % of places in stage 0" in prose
    assert (full["+1"] == 100).all()
    leaks = TASKS["copy"].size % 4 and none["+4"][0] > 50  # of regions of 4 that do not fill it
    assert leaks
    assert f"farther than a region reaches, are possible ({none['+4'][0]:.1f} %)" in prose
    guess = 100 * TASKS["texture"].chance
    for question, bound in alone.items():
        assert (bound == (guess if question == "texture" else 50)).all()
    assert guess == 25
    assert (
        f"up to {stays['-3'][0]:.1f} % of copies from -3, but only {stays['+3'][0]:.1f} % from +3; "
        f"the full design has {full['-3'][0]:.1f} and {full['+3'][0]:.1f} %" in prose
    )
    for question, bound in bounds["without the channel branch"].items():
        np.testing.assert_array_equal(bound, full[question])


def test_the_design_that_is_trained_live_is_in_no_table(prose):
    mine = cell(region=(5, 5, 2, 2))
    assert mine not in {row.cell for table in find_tables() for row in table.rows}
    found = diagnosis_of(mine, [])
    three = {d: found.bound[:, found.distances[d]] for d in (-3, 3)}
    assert f"it is {three[-3][0]:.1f} % from -3 and {three[3][0]:.1f} % from +3" in prose
    assert three[-3][2] == three[3][2] == 50  # "with regions of 2 it is a guess"


def test_words_of_verdicts_and_margins_are_explained(prose):
    for word in WORDS:
        assert word.capitalize() in prose
    assert f"at most {MARGIN} points" in prose

"""What notebook 11 says in prose is so; its numbers are computed here."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import torch

import hirelab as hl
from hirelab import paper
from hirelab.models.kin import KIN

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "11_kin.ipynb"
PLAIN = {name: name.rsplit("-", 1)[0] for name in KIN}


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return " ".join(c.source for c in cells if c.cell_type == "markdown").replace("*", "")


@pytest.fixture(scope="module")
def reach():
    return hl.kin_reach()


def test_blocks_until_all_hear_all(prose, reach):
    def needs(name, stage):
        return reach.blocks_until_global(name, stage)

    hire = "Hire-MLP-S"
    # "Only in": everywhere else the blocks do not do
    assert [s for s in range(4) if needs(hire, s) <= KIN[hire].depths[s]] == [2]
    assert f"through {needs(hire, 2)} of its {KIN[hire].depths[2]} blocks" in prose
    others = f"ConvNeXt needs {needs('ConvNeXt-T', 2)} there, Swin {needs('Swin-T', 2)}, and AS-MLP"
    assert f"{others} {needs('AS-MLP-T', 2)}, of which it has {KIN['AS-MLP-T'].depths[2]}" in prose
    first = f"{needs(hire, 0)} blocks would do, where Wave-MLP needs {needs('Wave-MLP-S', 0)}"
    assert f"{first} and AS-MLP {needs('AS-MLP-T', 0)}" in prose
    assert needs("CycleMLP-B2", 3) == needs(hire, 3)
    assert f"it needs {needs(hire, 3)}, as many as CycleMLP, and has {KIN[hire].depths[3]}" in prose


def test_what_a_corner_loses(prose):
    explorer = hl.KinExplorer(blocks=6)
    assert (explorer.settings.left, explorer.settings.right) == ("Hire-MLP-S", "AS-MLP-T")
    heard = []
    for place in (0, 7):
        explorer.set(row=place, column=place)
        heard.append([explorer.state()[f"{side}_reached"][-1] for side in ("left", "right")])
    (hire, other), (hire_middle, other_middle) = heard
    assert f"through 6 blocks it hears {hire} tokens, and {hire_middle} in the middle" in prose
    assert f"AS-MLP hears {other} and {other_middle}" in prose


def test_how_much_of_the_image_is_heard(prose, reach):
    pyramids = [name for name in KIN if len(KIN[name].stages) == 4]
    heard = {name: reach.pixel_share(name, 1) for name in pyramids}
    order = sorted(heard, key=heard.get, reverse=True)
    assert order.index("Hire-MLP-S") == len(order) // 2  # "in the middle of its family"
    assert set(order[:2]) == {"ConvNeXt-T", "Swin-T"}  # "that read large squares"
    said = prose.partition("At the end of `stages.1` the middle token of ")[2].partition(".")[0]
    assert said.startswith(f"ConvNeXt hears {heard['ConvNeXt-T']:.0%}".replace("%", " %"))
    at = [said.index(f"{PLAIN[name]} {heard[name]:.0%}".replace("%", " %")) for name in order[1:]]
    assert at == sorted(at)
    assert min(reach.pixel_share(name, 2) for name in KIN) > 0.998  # "all of the image, or nearly"


def test_what_mixing_costs(prose, reach):
    cost = {name: f"{KIN[name].mixing_macs(0) / 1000:.0f}" for name in KIN}
    said = f"costs ConvNeXt {cost['ConvNeXt-T']} thousand multiply-adds a token and block in"
    assert said in prose
    rest = f"Hire-MLP {cost['Hire-MLP-S']}, AS-MLP {cost['AS-MLP-T']}, Swin {cost['Swin-T']}."
    assert rest in prose
    assert KIN["S2-MLP-deep"].macs[0] > 2 * KIN["Hire-MLP-S"].macs[0]  # "more than twice as much"


def test_shuffled_tokens_are_less_accurate():
    (_, shift), (_, shuffle), _ = paper.ablation("cross_region").rows
    assert float(shuffle) < float(shift)


def test_shifts_that_a_branch_does_not_mind(prose, trained):
    assert "After 4 and 8 rows, whole regions" in prose
    x, _ = hl.samples(2, model=trained)
    for stage, free in ((0, {4, 8}), (1, set())):
        point = f"stages.{stage}.blocks.1.hire.input"
        tokens = trained.run_with_cache(x, point)[1][point]
        branch = trained.stages[stage].blocks[1].hire.height
        rows = tokens.shape[2]
        with torch.no_grad():
            before = branch(tokens)
            change = {
                step: (
                    (branch(tokens.roll(step, 2)).roll(-step, 2) - before).norm() / before.norm()
                )
                for step in range(1, min(rows, 9) if stage == 0 else rows)
            }
        assert {step for step, size in change.items() if size < 1e-5} == free
        if stage == 0:
            assert min(size for step, size in change.items() if step not in free) > 0.9
        else:
            assert f"do not fill the {rows} rows" in prose
            assert rows % branch.region


def test_the_table_is_what_the_index_maps_say(prose):
    for name, text in {
        "AS-MLP-T": "2 to either side",
        "S2-MLP-deep": "1 to either side",
        "CycleMLP-B2": "1 to either side",
        "Wave-MLP-S": "a window of 7",
        "PoolFormer-S24": "the mean of 3",
        "ConvNeXt-T": "a kernel of 7",
    }.items():
        reads = int(KIN[name].line(28, 1, 0)[14].sum())
        assert {"2": 5, "1": 3}.get(text[0], int(text[-1]) if text[-1].isdigit() else 0) == reads
        axes = "together" if KIN[name].joint else "apart"
        assert f"| {PLAIN[name]} | {text}" in prose
        row = prose.partition(f"| {PLAIN[name]} |")[2].partition("\n")[0]
        assert f"| {axes} |" in row
    assert [int(KIN["Hire-MLP-S"].line(84, i, 0)[40].sum()) for i in range(4)] == [4, 3, 3, 2]
    assert "its region of 4, 3, 3, 2" in prose


ATTO, RESNET = "hire_mlp_atto.imagenette", "resnet18.imagenette_narrow"
PICO, TWIN = "hire_mlp_pico.imagenette", "hire_mlp_pico.imagenette_isolated"


def points(low: float, high: float) -> str:
    return f"[{low:+.1f}, {high:+.1f}]"


def test_what_moving_an_image_changes(prose):
    moved = hl.translation_results()
    assert moved.change.shape[3] == 200
    change, answers = (moved.difference(ATTO, RESNET, of) for of in ("change", "changed"))
    # "Rolled, Atto gives another answer a little more often", and else they "cannot be told apart"
    assert 0 < answers["roll"][1] < 0.01
    for one in (change["roll"], change["crop"], answers["crop"]):
        assert one[1] < 0 < one[2]
    assert 0 < change["roll minus crop"][1] < 0.005  # "the seam may cost Atto a little more"
    for of in ("change", "changed"):  # "Pico's change no more than its isolated twin's"
        assert max(moved.difference(PICO, TWIN, of)[way][0] for way in ("roll", "crop")) <= 0
    beside = {n: [100 * v for v in moved[n].stride_effect(16)["crop"]] for n in moved.names}
    assert max(beside, key=lambda name: beside[name][0]) == RESNET
    for step in (4, 8, 16):  # "Averaged over its multiples, every stride has lower means at them"
        effects = [moved[n].stride_effect(step) for n in moved.names]
        assert min(one[way][0] for one in effects for way in ("roll", "crop")) > 0
    own, atto = beside[RESNET], beside[ATTO]
    said = f"by {own[0]:.1f} points more beside multiples of 16 pixels than at them"
    assert f"{said} {points(*own[1:])}" in prose
    assert f"Atto by {atto[0]:.1f}, which may be chance {points(*atto[1:])}" in prose


def test_what_corruptions_cost(prose):
    found = hl.robustness_results()
    clean = {
        name: 100 * right.mean() for name, right in zip(found.networks, found.clean, strict=True)
    }
    assert f"{found.clean.shape[1]:,} of the images" in prose
    said = f"Atto is right about {clean[ATTO]:.1f} % and the ResNet about {clean[RESNET]:.1f} %"
    assert said in prose
    rows = {row["kind"]: row for row in found.compare(ATTO, RESNET).records()}

    def ends(row):
        return points(row["accuracy_low"], row["accuracy_high"])

    noise, contrast = rows["noise"], rows["contrast"]
    assert f"by {noise['accuracy']:.1f} points under noise {ends(noise)}" in prose
    assert f"{rows['blur']['accuracy']:.1f} under blur" in prose
    assert f"{rows['pixelate']['accuracy']:.1f} with coarse pixels" in prose
    assert f"{rows['jpeg']['accuracy']:.1f} with JPEG" in prose
    assert f"behind by {-contrast['accuracy']:.1f} with less contrast {ends(contrast)}" in prose
    alone = found.compare(ATTO, f"{ATTO}_regions_of_1").records()[-1]
    assert f"({alone['accuracy']:.1f} points apart over all kinds {ends(alone)})" in prose
    twin = found.compare(PICO, TWIN).records()[-1]
    assert f"ahead of its isolated twin by {twin['accuracy']:.1f} points {ends(twin)}" in prose

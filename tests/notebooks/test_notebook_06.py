"""What notebook 06 says in prose is so; its numbers are computed here. Maps beside each other."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import hirelab as hl
from hirelab._shared.statistics import t_interval
from hirelab.analysis.answers import first_answers
from hirelab.analysis.attribution import beside
from hirelab.lab import exercises
from hirelab.rearrange import Rearrangement
from hirelab.training import release

WIDE = "hire_mlp_pico.tinyimagenet"
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_grad_cam.ipynb"


@pytest.fixture(scope="module")
def prose() -> str:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


@pytest.fixture(scope="module")
def model():
    return hl.create("hire_mlp_pico", pretrained=True)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return hl.samples(2, img_size=128)[0]


def test_the_ten_classes_and_their_numbers(prose, model):
    names = model.pretrained_cfg["label_names"]
    assert f"ten things: {', '.join(names)}." in prose


def test_how_often_it_is_right(prose):
    share = release.evaluation("hire_mlp_pico.imagenette").accuracy(1)
    assert f"the network is right about {share:.0f} of 100 of them" in prose


def test_what_the_network_of_200_classes_knows(prose):
    wide = release.evaluation(WIDE)
    assert f"right about {wide.accuracy(1):.0f} of 100 new ones" in prose
    assert f"the right one stands for {wide.accuracy(5):.0f} of 100" in prose
    config = release.run_info(WIDE).config
    assert {"tabby", "Egyptian cat", "espresso", "projectile"} <= set(wide.classes)
    x, names = hl.samples(7, img_size=config.recipe.img_size)
    found = first_answers(hl.create(WIDE, pretrained=True), x, names=names)
    assert found.rank("coffee", "espresso") == 1
    ranks = found.rank("cat", "Egyptian cat"), found.rank("cat", "tabby")
    assert (*ranks, found.rank("rocket", "projectile")) == (3, 4, 5)  # "third and fourth", "fifth"
    first = {name: row[0] for name, row in zip(names, found.words, strict=True)}
    assert (first["cat"], first["rocket"]) == ("boa constrictor", "obelisk")
    sure = dict(zip(names, found.probabilities[:, 0], strict=True))
    assert f"a boa constrictor, with {sure['cat']:.0%}".replace("%", " %") in prose
    assert f"a spider's web, with {sure['galaxies']:.0%}".replace("%", " %") in prose
    assert max(sure, key=sure.get) == "galaxies"  # "surest where it has no word"


def test_the_map_of_the_espresso_lies_inside_the_cup(prose):
    assert "its map lies inside the cup" in prose
    x, _ = hl.samples(1, img_size=96, source="coffee")
    found = hl.grad_cam(hl.create(WIDE, pretrained=True), x, point="stages.2")
    rows, cols = np.nonzero(found.upsampled[0] > found.upsampled.max() / 2)
    # the cup, from rim to bottom and from side to side, as it was read off the image
    assert rows.min() > 4
    assert rows.max() < 62
    assert cols.min() > 18
    assert cols.max() < 76


def test_almost_every_place_speaks_for_the_cat_s_answer(prose):
    x, _ = hl.samples(1, img_size=96, source="cat")
    (found,) = hl.grad_cam(hl.create(WIDE, pretrained=True), x, point="stages.2").maps
    assert np.unravel_index(found.argmax(), found.shape)[0] == 0
    assert f"most at the upper border ({found.max():.1g})" in prose
    assert (found > 0).mean() > 0.9
    inside = found[1:-1, 1:-1].mean()
    assert (found.sum() - 16 * inside) / 20 > inside  # "the border more than the face"
    # the two eyes and the nose, as they were read off the image: "next to nothing"
    assert max(abs(found[place]) for place in ((2, 2), (2, 4), (5, 3))) < 0.02


def test_what_speaks_for_four_answers_to_the_rocket(prose, model):
    classes = model.pretrained_cfg["label_names"]
    rocket = hl.samples(4, img_size=128)[0][3:]
    shares = 100 * model(rocket).softmax(1)[0].detach()
    first, second = shares.topk(2).indices.tolist()
    assert f"Its answer is {classes[first]}, with {shares[first]:.0f} %" in prose
    assert f"then {classes[second]} with {shares[second]:.0f} %" in prose
    for_, against, ball, saw = (
        hl.grad_cam(model, rocket, classes.index(name), "stages.2").maps[0]
        for name in ("church", "parachute", "golf ball", "chain saw")
    )
    tower, foot = (slice(4, 7), 1), (6, 4)  # as they were read off the image
    assert for_[tower].min() > 0.07 < for_[foot]
    assert against[tower].max() < -0.06 > against[foot]
    assert (against[1:6, 0] > 0.05).all()  # "the sky at the left"
    said = f"by {against.max():.2f} at most, where the strongest place against it has"
    assert f"{said} {against.min():.2f}" in prose
    assert f"next to nothing ({ball.max():.3f} at most)" in prose
    assert f"chain saw some at the ground ({saw.max():.2f})" in prose
    assert np.unravel_index(saw.argmax(), saw.shape)[0] == 7


def test_tokens_and_regions_at_128_pixels(prose, model):
    shapes = {p.name: p.shape for p in model.points("stages.*.out", input_size=(3, 128, 128))}
    sides = [shapes[f"stages.{i}.out"][2] for i in range(4)]
    assert f"tokens grow from {128 // sides[0]} to {128 // sides[3]} pixels" in prose
    assert f"no more than {sides[3] ** 2} tokens" in prose
    branch = model.stages[2].blocks[2].hire.height
    r = branch.rearrangement(sides[2])
    assert r.slots[0, 0] != 0  # "do not begin at row 0"
    assert f"{r.regions} regions where there were {r.size} rows" in prose
    assert f"whose branches shift by {r.shift}" in prose


def test_the_exercise_s_grid():
    shape = Rearrangement(14, 3, 2).slots.shape
    assert (shape, 112 // 8) == ((5, 3), 14)
    net = hl.create("hire_mlp_atto", seed=0)
    point = "stages.1.blocks.1.hire.height.mixed"
    net_x = hl.samples(1, img_size=112)[0]
    rows = hl.grad_cam(net, net_x, point=point).maps.shape[1]
    assert rows == exercises.map_rows.solve()
    branch = net.stages[1].blocks[1].hire.height
    assert (branch.region, branch.shift) == (3, 2)


def test_coherence_is_one_at_the_last_map(model, x):
    held = hl.suggest_target_layer(model, x).coherence
    assert held[-1] == pytest.approx(1)
    assert held[0] < 0.1  # "low in coherence"


def test_where_the_randomisation_check_falls(prose, model):
    check = hl.randomisation_check(model, hl.samples(7, 128)[0], point="stages.2", seed=0)
    with_signs, without = check.similarity.mean(1), check.absolute.mean(1)
    assert check.modules[0] == "head"
    assert f"it is {with_signs[0]:.2f} with signs and {without[0]:.2f} without" in prose
    low, high = check.chance().low, check.chance().high  # the grey band
    inside = without < high
    enters = int(inside.argmax())
    assert f"enters the band when `{check.modules[enters]}` is noise" in prose
    assert inside[enters:].all()  # "and stays in it"
    # with signs: below, above, and below again
    assert with_signs[0] < low
    assert with_signs.max() > high
    assert f"ends a little below it, at {with_signs[-1]:.2f}" in prose
    assert low - 0.05 < with_signs[-1] < low
    assert t_interval(check.similarity[-1])[1] > low  # "an interval that overlaps the band"


def test_the_map_s_order_beats_a_random_one(model):
    x, names = hl.samples(7, 128)
    found = hl.grad_cam(model, x)
    assert hl.deletion_insertion(model, x, found, steps=5).area("gain").low > 0
    # "All of the answers are wrong"
    classes = model.pretrained_cfg["label_names"]
    assert not set(names) & {classes[i] for i in found.predicted}


def test_the_signs_of_a_map_are_those_of_its_score_place_by_place(model, x):
    found = hl.grad_cam(model, x)
    bias = model.head.bias[torch.tensor(found.targets)].detach().numpy()
    score = found.maps.sum((1, 2)) + bias  # "the map is the class's score, place by place"
    assert score == pytest.approx(found.scores, rel=1e-4)


# ------------------------------------------------------------------ maps beside each other


def test_every_map_is_named_with_its_tokens_and_range(model, x):
    maps = {p: hl.grad_cam(model, x[:1], point=p) for p in ("stages.2", "features")}
    still = beside(maps)
    for name, side in (("stages.2", 8), ("features", 4)):
        values = maps[name].upsampled
        said = f"{name}: {side} x {side} tokens, {values.min():.2g} to {values.max():.2g}"
        assert said in still.text
    assert still.data != beside(dict(reversed(maps.items()))).data


def test_a_map_turned_round_has_its_colours_exchanged(model, x):
    from hirelab.viz import overlay

    values = hl.grad_cam(model, x[:1]).upsampled[0]
    image = np.zeros((*values.shape, 3), np.uint8)
    for sign in (1, -1):
        one = overlay.maps_figure(image, [sign * values], ["a"], ["b"])
        low, high = sorted((sign * values.min(), sign * values.max()))
        assert one.text == f"a: b, {low:.2g} to {high:.2g}"


@pytest.mark.parametrize("wrong", ["none", "several", "others"])
def test_maps_of_other_images_are_refused(model, x, wrong):
    one, other = hl.grad_cam(model, x[:1]), hl.grad_cam(model, x[1:])
    found = {"none": {}, "several": {"a": hl.grad_cam(model, x)}, "others": {"a": one, "b": other}}
    with pytest.raises(ValueError, match=r"single image|same RGB image"):
        beside(found[wrong])

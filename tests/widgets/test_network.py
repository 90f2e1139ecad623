"""What explorers read from a network: its sizes, its limits, and whether it was trained."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from _helpers import randomise

import hirelab as hl
from hirelab.viz.canvas import Canvas
from hirelab.widgets.network import Stage, stage_table

LOOKS = {
    "BlockExplorer": hl.BlockExplorer,
    "ReceptiveFieldExplorer": hl.ReceptiveFieldExplorer,
    "AttributionExplorer": hl.AttributionExplorer,
    "NetworkExplorer": hl.NetworkExplorer,
}


@pytest.fixture
def texts(monkeypatch):
    """Every text that is written into a figure."""
    written, write = [], Canvas.text

    def text(self, xy, text, *args, **kwargs):
        written.append(text)
        write(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(Canvas, "text", text)
    return written


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("given", ["bundled", "made", "trained"])
def test_untrained_weights_are_noted_whoever_made_them(name, given, texts):
    """Asked of the weights: a network that the reader made can be fresh; the default is not."""
    model = None if given == "bundled" else hl.create("hire_mlp_atto", seed=0)
    if given == "trained":
        randomise(model)
    LOOKS[name](model, "cat").render()
    assert any("the weights are untrained" in text for text in texts) == (given == "made")


def test_the_note_goes_once_the_network_is_trained(texts):
    model = hl.create("hire_mlp_atto", seed=0)
    explorer = hl.BlockExplorer(model, "cat")
    randomise(model)
    explorer.render()
    assert not any("untrained" in text for text in texts)


@pytest.mark.parametrize("name", LOOKS)
def test_settings_count_as_the_names_of_points_do(name, texts):
    model = hl.create("hire_mlp_atto", seed=0)
    for stage, block in [(0, 0), (2, 2)]:
        texts.clear()
        explorer = LOOKS[name](model, "cat", stage=stage, block=block)
        explorer.render()
        assert f"stages.{stage}.blocks.{block}" in texts[0]
        assert f"stages.{stage}.blocks.{block}" in explorer.state()["at"]


@pytest.mark.parametrize("name", LOOKS)
def test_limits_are_the_network_s_own(name):
    sizes = {"depths": (1, 3), "dims": (8, 16), "region": 2, "shift": 1, "shift_cycle": 2}
    model = hl.create("hire_mlp_atto", seed=0, num_classes=5, **sizes)
    explorer = LOOKS[name](model, "cat")
    assert (explorer.settings.stage, explorer.settings.block) == (1, 1)  # the nearest to the usual
    highest = {"stage": 1, "block": 2, "channel": 15}
    for setting in highest.keys() & explorer.controls.keys():
        assert explorer.controls[setting].high == highest[setting]
        with pytest.raises(ValueError, match=rf"{setting} is {highest[setting] + 1}; .*give a "):
            explorer.set(**{setting: highest[setting] + 1})
    explorer.set(block=2)
    with pytest.raises(ValueError, match="block is 2; with stage=0, give 0"):
        explorer.set(stage=0, block=2)
    explorer.set(stage=0)
    assert explorer.settings.block == 0
    if "target" in explorer.controls:
        assert explorer.controls["target"].options == (-1, 0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    "make", [hl.RegionExplorer, hl.ShiftExplorer, hl.RearrangementPlayer, hl.ReachExplorer]
)
def test_explorers_of_sizes_offer_the_stages_that_there_are(make):
    sizes = {"depths": (1,), "dims": (8,), "region": 2, "shift": 1, "shift_cycle": 2}
    small = hl.create("hire_mlp_atto", device="meta", **sizes)
    explorer = make(small)
    assert explorer.controls["stage"].options == (0,)
    assert explorer.state()["at"] == "stages.0"
    assert make().controls["stage"].options == (0, 1, 2, 3)


@pytest.mark.parametrize("name", [*LOOKS, "RegionExplorer", "ShiftExplorer", "ReachExplorer"])
def test_they_work_at_the_size_that_the_network_was_made_for(name):
    """The grids and limits of Pico's 128 pixels, not of 224; and of a size that is asked for."""
    trained = hl.create("hire_mlp_pico", pretrained=True)
    made = getattr(hl, name)
    explorer, other = made(trained), made(trained, img_size=64)
    assert (explorer.img_size, other.img_size, made(img_size=96).img_size) == (128, 64, 96)
    explorer.set(stage=1)
    other.set(stage=1)
    state = json.dumps(explorer.state()), json.dumps(other.state())
    if name in ("ShiftExplorer", "ReachExplorer"):
        limit = {"ShiftExplorer": "token", "ReachExplorer": "row"}[name]
        assert (explorer.controls[limit].high, other.controls[limit].high) == (15, 7)
    if name in ("AttributionExplorer", "RegionExplorer"):
        assert ("16 x 16" in state[0], "8 x 8" in state[1]) == (True, True)
    if name == "BlockExplorer":
        assert explorer.maps()["out"].shape == (16, 16)
        assert other.maps()["out"].shape == (8, 8)
    with pytest.raises(ValueError, match="img_size is 0"):
        made(trained, img_size=0)


def test_the_size_is_the_one_of_the_measurement_beside_it():
    """What an explorer says of an image is what the library says of it at the network's size."""
    trained = hl.create("hire_mlp_pico", pretrained=True)
    x, _ = hl.samples(1, source="rocket", model=trained)
    found = hl.attribute(trained, x)
    state = hl.AttributionExplorer(trained, "rocket").state()
    assert state["probability"] == round(float(found.probabilities[0]), 3)


@pytest.mark.parametrize("name", [*LOOKS, "RegionExplorer", "ShiftExplorer", "RearrangementPlayer"])
def test_another_image_is_looked_at_and_reset_takes_it_back(name):
    model = hl.create("hire_mlp_atto", seed=0)
    explorer = getattr(hl, name)(model, "cat", img_size=64)
    first = explorer.still()
    if "photograph" in explorer.controls:
        explorer.set(photograph="retina")
    explorer.look_at("coffee")
    assert explorer.still() == getattr(hl, name)(model, "coffee", img_size=64).still() != first
    with pytest.raises(ValueError, match="not an image"):
        explorer.look_at(b"no image")
    explorer.reset()
    assert explorer.still() == first


@pytest.mark.parametrize("make", [hl.CostExplorer, hl.ReachExplorer])
def test_where_no_image_is_shown_none_is_taken(make):
    with pytest.raises(ValueError, match="shows no image"):
        make().look_at("cat")


def test_the_table_of_stages_agrees_with_the_network():
    model = hl.create("hire_mlp_atto", seed=0)
    shapes = [f.shape for f in model.forward_intermediates(
        torch.zeros(1, 3, 224, 224), intermediates_only=True)]  # fmt: skip
    assert stage_table(model) == tuple(
        Stage(f"stages.{i}", shape[2], shape[1], model.shift_cycle[i])
        for i, shape in enumerate(shapes)
    )


@pytest.mark.parametrize("arguments", [{}, {"restore": False}, {"cross_region": "shuffle"}])
@pytest.mark.parametrize("carry_back", [False, True])
def test_lines_in_the_block_s_diagram_stand_where_regions_meet(arguments, carry_back):
    """Rows between two lines of a branch's result depend on the same rows of the input, and rows
    on two sides of a line do not: by the gradient."""
    model = hl.create("hire_mlp_atto", seed=0, **arguments)
    explorer = hl.BlockExplorer(model, "cat", stage=1, block=1, carry_back=carry_back)
    points = explorer.points()
    for axis, name in enumerate(("height", "width")):
        branch = getattr(model.stages[1].blocks[1].hire, name)
        x = torch.randn(1, 24, 28, 28, requires_grad=True)
        out = branch(x).mean(1)[0].movedim(axis, 0).sum(1)
        hears = []
        for row in out:
            (gradient,) = torch.autograd.grad(row, x, retain_graph=True)
            heard = gradient.abs().sum(1)[0].movedim(axis, 0).sum(1)
            hears.append(tuple(heard.nonzero().flatten().tolist()))
        regions = points[f"hire.{name}.out"].regions[axis]
        assert [a == b for a, b in itertools.pairwise(regions)] == [
            a == b for a, b in itertools.pairwise(hears)
        ]
        shifted = points[f"hire.{name}.shifted"].regions[axis]
        if not carry_back:
            assert shifted.tolist() == [i // 3 for i in range(28)]
        elif arguments.get("restore", True):
            assert shifted.tolist() == regions.tolist()
    assert not points["hire.input"].regions
    assert bool(points["hire.height.mixed"].regions) == carry_back

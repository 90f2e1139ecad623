"""What explorers read from a network: its sizes, its limits, and whether it was trained."""

from __future__ import annotations

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
@pytest.mark.parametrize("given", [None, "made", "trained"])
def test_untrained_weights_are_noted_whoever_made_them(name, given, texts):
    """Asked of the weights: a network that the reader made can be as fresh as the default."""
    model = None if given is None else hl.create("hire_mlp_atto", seed=0)
    if given == "trained":
        randomise(model)
    LOOKS[name](model, "cat").render()
    assert any("the weights are untrained" in text for text in texts) == (given != "trained")


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
    highest = {"stage": 1, "block": 2, "target": 4, "channel": 15}
    for setting in highest.keys() & explorer.controls.keys():
        assert explorer.controls[setting].high == highest[setting]
        with pytest.raises(ValueError, match=f"{setting} is {highest[setting] + 1}; give a whole"):
            explorer.set(**{setting: highest[setting] + 1})
    explorer.set(block=2)
    with pytest.raises(ValueError, match="Block 2 does not exist: stage 0 has block 0 alone"):
        explorer.set(stage=0)


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


def test_the_table_of_stages_agrees_with_the_network():
    model = hl.create("hire_mlp_atto", seed=0)
    shapes = [f.shape for f in model.forward_intermediates(
        torch.zeros(1, 3, 224, 224), intermediates_only=True)]  # fmt: skip
    assert stage_table(model) == tuple(
        Stage(f"stages.{i}", shape[2], shape[1], model.shift_cycle[i])
        for i, shape in enumerate(shapes)
    )

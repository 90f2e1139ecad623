"""KinExplorer: what it counts, what it offers, and its sheet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import hirelab as hl
from hirelab.analysis.kin import sources_through
from hirelab.models.kin import KIN
from hirelab.viz import theme


def test_both_sides_are_what_the_index_maps_say():
    explorer = hl.KinExplorer(
        left="Wave-MLP-S", right="Swin-T", stage=1, row=0, column=27, blocks=4
    )
    state = explorer.state()
    for side in ("left", "right"):
        member = KIN[state[side]]
        steps = sources_through(member, (28, 28), 1, (0, 27), 4)
        assert state[f"{side}_reached"] == [int(step.sum()) for step in steps[1:]]
        assert state[f"{side}_published"] == member.depths[1]
    assert f"{state['left_reached'][-1] / 784:.0%}" in explorer.update({}).text


def test_only_stages_that_both_have_are_offered():
    explorer = hl.KinExplorer(stage=1)
    explorer.set(right="S2-MLP-deep")
    assert explorer.settings.stage == 2
    assert explorer.controls["stage"].options == (2,)
    with pytest.raises(hl.HirelabError, match="right='S2-MLP-deep', choose one of 2"):
        explorer.set(stage=0)
    explorer.set(right="AS-MLP-T", stage=0)


def test_what_is_reached_is_tinted_and_the_rest_is_pale():
    """On a black image: the token in its own colour, neighbours in the first block's."""
    explorer = hl.KinExplorer(
        image=Image.new("RGB", (224, 224)), stage=3, row=3, column=3, blocks=1, right="ConvNeXt-T"
    )
    drawn = np.asarray(explorer.render())
    scale, side = 2, 440
    for left, member in ((12, "Hire-MLP-S"), (12 + side + 24, "ConvNeXt-T")):
        steps = sources_through(KIN[member], (7, 7), 3, (3, 3), 1)
        cell = side / 7
        for row, column in np.ndindex(7, 7):
            y, x = 104 + (row + 0.5) * cell, left + (column + 0.5) * cell
            color = drawn[round(y * scale), round(x * scale)]
            if (row, column) == (3, 3):
                assert tuple(color) == theme.rgb(theme.FOCUS)
            else:
                assert (color.mean() < 100) == steps[1][row, column]


def test_the_image_is_seen_and_can_be_another():
    explorer = hl.KinExplorer("cat")
    before = explorer.render().tobytes()
    explorer.look_at("rocket")
    assert explorer.render().tobytes() != before
    explorer.reset()
    assert explorer.render().tobytes() == before

"""Activation patching: what must come out 0 or 1, and what a linear head makes exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import randomise

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.analysis.patching import Patching


@pytest.fixture(scope="module")
def network():
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=50)).double()


@pytest.fixture(scope="module")
def pairs(network):
    """Pairs that the network answers differently."""
    x = torch.randn(24, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 3
    found = network(x.double()).argmax(1)
    other = next(i for i in range(24) if found[i] != found[0])
    third = next(i for i in range(24) if found[i] != found[other])
    return x[[0, other, third]], x[[other, 0, other]]


def test_what_decides_everything_has_effect_one_and_what_is_alike_none(network, pairs):
    x, other = pairs
    blocks = [f"stages.{i}.blocks.0.out" for i in range(4)]
    found = hl.patching(network, x, other, ["stem.out", *blocks, "logits"])
    np.testing.assert_allclose(found.effects, 1, rtol=1e-9)
    # a point that the two passes agree on decides nothing: their gates, once they are held equal
    same = {"stages.3.blocks.1.hire.gate": hl.edit.fix(height=0.2, width=0.3, channel=0.5)}
    with network.edits(same):
        held = hl.patching(network, x, other, "stages.3.blocks.1.hire.gate")
    np.testing.assert_allclose(held.effects, 0, atol=1e-9)


def test_an_effect_is_what_a_pass_by_hand_gives(network, pairs):
    x, other = (images.double() for images in pairs)
    name = "stages.2.blocks.1.hire.width.out"
    found = hl.patching(network, x, other, name)
    captured = []
    branch = network.stages[2].blocks[1].hire.width
    handle = branch.register_forward_hook(lambda _, __, out: captured.append(out))
    with torch.no_grad():
        end, start = network(other), network(x)
    handle.remove()
    handle = branch.register_forward_hook(lambda _, __, out: captured[0])
    with torch.no_grad():
        moved = network(x)
    handle.remove()
    for i in range(len(x)):
        a, b = start[i].argmax(), end[i].argmax()
        d = [float(logits[i, a] - logits[i, b]) for logits in (start, moved, end)]
        assert found.effects[0, i] == pytest.approx((d[0] - d[1]) / (d[0] - d[2]), rel=1e-9)
    mean = found.effects[0].mean()
    assert found.low[0] < mean < found.high[0]
    assert found.records()[0]["effect"] == pytest.approx(mean)


def test_after_the_last_map_places_add_up(network, pairs):
    """The head is linear in the average over places, so each place's effect is its own share."""
    x, other = pairs
    found = hl.patching_by_place(network, x, other, "features", batch_size=3)
    assert found.effects.shape == (3, 2, 2)
    np.testing.assert_allclose(found.whole, 1, rtol=1e-9)
    np.testing.assert_allclose(found.effects.sum((1, 2)), 1, rtol=1e-9)
    assert found.effects.std() > 1e-3


def test_how_many_at_once_changes_nothing(network, pairs):
    x, other = pairs
    one = hl.patching_by_place(network, x[:1], other[:1], "stages.2.out", batch_size=1)
    all_of_them = hl.patching_by_place(network, x[:1], other[:1], "stages.2.out")
    assert one.effects.shape == (1, 4, 4)
    np.testing.assert_allclose(one.effects, all_of_them.effects, rtol=1e-9, atol=1e-12)


def test_the_network_is_left_as_it_was(network, pairs):
    network.train()
    try:
        hl.patching(network, *pairs)
        assert all(module.training for module in network.modules())
        assert not network.attached()
        assert all(p.grad is None and p.requires_grad for p in network.parameters())
    finally:
        network.eval()


def test_a_single_pair_has_no_interval_and_a_file_brings_it_back(network, pairs, tmp_path):
    x, other = pairs
    found = hl.patching(network, x[:1], other[:1])
    assert np.isnan(found.low).all()
    assert len(found.points) == 2 * sum(len(stage.blocks) for stage in network.stages)
    assert found.plot().data[:4] == b"\x89PNG"
    found.save(tmp_path / "found.npz")
    back = Patching.load(tmp_path / "found.npz")
    assert back.answers == found.answers
    np.testing.assert_array_equal(back.effects, found.effects)
    shown = hl.patching_by_place(network, x[:1], other[:1], "stages.3.out").plot()
    assert f"{found.answers[0][0]} / {found.answers[0][1]}" in shown.text


def test_what_cannot_be_compared_is_said_in_a_sentence(network, pairs):
    x, other = pairs
    with pytest.raises(HirelabError, match="both images of pair 0; patching needs two"):
        hl.patching(network, x, x)
    with pytest.raises(HirelabError, match="pairs of images of one size"):
        hl.patching(network, x, other[:, :, :32])
    with pytest.raises(HirelabError, match="region grid in shifted order; patching by place"):
        hl.patching_by_place(network, x, other, "stages.1.blocks.1.hire.height.mixed")
    with pytest.raises(HirelabError, match="is a gate; patching by place needs"):
        hl.patching_by_place(network, x, other, "stages.1.blocks.1.hire.gate")
    with pytest.raises(HirelabError, match="give the name of one"):
        hl.patching_by_place(network, x, other, "stages.*.out")
    with pytest.raises(HirelabError, match="no named points"):
        hl.patching(torch.nn.Linear(2, 2), x, other)

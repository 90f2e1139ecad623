"""NetworkExplorer: the overview is what the network computes; the chosen point is the reader's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _helpers import randomise

import hirelab as hl
from hirelab.datasets.images import open_image
from hirelab.datasets.transforms import normalise, square
from hirelab.widgets.phrases import said_of_gate


@pytest.fixture(scope="module")
def network():
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=7))


@pytest.fixture(scope="module")
def x():
    return normalise([square(open_image("cat"), 96)])


@pytest.fixture(scope="module")
def explorer(network):
    return hl.NetworkExplorer(network, "cat", img_size=96)


def test_the_overview_is_the_network_s_own_pass(explorer, network, x):
    logits, cache = network.run_with_cache(x)
    stages, probabilities = explorer.overview(explorer.settings.photograph)
    np.testing.assert_allclose(probabilities, logits[0].softmax(0), rtol=1e-4)
    assert [len(stage.maps) - 1 for stage in stages] == [len(s.blocks) for s in network.stages]
    for i, stage in enumerate(stages):
        assert len(stage.shares) == len(stage.maps) - 1
        for j, (values, shares) in enumerate(zip(stage.maps[1:], stage.shares, strict=True)):
            whole = cache[f"stages.{i}.blocks.{j}.out"][0].double()
            np.testing.assert_allclose(values, whole.square().mean(0).sqrt(), rtol=1e-4)
            gate = cache[f"stages.{i}.blocks.{j}.hire.gate.out"][0].double()
            np.testing.assert_allclose(shares, gate.mean(0), rtol=1e-4)
            assert shares.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("point", ["out", "hire.width.mixed", "hire.height.shifted"])
def test_the_chosen_point_has_its_own_map_grid_and_limits(explorer, network, x, point):
    name = f"stages.1.blocks.1.{point}"
    explorer.set(stage=1, block=1, point=point, row=0, column=0)
    _, cache = network.run_with_cache(x, points=name)
    whole = cache[name][0].double()
    seen = explorer.measure(explorer.settings)
    np.testing.assert_allclose(seen.values, whole.square().mean(0).sqrt(), rtol=1e-4)
    rows, columns = whole.shape[1:]
    assert (explorer.controls["row"].high, explorer.controls["column"].high) == (
        rows - 1,
        columns - 1,
    )
    with pytest.raises(ValueError, match=f"column is {columns}; .*stage=1"):
        explorer.set(column=columns)
    assert explorer.state()["shape"] == " x ".join(map(str, whole.shape))
    assert ("region" in explorer.state()) == (point != "out")


def test_what_cannot_reach_the_place_has_no_gradient_there(network, x):
    """With the gates held, the derivative of one place is zero outside the part that is shown."""
    explorer = hl.NetworkExplorer(network, "cat", img_size=96, stage=0, block=1, row=9, column=14)
    shown = explorer.measure(explorer.settings).reaches.pixels
    assert 0 < shown.mean() < 1
    held = x.clone().requires_grad_(True)
    gates = dict(network.run_with_cache(x, points="*gate*")[1].items())
    with network.edits({name: hl.edit.replace(value.detach()) for name, value in gates.items()}):
        _, cache = network.run_with_cache(held, points="stages.0.blocks.1.out", grad=True)
        cache["stages.0.blocks.1.out"][0, :, 9, 14].sum().backward()
    heard = (held.grad[0] != 0).any(0).numpy()
    assert not (heard & ~shown).any()
    assert heard.sum() > shown.sum() * 0.9


def test_networks_without_a_gate_or_without_classes_are_shown_too():
    plain = hl.create("hire_mlp_atto", seed=0, fusion="sum", branches=("height",), num_classes=0)
    explorer = hl.NetworkExplorer(plain, "cat", img_size=64)
    explorer.set(stage=3, block=1, point="mlp.out")
    assert explorer.render()
    state = explorer.state()
    assert not {"answer", "gate_height"} & state.keys()
    text = explorer.update({}).text
    assert "no gate" in text
    assert "says" not in text
    assert "hire.width.out" not in explorer.controls["point"].options


def test_without_a_network_it_is_one_that_knows_the_coffee_cup():
    state = hl.NetworkExplorer().state()
    assert state["answer"] == "espresso"
    assert state["probability"] > 0.4


def test_another_image_of_the_list_gives_another_answer(explorer):
    before = explorer.overview(explorer.settings.photograph)[1]
    explorer.set(photograph="coffee")
    after = explorer.measure(explorer.settings).probabilities
    assert np.abs(before - after).max() > 1e-3
    assert torch.isfinite(torch.from_numpy(after)).all()


def test_what_is_said_of_the_gate_counts_channels_and_is_no_mean():
    weights = np.array([[0.9, 0.1, 0.0], [0.4, 0.5, 0.1], [0.2, 0.8, 0.0], [0.3, 0.6, 0.1]])
    assert said_of_gate(weights, ("height", "width", "channel")) == (
        "Of the gate's channels, 25% take most from height, 75% from width, 0% from channel."
    )

"""Which point is suggested, and what is warned of."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from _helpers import random_images, randomise
from torch import nn

import hirelab as hl
from hirelab.analysis.advice import suggest_target_layer


def make(**kwargs) -> nn.Module:
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=5, **kwargs))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return make()


def vit() -> nn.Module:
    sizes = {"depth": 2, "embed_dim": 24, "num_heads": 2, "img_size": (64, 96)}
    return timm.create_model("vit_tiny_patch16_224", num_classes=4, **sizes).eval()


def test_untrained_weights_are_warned_of():
    warned = suggest_target_layer(hl.create("hire_mlp_atto", seed=0), random_images()).warnings
    assert any("weights are untrained" in w for w in warned)


def test_suggestion_measures_how_much_of_the_gradient_its_average_holds(model):
    x = random_images()
    found = suggest_target_layer(model, x)
    assert found.points == ["stages.0.out", "stages.1.out", "stages.2.out", "features"]
    assert found.grids.tolist() == [[16, 16], [8, 8], [4, 4], [2, 2]]
    assert found.cells.tolist() == [[4, 4], [8, 8], [16, 16], [32, 32]]
    assert found.point == "features"
    assert found.finer == "stages.2.out"
    # after the last norm come an average and a linear layer: one gradient for all places
    assert found.coherence[-1] == pytest.approx(1, abs=1e-6)
    for name, held in zip(found.points, found.coherence, strict=True):
        with torch.enable_grad():
            logits, cache = model.run_with_cache(x.clone().requires_grad_(), name, grad=True)
            (g,) = torch.autograd.grad(logits.max(1).values.sum(), cache[name])
        shares = g.mean((2, 3)).square().sum(1) / g.square().mean((2, 3)).sum(1)
        assert held == pytest.approx(float(shares.mean()), rel=1e-3)
    text = repr(found)
    assert "Look at features: the last map, 2 x 2" in text
    assert "leaves nothing out" in text
    assert np.isnan(suggest_target_layer(model).coherence).all()
    assert suggest_target_layer(model).grids.tolist() == [[56, 56], [28, 28], [14, 14], [7, 7]]


def test_suggestion_names_wrong_predictions_and_no_others(model):
    x = random_images(3)
    with torch.no_grad():
        truth = model(x).argmax(1).tolist()
    assert not any("wrong" in w for w in suggest_target_layer(model, x, truth).warnings)
    truth[1] = (truth[1] + 2) % 5
    (said,) = (w for w in suggest_target_layer(model, x, truth).warnings if "wrong" in w)
    assert said.startswith("image 1 is predicted wrongly: ")
    assert f"(target={truth[1]}) what spoke for the label" in said
    with pytest.raises(ValueError, match="without images"):
        suggest_target_layer(model, labels=truth)
    with pytest.raises(ValueError, match="target is 7"):
        suggest_target_layer(model, x, 7)


def test_suggestion_says_when_the_head_is_new(model):
    assert not any("head" in w for w in suggest_target_layer(model, random_images()).warnings)
    fresh = make()
    fresh.reset_classifier(7)
    assert any("a new head" in w for w in suggest_target_layer(fresh, random_images()).warnings)


def test_suggestion_passes_over_maps_that_do_not_reach_the_class():
    """A class token takes over in the last block of a ViT, so its map has no gradient."""
    found = suggest_target_layer(randomise(vit()), random_images(height=64, width=96))
    assert found.point == "blocks.0"
    assert any("nothing of the map at blocks.1 moves" in w for w in found.warnings)


def test_the_network_is_left_as_it_was_also_after_an_error(leaves_no_hooks):
    net = make()
    leaves_no_hooks(net)
    net.train()
    net.stages[0].eval()

    def state() -> list:
        return [m.training for m in net.modules()] + [p.requires_grad for p in net.parameters()]

    before = state()
    suggest_target_layer(net, random_images())
    assert state() == before
    handle = net.norm.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        suggest_target_layer(net, random_images())
    handle.remove()
    assert state() == before
    with pytest.raises(ValueError, match="does not list its maps"):
        suggest_target_layer(nn.Conv2d(3, 4, 3), random_images())


def test_classes_are_named_where_the_network_names_them():
    net = make()
    x = random_images(1)
    with torch.no_grad():
        guess = int(net(x).argmax(1))
    label = (guess + 1) % 5
    names = ["ape", "bee", "cat", "dog", "eel"]
    net.pretrained_cfg = {"label_names": names}
    (said,) = (w for w in suggest_target_layer(net, x, label).warnings if "wrongly" in w)
    assert f"predicted wrongly: {names[guess]} (" in said
    assert f"its label is {names[label]} (" in said
    assert names[guess] in hl.grad_cam(net, x).overlay().text
    # names of another number of classes are names of other classes
    net.pretrained_cfg = {"label_names": ["ape", "bee"]}
    (said,) = (w for w in suggest_target_layer(net, x, label).warnings if "wrongly" in w)
    assert f"predicted wrongly: class {guess} (" in said


def test_no_line_is_long_and_no_word_is_cut(model):
    found = suggest_target_layer(model, random_images(3), labels=[0, 1, 2])
    lines = repr(found).splitlines()
    assert max(map(len, lines)) <= 88
    said = " ".join(repr(found).split())
    for text in (*found.warnings, found.why):
        assert text in said

"""A dense network as a classifier of one place: the same numbers as the whole network's."""

from __future__ import annotations

import pytest
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.hooks.points import edits

CLASSES = ["round", "square"]
SMALL = {"min_size": 96, "max_size": 128, "anchor_scale": 4.0, "width": 24}
X = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["fpn", "upernet"])
def segmenter(request):
    less = {"width": 16} if request.param == "upernet" else {}
    return hl.segmenter(request.param, "hire_mlp_atto", CLASSES, seed=0, **less)


@pytest.fixture(scope="module", params=["retinanet", "mask_rcnn"])
def detector(request):
    return hl.detector(request.param, "hire_mlp_atto", CLASSES, seed=0, **SMALL)


def test_a_pixels_logits_are_the_segmenters_own(segmenter):
    seen = hl.focus(segmenter, (30, 41))
    with torch.no_grad():
        torch.testing.assert_close(seen(X), segmenter(X)[:, :, 30, 41])
    assert seen.num_classes == 2


def test_a_proposals_score_is_the_softmax_of_its_box():
    """Proposals go in as boxes: what the second stage says of them is what `focus` says."""
    model = hl.detector("mask_rcnn", "hire_mlp_atto", CLASSES, seed=0, **SMALL)
    seen = {}
    model.net.rpn.register_forward_hook(lambda _, given, out: seen.update(boxes=out[0][0]))
    of_boxes = model.net.roi_heads.box_predictor
    of_boxes.register_forward_hook(lambda _, given, out: seen.update(logits=out[0]))
    with torch.no_grad():
        model(list(X[:1]))
        for i in (0, 3):
            box = seen["boxes"][i].tolist()
            logits = seen["logits"][i].clone()
            (own,) = hl.focus(model, box)(X[:1])
            torch.testing.assert_close(own, logits.roll(-1))  # the background last
            model(list(X[:1]))


def test_an_anchors_logits_are_those_of_its_box():
    model = hl.detector("retinanet", "hire_mlp_atto", CLASSES, seed=0, **SMALL)
    seen = {}
    net = model.net
    net.anchor_generator.register_forward_hook(lambda _, given, out: seen.update(anchors=out[0]))
    net.head.register_forward_hook(lambda _, given, out: seen.update(out))
    with torch.no_grad():
        model(list(X[:1]))
        anchors, logits = seen["anchors"], seen["cls_logits"][0]
        inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= 128) & (anchors[:, 3] <= 96)
        i = int(inside.nonzero()[40])
        (own,) = hl.focus(model, anchors[i].tolist())(X[:1])
    torch.testing.assert_close(own, logits[i])


def test_a_box_means_the_same_place_on_a_scaled_image():
    small, large = (
        hl.detector("mask_rcnn", "hire_mlp_atto", CLASSES, seed=0, **{**SMALL, **sizes})
        for sizes in ({}, {"min_size": 192, "max_size": 256})
    )
    twice = torch.nn.functional.interpolate(X, scale_factor=2, mode="bilinear")
    with torch.no_grad():
        one = hl.focus(large, (10, 12, 70, 60))(X)  # scaled by the detector
        other = hl.focus(large, (20, 24, 140, 120))(twice)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert small is not large


def test_what_measures_a_classifier_measures_a_place(segmenter, detector):
    for model, place in ((segmenter, (30, 41)), (detector, (8, 8, 60, 60))):
        seen = hl.focus(model, place)
        before = [p.requires_grad for p in model.parameters()]
        for point in (None, "network.stages.1", "network.stages.2.blocks.0.hire.height.mixed"):
            found = hl.grad_cam(seen, X, 1, point)
            assert found.maps.shape[0] == 2
            assert found.maps.any()
        assert found.names[0] == "square"
        assert hl.attribute(seen, X, 0, method="gradient").maps.shape == (2, 96, 128)
        field = hl.receptive_field(seen, X, "levels.1")
        assert field.map.shape == (96, 128)
        assert [p.requires_grad for p in model.parameters()] == before


def test_grad_cam_of_a_place_is_grad_cam_by_hand(segmenter):
    """Weights are the gradient's means over places; the sum over channels is the map."""
    seen = hl.focus(segmenter, (30, 41))
    found = hl.grad_cam(seen, X[:1], 1, "network.stages.1")
    kept = {}

    def keep(module, given, output):
        output.retain_grad()
        kept["map"] = output

    with torch.enable_grad():
        x = X[:1].clone().requires_grad_()
        hook = segmenter.backbone.network.stages[1].register_forward_hook(keep)
        segmenter(x)[0, 1, 30, 41].backward()
        hook.remove()
    value = kept["map"]
    weights = value.grad.mean((2, 3), keepdim=True)
    expected = (weights * value).sum(1)[0].detach()
    torch.testing.assert_close(torch.from_numpy(found.maps[0]), expected, rtol=1e-3, atol=1e-6)


def test_an_edit_of_the_backbone_reaches_the_detector(detector):
    """Points are edited in the network inside, and what stands on it sees that."""
    seen = hl.focus(detector, (8, 8, 60, 60))
    network = detector.backbone.network
    with torch.no_grad():
        before = seen(X)
        with edits(network, {"stages.0.out": lambda value, point: 0 * value}):
            cut = seen(X)
        torch.testing.assert_close(seen(X), before)
    assert not torch.equal(cut, before)


@pytest.mark.parametrize(
    ("side", "level"), [(20, 0), (111, 0), (112, 1), (223, 1), (224, 2), (448, 3), (2000, 3)]
)
def test_a_boxs_level_is_that_of_the_pyramids_paper(side, level):
    model = hl.detector("mask_rcnn", "hire_mlp_atto", 2, seed=0, width=16)
    assert hl.focus(model, (0, 0, side, side)).level == level


def test_what_has_no_place_is_said_in_a_sentence(segmenter, detector):
    with pytest.raises(HirelabError, match=r"Segmenter and the place .* a pixel \(row, column\)"):
        hl.focus(segmenter, (1, 2, 3, 4))
    with pytest.raises(HirelabError, match="a detector and a box"):
        hl.focus(detector, (1, 2))
    for place in (None, "abcd", (1, 2, float("nan"), 4)):
        with pytest.raises(HirelabError, match="a detector and a box"):
            hl.focus(detector, place)
    with pytest.raises(HirelabError, match="in whole numbers"):
        hl.focus(segmenter, (1.5, 2))
    with pytest.raises(HirelabError, match="96 rows and 128 columns"):
        hl.focus(segmenter, (96, 0))(X)
    with pytest.raises(HirelabError, match="x1 < x2 up to 128"):
        hl.focus(detector, (10, 10, 200, 20))(X)
    assert hl.focus(detector, torch.tensor([100.0, 10, 128.001, 20]))(X).isfinite().all()

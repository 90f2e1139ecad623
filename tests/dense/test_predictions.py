"""What is found on one image: objects, classes of pixels, and what a pyramid gives to them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.datasets.boxes import open_boxes
from hirelab.datasets.label_maps import open_label_maps
from hirelab.dense.evaluation import evaluate_detector, evaluate_segmenter
from hirelab.dense.factory import bundled
from hirelab.dense.predictions import Objects, PixelLabels, beside, image_part, stage_maps, truth
from hirelab.dense.stages import blurred_stage, stage_effect

BOXES, MAPS = (lambda: open_boxes("scenes", "val")), (lambda: open_label_maps("scenes", "val"))


@pytest.fixture(scope="module")
def detector():
    return hl.load_dense("scenes.mask_rcnn")


@pytest.fixture(scope="module")
def segmenter():
    return hl.load_dense("scenes.fpn")


def overlap(one, other):
    """Intersection over union of two boxes."""
    edges = np.array([one, other])
    low, high = edges[:, :2].max(0), edges[:, 2:].min(0)
    both = np.prod(np.maximum(high - low, 0))
    return both / (np.prod(edges[:, 2:] - edges[:, :2], axis=1).sum() - both)


def test_the_bundled_networks_reach_what_their_manifests_say(detector, segmenter):
    boxes = evaluate_detector(detector, BOXES())
    assert boxes.box["ap"] == pytest.approx(bundled()["scenes.mask_rcnn"]["box_ap"], abs=1.0)
    assert boxes.mask["ap"] == pytest.approx(bundled()["scenes.mask_rcnn"]["mask_ap"], abs=1.0)
    pixels = evaluate_segmenter(segmenter, MAPS())
    assert pixels.miou == pytest.approx(bundled()["scenes.fpn"]["miou"], abs=1.0)


def test_what_is_found_is_where_the_data_have_it(detector):
    images = BOXES()
    right = total = 0
    for i in range(len(images)):
        found, real = hl.predict(detector, images.read(i)), truth(images, i)
        assert isinstance(found, Objects)
        assert (np.diff(found.scores) <= 0).all()
        assert found.masks.shape == (len(found), 96, 128)
        for box, label in zip(real.boxes, real.labels, strict=True):
            total += 1
            right += any(
                overlap(box, b) > 0.5 and own == label
                for b, own in zip(found.boxes, found.labels, strict=True)
            )
    assert right / total > 0.7


def test_pixels_are_what_the_evaluation_counts(segmenter):
    images = MAPS()
    hits = total = 0
    for i in range(len(images)):
        image, labels = images.read(i)
        found = hl.predict(segmenter, image)
        assert isinstance(found, PixelLabels)
        hits += (found.labels == labels).sum()
        total += labels.size
        assert found.confidence.min() >= 1 / 4
        assert sum(found.shares.values()) == pytest.approx(1)
    expected = evaluate_segmenter(segmenter, images).pixel_accuracy
    assert 100 * hits / total == pytest.approx(expected, abs=1e-6)


def some(**changes):
    given = {
        "image": np.zeros((96, 128, 3), np.uint8),
        "classes": ["a", "b"],
        "boxes": np.array([[0, 0, 100, 90], [10, 10, 30, 30], [60, 60, 80, 80.0]]),
        "labels": np.array([0, 1, 1]),
        "scores": np.array([0.9, 0.5, 0.1]),
        "masks": np.zeros((0, 96, 128), bool),
    }
    return Objects(**{**given, **changes})


def test_objects_by_score_class_and_place():
    found = some()
    assert found.above(0.5).scores.tolist() == [0.9, 0.5]
    assert found.above(0, [1]).scores.tolist() == [0.5, 0.1]
    assert found.at(20, 20) == 1  # the smaller of two around it
    assert found.at(50, 50) == 0
    assert some(boxes=found.boxes[1:], labels=found.labels[1:]).at(0, 127) == 1  # the nearest
    assert found.above(0.95).at(1, 1) is None


def test_results_are_saved_and_drawn(tmp_path, detector, segmenter):
    image = BOXES().read(2)
    found, labelled = hl.predict(detector, image), hl.predict(segmenter, image)
    for one in (found, labelled):
        one.save(tmp_path / "one.npz")
        again = type(one).load(tmp_path / "one.npz")
        assert str(again) == str(one)
        assert one.plot().text == str(one)
    drawn = beside({"objects": found, "classes": labelled})
    assert "objects" in drawn.text
    with pytest.raises(HirelabError, match="nothing to draw"):
        beside({})
    assert json.loads(json.dumps(found.records()))[0]["class"] in detector.classes


def test_what_cannot_be_predicted_is_said_in_a_sentence(detector):
    with pytest.raises(HirelabError, match=r"threshold is 50; give a score from 0 to 1"):
        hl.predict(detector, "coffee", threshold=50)
    with pytest.raises(HirelabError, match=r"is a Linear; give one of hl\.detector"):
        hl.predict(torch.nn.Linear(1, 1), "coffee")
    with pytest.raises(HirelabError, match=r"Did you mean 'scenes\.fpn'"):
        hl.load_dense("scenes.fpm.")
    with pytest.raises(HirelabError, match="0 to 23"):
        truth(BOXES(), 24)


def test_the_maps_are_of_the_image_and_not_of_the_canvas_beside_it():
    model = hl.detector("retinanet", "hire_mlp_atto", 2, seed=0, min_size=64, max_size=96, width=16)
    image = BOXES().read(1).crop((0, 0, 104, 96))  # scaled to 69 x 64, on a canvas of 96 x 64
    maps = stage_maps(model, image)
    assert [one.shape[1:] for one in maps] == [(16, 17), (8, 9), (4, 4), (2, 2)]
    assert image_part(np.zeros((3, 10, 12)), (1.0, 0.5)).shape == (3, 10, 6)


# ------------------------------------------------------------------ without a stage


def test_a_blurred_stage_says_nothing_of_places(segmenter):
    x = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = segmenter.backbone(x)
        for stage in range(4):
            with blurred_stage(segmenter, stage):
                maps = segmenter.backbone(x)
            for i, (own, before) in enumerate(zip(maps, whole, strict=True)):
                if i == stage:
                    mean = before.mean((2, 3), keepdim=True)
                    torch.testing.assert_close(own, mean.expand_as(before))
                else:
                    assert torch.equal(own, before)
        again = segmenter.backbone(x)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    with pytest.raises(HirelabError, match="stage is 4"), blurred_stage(segmenter, 4):
        pass


def test_what_the_pyramid_gives(segmenter, detector):
    """All four stages blurred leave a segmenter one answer for every place (but for borders)."""
    found = stage_effect(segmenter, MAPS(), progress=False)
    assert found.values[0, 0] == pytest.approx(evaluate_segmenter(segmenter, MAPS()).miou)
    assert found.columns == ["mean", *segmenter.classes]
    assert found.values[1, 0] < found.values[0, 0] - 5  # edges come from the finest map
    assert "without stage 3" in found.plot().text
    assert len(found.records()) == 5
    with pytest.raises(HirelabError, match="images of open_label_maps"):
        stage_effect(segmenter, BOXES())

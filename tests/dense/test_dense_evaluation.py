"""Evaluation: known answers give known figures, whatever the network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets.boxes import Box, BoxedImages
from hirelab.datasets.label_maps import LabelMaps
from hirelab.dense import evaluation
from hirelab.dense.detection import Detector
from hirelab.dense.evaluation import count_pairs, evaluate_detector, evaluate_segmenter

SIZE = (60, 40)  # width, height
TRUE = (
    (Box((5, 5, 25, 25), 0, None, False, 400), Box((30, 10, 55, 35), 1, None, False, 625)),
    (Box((0, 0, 20, 30), 1, None, False, 600),),
    (),
)


@pytest.fixture
def images(monkeypatch):
    monkeypatch.setattr(BoxedImages, "read", lambda self, i: Image.new("RGB", self.sizes[i]))
    return BoxedImages(
        Path("made"), "val", ("round", "square"), (1, 7), (10, 11, 12), ("a", "b", "c"),
        (SIZE,) * 3, TRUE, {}, "print", None,
    )  # fmt: skip


class Oracle(Detector):
    """Answers by a function of the image's turn."""

    def __init__(self, answer, kind="mask_rcnn"):
        torch.nn.Module.__init__(self)
        self.kind, self.classes, self.answer, self.turn = kind, ("round", "square"), answer, 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, targets=None):
        rows = self.answer(self.turn)
        self.turn += 1
        masks = torch.zeros(len(rows), 1, SIZE[1], SIZE[0])
        for mask, (box, _, _) in zip(masks, rows, strict=True):
            x1, y1, x2, y2 = (int(v) for v in box)
            mask[0, y1:y2, x1:x2] = 1
        found = {
            "boxes": torch.tensor([r[0] for r in rows], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([r[1] for r in rows], dtype=torch.int64),
            "scores": torch.tensor([r[2] for r in rows], dtype=torch.float32),
            "masks": masks,
        }
        return [found]


def right(turn):
    return [(one.box, one.label, 0.9) for one in TRUE[turn]]


def test_right_answers_are_100_percent(images):
    found = evaluate_detector(Oracle(right), images)
    assert found.box["ap"] == found.mask["ap"] == pytest.approx(100)
    assert found.by_class == pytest.approx([100, 100])
    assert np.isnan(found.box["large"])  # there is none


def test_wrong_classes_and_nothing_are_0_percent(images):
    swapped = evaluate_detector(
        Oracle(lambda turn: [(box, 1 - label, s) for box, label, s in right(turn)]), images
    )
    nothing = evaluate_detector(Oracle(lambda turn: []), images)
    assert swapped.box["ap"] == nothing.box["ap"] == nothing.mask["ap"] == 0


def test_a_box_of_known_overlap_counts_below_it_only(images):
    """A box shifted by a fifth of its width overlaps by 0.8 / 1.2 = 2/3: right at IoU 0.50, 0.55,
    0.60 and 0.65, wrong at the six above."""

    def shifted(turn):
        def moved(box):
            width = box[2] - box[0]
            return (box[0] + width / 5, box[1], box[2] + width / 5, box[3])

        return [(moved(box), label, s) for box, label, s in right(turn)]

    found = evaluate_detector(Oracle(shifted), images, masks=False)
    assert found.box["ap50"] == pytest.approx(100)
    assert found.box["ap75"] == 0
    assert found.box["ap"] == pytest.approx(40)
    assert found.mask == {}


def test_a_crowd_is_neither_found_nor_missed(images):
    crowd = Box((30, 10, 55, 35), 1, None, True, 625)
    crowded = dataclasses.replace(images, objects=((TRUE[0][0], crowd), *TRUE[1:]))
    without = evaluate_detector(Oracle(lambda t: right(t)[:1]), crowded, masks=False)
    within = evaluate_detector(Oracle(right), crowded, masks=False)
    assert without.box["ap"] == within.box["ap"] == pytest.approx(100)


def test_a_network_of_other_classes_is_refused(images):
    other = dataclasses.replace(images, classes=("round", "oval"))
    with pytest.raises(HirelabError, match="they have to be the same"):
        evaluate_detector(Oracle(right), other)
    with pytest.raises(HirelabError, match="no object"):
        evaluate_detector(Oracle(right), dataclasses.replace(images, objects=((), (), ())))


def test_two_processes_give_the_figures_of_one(images, monkeypatch):
    """Each takes every second image; what is gathered is the same."""
    whole = evaluate_detector(Oracle(right), images)
    share = evaluation._share
    rows = []
    for rank in range(2):
        monkeypatch.setattr(evaluation, "_share", lambda n, p, r=rank: iter(range(r, n, 2)))
        monkeypatch.setattr(evaluation, "_gathered", lambda found: rows.append(found) or found)
        answers = list(range(rank, 3, 2))
        evaluate_detector(Oracle(lambda t, a=answers: right(a[t])), images)
    monkeypatch.setattr(evaluation, "_share", share)
    monkeypatch.setattr(evaluation, "_gathered", lambda found: [one for r in rows for one in r])
    again = evaluate_detector(Oracle(lambda t: []), images)
    assert again.box == pytest.approx(whole.box, nan_ok=True)
    assert again.mask == pytest.approx(whole.mask, nan_ok=True)


# ------------------------------------------------------------------ pixels


def test_pairs_are_counted_and_unlabelled_pixels_are_not():
    labels = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
    answer = np.array([[0, 2, 2], [1, 1, 1]])
    assert count_pairs(labels, answer, 3).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]


class Constant(torch.nn.Module):
    """Says one class everywhere, but another in the left half; both with certainty."""

    classes = ("a", "b", "c")

    def __init__(self, left, elsewhere):
        super().__init__()
        self.left, self.elsewhere = left, elsewhere
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        logits = torch.zeros(1, 3, *x.shape[-2:])
        logits[:, self.elsewhere] = 50
        half = x.shape[-1] // 2
        logits[..., :half] = 0
        logits[:, self.left, :, :half] = 50
        return logits


@pytest.fixture
def maps(monkeypatch):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 1
    labels[:10] = 255
    pair = (Image.new("RGB", (60, 40)), labels)
    monkeypatch.setattr(LabelMaps, "read", lambda self, i: pair)
    return LabelMaps(
        Path("made"), "val", ("a", "b", "c"), ("x", "y"), ("x", "y"), "print", None, 0, 255
    )


def test_iou_by_hand(maps):
    """Left is right; right is called c: a has IoU 1, b 0, c is never labelled but answered: 0."""
    found = evaluate_segmenter(Constant(0, 2), maps)
    assert found.iou.tolist() == [100, 0, 0]
    assert found.miou == pytest.approx(100 / 3)
    assert found.pixel_accuracy == 50
    assert found.confusion.sum() == 2 * 30 * 60


def test_a_class_that_nobody_names_is_left_out(maps):
    found = evaluate_segmenter(Constant(0, 1), maps)
    assert np.isnan(found.iou[2])
    assert found.miou == found.pixel_accuracy == 100


def test_mirrors_are_turned_back(maps):
    """The network is right on the image and, mirrored, swaps the sides: even, so its answers tie
    pixel for pixel, while without the turn back they would agree on the wrong side."""
    alone = evaluate_segmenter(Constant(0, 1), maps, scales=(0.8, 1.0, 1.5))
    assert alone.miou > 97  # but for the border between the halves
    both = evaluate_segmenter(Constant(0, 1), maps, flip=True)
    assert both.confusion[0, 2] == both.confusion[1, 2] == 0
    # a tie goes to the first class: all of a, none of b
    assert both.iou[:2].tolist() == [50, 0]
